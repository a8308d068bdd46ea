from dataclasses import replace

import pytest
import torch
from torch import Tensor

from vla.errors import ConfigError
from vla.inference.generate import generate
from vla.models.backbones import qwen2_vl_config
from vla.models.backbones.qwen2_vl import Qwen2VL
from vla.models.config_dict import config_from_dict, config_to_dict
from vla.nn.positions import PictureStart

TEXT_VOCAB_SIZE = 64


@pytest.fixture(scope="module", params=[False, True], ids=["released form", "textbook form"])
def model(request) -> Qwen2VL:
    torch.manual_seed(0)
    return Qwen2VL(qwen2_vl_config.tiny(TEXT_VOCAB_SIZE, is_textbook=request.param)).eval()


def _pictures(*sizes: tuple[int, int]) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [
        torch.randint(0, 256, (3, *size), generator=generator, dtype=torch.uint8) for size in sizes
    ]


def _row(model: Qwen2VL, num_tokens: int, words_after: int = 3) -> tuple[Tensor, Tensor]:
    ids = torch.tensor([[1, 2, *[model.config.image_id] * num_tokens, *range(3, 3 + words_after)]])
    return ids, torch.ones_like(ids, dtype=torch.bool)


def test_the_small_model_has_some_three_million_parameters(model):
    assert 2.5e6 < sum(parameter.numel() for parameter in model.parameters()) < 3.5e6


@torch.no_grad()
def test_the_tokens_of_a_picture_do_not_depend_on_the_other_pictures(model):
    pictures = _pictures((64, 64), (32, 128), (16, 48))
    together = model.config.prepare_pictures(pictures)
    tokens = model.image_tokens(together.pixels, together.grids)
    for picture, found in zip(pictures, tokens.split(together.num_tokens), strict=True):
        alone = model.config.prepare_pictures([picture])
        expected = model.image_tokens(alone.pixels, alone.grids)
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


@torch.no_grad()
def test_each_step_of_a_clip_is_read_by_itself(model):
    clip = torch.stack(_pictures(*[(64, 64)] * 4))
    still = model.config.prepare_clips([clip[[0, 1, 0, 1]]])
    moving = model.config.prepare_clips([clip])
    first, second = (model.image_tokens(x.pixels, x.grids).chunk(2) for x in (still, moving))
    assert still.grids.tolist() == [[2, 8, 8]]
    torch.testing.assert_close(first[0], first[1], atol=1e-5, rtol=0)
    torch.testing.assert_close(second[0], first[0], atol=1e-5, rtol=0)
    assert (second[1] - first[1]).abs().max() > 1e-2


def test_the_number_of_tokens_lies_within_the_bounds_on_pixels(model):
    prepared = model.config.prepare_pictures(_pictures((300, 200), (4, 4), (48, 32)))
    assert prepared.num_tokens == [4 * 3, 1, 3 * 2]


@torch.no_grad()
def test_a_padded_row_equals_the_row_alone(model):
    prepared = model.config.prepare_pictures(_pictures((64, 48)))
    ids, valid = _row(model, prepared.num_tokens[0])
    alone = model(ids, valid, prepared.pixels, prepared.grids)
    for left, right in [(3, 0), (0, 3)]:
        padded = model(
            torch.nn.functional.pad(ids, (left, right)),
            torch.nn.functional.pad(valid, (left, right)),
            prepared.pixels,
            prepared.grids,
        )[:, left : left + ids.shape[1]]
        torch.testing.assert_close(padded, alone, atol=1e-5, rtol=0)


@pytest.mark.parametrize("words_after", [0, 3])
def test_generating_with_the_cache_equals_reading_everything_again(model, words_after):
    prepared = model.config.prepare_pictures(_pictures((64, 48)))
    ids, valid = _row(model, prepared.num_tokens[0], words_after)
    prefix = model.embed(ids, valid, prepared.pixels, prepared.grids)
    generated = generate(model.decoder, prefix, max_tokens=5).tokens
    with torch.no_grad():
        whole = torch.cat([ids, generated], dim=1)
        logits = model(
            whole, torch.ones_like(whole, dtype=torch.bool), prepared.pixels, prepared.grids
        )
    assert logits[:, ids.shape[1] - 1 : -1].argmax(dim=-1).tolist() == generated.tolist()


def test_gradients_reach_every_weight(model):
    prepared = model.config.prepare_pictures(_pictures((64, 48), (16, 16)))
    ids, _ = _row(model, sum(prepared.num_tokens))
    logits = model(ids, torch.ones_like(ids, dtype=torch.bool), prepared.pixels, prepared.grids)
    logits.square().mean().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    model.zero_grad(set_to_none=True)


def test_a_config_goes_to_plain_values_and_back(model):
    values = config_to_dict(model.config)
    assert config_from_dict(type(model.config), values) == model.config


def test_still_pictures_of_the_textbook_form_have_time_zero():
    config = qwen2_vl_config.tiny(TEXT_VOCAB_SIZE, is_textbook=True)
    assert config.picture_start is PictureStart.ZERO
    model = Qwen2VL(config)
    prepared = config.prepare_pictures(_pictures((32, 48)))
    ids, valid = _row(model, prepared.num_tokens[0])
    positions = model.embed(ids, valid, prepared.pixels, prepared.grids).positions[0]
    assert positions[2:8].tolist() == [[0, r, c] for r in range(2) for c in range(3)]


def test_more_pictures_than_places_and_more_places_than_pictures_are_refused(model):
    prepared = model.config.prepare_pictures(_pictures((64, 64), (64, 64)))
    for num_places in (16, 33):
        ids, valid = _row(model, num_places)
        with pytest.raises(ConfigError, match=f"32 image tokens, the prompts keep {num_places} pl"):
            model.embed(ids, valid, prepared.pixels, prepared.grids)


def test_places_without_pictures_are_refused(model):
    with pytest.raises(ConfigError, match="0 image tokens, the prompts keep 4 places"):
        model.embed(*_row(model, 4))


def test_patches_that_do_not_fit_the_grids_are_refused_with_both_numbers(model):
    prepared = model.config.prepare_pictures(_pictures((64, 64)))
    with pytest.raises(ConfigError, match="grids ask for 64 patches, and 60 were given"):
        model.image_tokens(prepared.pixels[:60], prepared.grids)


def test_patches_of_another_size_are_refused(model):
    with pytest.raises(ConfigError, match=r"has 192 values; this tower reads 384: 2 frames of 8"):
        model.image_tokens(torch.zeros(4, 192), torch.tensor([[1, 2, 2]]))


@pytest.mark.parametrize("grid", [[1, 3, 4], [0, 2, 2]])
def test_grids_that_the_merger_cannot_take_are_refused(model, grid):
    with pytest.raises(ConfigError, match="multiples of 2"):
        model.image_tokens(torch.zeros(12, 384), torch.tensor([grid]))


def test_settings_that_contradict_each_other_are_refused():
    config = qwen2_vl_config.tiny(TEXT_VOCAB_SIZE)
    for change, message in [
        ({"min_pixels": 5000}, "0 < min_pixels <= max_pixels"),
        ({"max_clip_pixels": 100, "min_clip_pixels": 50}, "room for one token of 16 x 16"),
        ({"image_id": 66}, "image_id = 66 is not among the 66 tokens"),
        ({"decoder": replace(config.decoder, rope_sections=[8, 8])}, "time, row and column"),
    ]:
        with pytest.raises(ConfigError, match=message):
            replace(config, **change)
