import numpy as np
import pytest
import torch

from vla.errors import ConfigError
from vla.inference.engine import ActionEngine
from vla.inference.fast_decoding import generate_chunks, whole_chunks
from vla.inference.sampling import Sampling
from vla.models.action_config import ActionConfig, ActionDecoding
from vla.models.action_heads import FastActionHead
from vla.models.action_model import VisionLanguageAction
from vla.models.backbones.prismatic import Prismatic
from vla.models.backbones.prismatic_config import tiny
from vla.models.decoder_config import Head
from vla.tokenizers.fast import FastTokenizer, train_fast

TEXT, ROOM, END = 20, 64, 3


def _fast(chunk_length: int = 4) -> FastTokenizer:
    rng = np.random.default_rng(0)
    chunks = np.cumsum(rng.normal(0, 0.1, (300, chunk_length, 7)), axis=1)
    chunks[:, :, 3:] = np.round(chunks[:, :, 3:])  # mostly still
    return train_fast(chunks, scale=5.0, vocab_size=60)


FAST = _fast()


def _model(seed: int) -> VisionLanguageAction:
    torch.manual_seed(seed)
    shape = tiny(TEXT + ROOM, width=32, depth=1, vision_width=32, vision_depth=1)
    shape.decoder.head = Head.TIED
    config = ActionConfig(
        text_vocab_size=TEXT, num_fast_tokens=ROOM, decoding=ActionDecoding.FAST, chunk_length=4, grounding=False
    )  # fmt: skip
    model = VisionLanguageAction(Prismatic(shape), config)
    for weight in model.parameters():
        torch.nn.init.normal_(weight, std=0.3)
    return model.eval()


def _inputs(batch: int = 6) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (batch, 2, 3, 64, 64), generator=generator, dtype=torch.uint8)
    ids = torch.randint(4, TEXT, (batch, 5), generator=generator)
    valid = torch.arange(5) < torch.arange(batch)[:, None] % 4 + 2
    return images, ids, valid, torch.rand(batch, 7, generator=generator)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("temperature", [0.0, 3.0])
def test_every_answer_spells_a_whole_chunk_whatever_the_weights(seed, temperature):
    model = _model(seed)
    chunks, generated = generate_chunks(
        model,
        model.prefix(*_inputs()),
        FAST,
        END,
        sampling=Sampling(temperature=temperature),
        generator=torch.Generator().manual_seed(seed),
    )
    pairs = zip(generated.tokens, generated.valid, strict=True)
    rows = [row[is_real].tolist() for row, is_real in pairs]
    assert len({len(row) for row in rows}) > 1 or temperature == 0  # rows of several lengths
    for row in rows:
        assert row[-1] == END
        assert FAST.is_chunk([token - TEXT for token in row[:-1]])
    spelled = [[token - TEXT for token in row[:-1]] for row in rows]
    np.testing.assert_array_equal(chunks.numpy(), FAST.decode(spelled))
    assert generated.probabilities[generated.valid].min() > 0


def test_a_row_does_not_depend_on_the_others():
    model, inputs = _model(0), _inputs()
    engine = ActionEngine(model=model, fast=FAST, end_id=END)
    together, _ = engine.chunk(*inputs)
    alone, _ = engine.chunk(*(x[2:3] for x in inputs))
    torch.testing.assert_close(together[2:3], alone)


def test_a_longer_token_may_follow_while_it_fits_and_the_end_when_nothing_is_left():
    rule = whole_chunks(FastActionHead(TEXT, ROOM), FAST, TEXT + ROOM, END)
    counts = torch.from_numpy(FAST.num_coefficients)
    longest, shortest = int(counts.argmax()), int(counts.argmin())
    assert counts[longest] > counts[shortest] == 1
    left = 28 - int(counts[longest])
    said = torch.tensor([[longest] + [shortest] * (left - 1), [shortest] * left]) + TEXT
    allowed = rule(said)
    assert allowed.sum(dim=1).tolist()[0] == int((counts == 1).sum())  # one coefficient is left
    assert allowed[1, TEXT + longest] == (counts[longest] <= 28 - left)
    assert not allowed[:, END].any()
    done = rule(torch.cat([said[:1], torch.tensor([[TEXT + shortest]])], dim=1))
    assert done.nonzero().tolist() == [[0, END]]
    assert not rule(said[:, :0])[:, TEXT + FAST.num_tokens :].any()  # rows without a token


def test_what_an_engine_needs_for_it_and_is_not_given_is_said():
    model = _model(0)
    with pytest.raises(ConfigError, match=r"\(fast=\) and the end token"):
        ActionEngine(model=model).chunk(*_inputs(1))
    with pytest.raises(ConfigError, match="FAST has no bins"):
        ActionEngine(model=model).predict(*_inputs(1))
    with pytest.raises(ConfigError, match="rows for 2"):
        whole_chunks(FastActionHead(TEXT, 2), FAST, TEXT + ROOM, END)
    with pytest.raises(ConfigError, match="fed fast_tokens"):
        model(*_inputs(1))


@pytest.mark.parametrize(
    "change", [{"decoding": ActionDecoding.FAST}, {"num_fast_tokens": 5}], ids=["none", "unused"]
)
def test_fast_and_room_for_its_tokens_belong_together(change):
    with pytest.raises(ConfigError, match="FAST needs some"):
        ActionConfig(grounding=False, **change)
