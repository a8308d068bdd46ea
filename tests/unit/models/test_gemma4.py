from dataclasses import replace

import pytest
import torch
from reference_gemma4 import (
    FORMS,
    PICTURE,
    Pair,
    Prompts,
    e2b_like,
    num_values,
    prompts_of,
    random_pictures,
)

from vla.errors import ConfigError
from vla.models.backbones import gemma4_config
from vla.models.backbones.gemma4 import Gemma4


@pytest.fixture(scope="module")
def pair() -> Pair:
    return e2b_like()


@pytest.fixture(scope="module", params=FORMS, ids=str)
def form(request) -> tuple[Gemma4, Prompts]:
    return FORMS[request.param]()


@torch.no_grad()
@pytest.mark.parametrize("preset", ["tiny_gemma4", "tiny_gemma4_encoder", "tiny_gemma4_spatial"])
def test_raw_pictures_of_any_shape_are_prepared_and_read(preset):
    torch.manual_seed(0)
    model = Gemma4(getattr(gemma4_config, preset)()).eval()
    pictures = [
        torch.randint(0, 256, (3, *size), dtype=torch.uint8) for size in ((64, 64), (30, 90))
    ]
    prepared = model.config.prepare_pictures(pictures)
    image = model.config.image_id
    rows = [[2, *[image] * count, 7] for count in prepared.num_tokens]
    length = max(map(len, rows))
    ids = torch.tensor([row + [0] * (length - len(row)) for row in rows])
    logits = model(ids, ids > 0, prepared.pixels, prepared.positions)
    assert logits.shape == (2, length, 512)
    assert logits.isfinite().all()


def test_the_spatial_form_has_a_picture_s_rows_and_columns_for_positions():
    """Words count alike on all axes; a picture of 2 x 3 tokens begins at the next free position."""
    model = Gemma4(gemma4_config.tiny_gemma4_spatial())
    image = model.config.image_id
    ids = torch.tensor([[2, 7, *[image] * 6, 8]])
    prompts = Prompts(ids, ids > 0, *random_pictures([(2, 3)], num_values(model)))
    places = [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)]
    assert prompts.embedded(model).positions[0].tolist() == [
        [0, 0, 0],
        [1, 1, 1],
        *([2, 2 + row, 2 + column] for row, column in places),
        [5, 5, 5],
    ]
    assert model.connector is None


def test_patches_of_another_size_are_refused(form):
    model, _ = form
    with pytest.raises(ConfigError, match=r"a patch has 27 values; this model reads"):
        model.image_tokens(torch.zeros(1, 6, 27), torch.zeros(1, 6, 2, dtype=torch.int64))


@pytest.mark.parametrize("grid", [(3, 2), (2, 18)])
def test_pictures_that_do_not_fill_squares_or_outgrow_the_tables_are_refused(pair, grid):
    patches, places = random_pictures([grid], 12)
    with pytest.raises(ConfigError, match=r"multiples of 2 up to 16; use Gemma4Config"):
        pair.ours.image_tokens(patches, places)


@pytest.mark.parametrize("counts", [(1, 2), (2, 1), (1, 0)])
def test_more_or_fewer_pictures_than_placeholders_are_refused(pair, counts):
    """As many pictures as places are kept for, and as many as come."""
    kept, given = counts
    prompts = prompts_of([[PICTURE] * kept], [(1, 2)] * kept)
    if given:
        prompts.patches, prompts.places = random_pictures([(2, 4)] * given, 12)
    else:
        prompts.patches = prompts.places = None
    with pytest.raises(ConfigError, match=rf"give {2 * given} image tokens.* keep {2 * kept}"):
        prompts.embedded(pair.ours)


def test_a_spatial_form_without_its_sections_is_refused():
    with pytest.raises(ConfigError, match="rope_sections of the decoder do not fit"):
        replace(gemma4_config.tiny_gemma4(), spatial_start=gemma4_config.PictureStart.NEXT)


def test_a_form_without_projection_needs_patches_as_wide_as_the_decoder():
    with pytest.raises(ConfigError, match=r"as wide as the decoder \(192, not 96\)"):
        replace(gemma4_config.tiny_gemma4_spatial(), patch_width=96)
