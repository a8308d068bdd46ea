import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vla.errors import CheckpointError, ConfigError
from vla.tokenizers.fast import FastTokenizer, dct_matrix, load_fast, save_fast, train_fast


def smooth_chunks(count: int, length: int = 8, width: int = 3, seed: int = 0) -> np.ndarray:
    """Slow waves, as arms move."""
    rng = np.random.default_rng(seed)
    time = np.linspace(0, 1, length)[None, :, None]
    speed, phase = rng.uniform(0.2, 2.0, (2, count, 1, width))
    return np.sin(2 * np.pi * (speed * time / 2 + phase)) * rng.uniform(0, 1, (count, 1, width))


@pytest.fixture(scope="module")
def fast() -> FastTokenizer:
    return train_fast(smooth_chunks(800), scale=10.0, vocab_size=300)


@pytest.mark.parametrize("length", [1, 4, 16, 50])
def test_the_transform_is_scipys_and_its_transpose_inverts_it(length):
    fft = pytest.importorskip("scipy.fft")
    signal = np.random.default_rng(0).normal(size=(length, 3))
    matrix = dct_matrix(length)
    np.testing.assert_allclose(matrix @ signal, fft.dct(signal, axis=0, norm="ortho"), atol=1e-12)
    np.testing.assert_allclose(matrix.T @ matrix @ signal, signal, atol=1e-12)


def test_decoding_errs_by_no_more_than_rounding(fast):
    chunks = smooth_chunks(200, seed=1)
    errors = fast.decode(fast.encode(chunks)) - chunks
    assert np.sqrt((errors**2).mean(axis=(1, 2))).max() <= fast.error_bound + 1e-6
    assert np.sqrt((errors**2).mean()) > fast.error_bound / 10  # it does round


@settings(max_examples=40)
@given(st.integers(0, 10_000), st.floats(0.0, 3.0))
def test_chunks_of_any_size_come_back_as_chunks_of_the_range(seed, spread):
    fast = train_fast(smooth_chunks(50), scale=5.0, vocab_size=64)
    chunk = np.random.default_rng(seed).normal(0, spread, (1, 8, 3))
    (tokens,) = fast.encode(chunk)
    assert fast.is_chunk(tokens)
    assert len(tokens) <= fast.max_tokens
    decoded = fast.decode([tokens])
    assert decoded.shape == (1, 8, 3)
    assert np.abs(decoded).max() <= 1.0


def test_smooth_chunks_take_fewer_tokens_than_numbers(fast):
    lengths = [len(tokens) for tokens in fast.encode(smooth_chunks(200, seed=1))]
    assert np.mean(lengths) < fast.max_tokens / 2
    assert min(lengths) < max(lengths)


def test_a_finer_scale_errs_less_and_takes_more_tokens():
    chunks, held_out = smooth_chunks(500), smooth_chunks(100, seed=1)
    coarse, fine = (train_fast(chunks, scale=scale, vocab_size=300) for scale in (5.0, 40.0))

    def error(fast: FastTokenizer) -> float:
        return float(np.abs(fast.decode(fast.encode(held_out)) - held_out).mean())

    def tokens(fast: FastTokenizer) -> int:
        return sum(map(len, fast.encode(held_out)))

    assert error(fine) < error(coarse) / 3
    assert tokens(fine) > tokens(coarse)


def test_the_lowest_frequency_of_every_dimension_comes_first():
    chunks = np.zeros((3, 4, 2))
    chunks[1:, :, 1] = 0.8  # constant: its only coefficient is that of frequency 0
    fast = train_fast(chunks, scale=10.0, vocab_size=20)
    levels = fast._levels(chunks)
    assert levels[1].tolist() == [0, 16, 0, 0, 0, 0, 0, 0]  # 0.8 * sqrt(4) * 10, second dimension


def test_what_is_no_chunk_becomes_rest_and_says_so(fast):
    (tokens,) = fast.encode(smooth_chunks(1, seed=2))
    for wrong in (tokens[:-1], [*tokens, tokens[0]], [], [fast.num_tokens], [-1]):
        assert not fast.is_chunk(wrong)
    decoded = fast.decode([tokens, tokens[:-1], []])
    assert np.abs(decoded[0]).max() > 0
    assert not decoded[1:].any()


def test_tokens_know_how_many_coefficients_they_spell(fast):
    counts = fast.num_coefficients
    assert counts.min() == 1
    assert counts.max() > 1
    for tokens in fast.encode(smooth_chunks(20, seed=3)):
        assert counts[tokens].sum() == fast.max_tokens


def test_values_outside_the_range_are_clipped(fast):
    chunk = smooth_chunks(1) * 0 + 5.0
    assert fast.encode(chunk) == fast.encode(chunk / 5.0)


def test_a_tokenizer_survives_json(fast, tmp_path):
    path = tmp_path / "fast.json"
    save_fast(fast, path)
    again = load_fast(path)
    chunks = smooth_chunks(30, seed=4)
    assert again.encode(chunks) == fast.encode(chunks)
    assert again.to_dict() == fast.to_dict()
    assert (again.chunk_length, again.action_width, again.scale) == (8, 3, 10.0)


def test_training_again_gives_the_same_tokenizer(fast):
    assert train_fast(smooth_chunks(800), vocab_size=300).to_dict() == fast.to_dict()


def test_other_chunks_and_bad_settings_are_refused(fast):
    with pytest.raises(
        ConfigError, match="4 actions of 3 numbers; this FAST tokenizer was trained on 8 of 3"
    ):
        fast.encode(np.zeros((1, 4, 3)))
    with pytest.raises(ConfigError, match="finite"):
        fast.encode(np.full((1, 8, 3), np.nan))
    with pytest.raises(ConfigError, match="raise it above that or lower scale"):
        train_fast(smooth_chunks(50), vocab_size=5)
    with pytest.raises(ConfigError, match="some chunks"):
        train_fast(np.zeros((0, 8, 3)))


def test_damaged_files_are_refused(fast, tmp_path):
    path = tmp_path / "fast.json"
    with pytest.raises(CheckpointError, match="cannot read"):
        load_fast(path)
    for values in ({"format": "other"}, fast.to_dict() | {"bpe": {}}, []):
        path.write_text(json.dumps(values))
        with pytest.raises(CheckpointError):
            load_fast(path)
