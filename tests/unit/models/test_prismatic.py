import dataclasses
import json

import pytest
import torch

from vla.errors import ConfigError
from vla.models.backbones.prismatic import Prismatic
from vla.models.backbones.prismatic_config import PrismaticConfig, openvla_7b, tiny
from vla.models.config_dict import config_from_dict, config_to_dict
from vla.models.decoder_config import DecoderConfig, Head
from vla.models.sequence import read
from vla.models.vision import presets
from vla.nn.masks import PrefixAttention

SHAPE = PrismaticConfig(
    image_size=32,
    towers=[presets.tiny_dinov2(32, 1), presets.tiny_siglip(32, 1)],
    projector_width=32,
    decoder=DecoderConfig(
        vocab_size=40, width=32, depth=2, num_heads=2, num_kv_heads=1, head_dim=16, mlp_width=48, head=Head.TIED
    ),
)  # fmt: skip


def _model(**changes) -> Prismatic:
    torch.manual_seed(0)
    model = Prismatic(dataclasses.replace(SHAPE, **changes)).eval()
    if model.view_embedding is not None:
        torch.nn.init.normal_(model.view_embedding)
    return model


def _pictures(*counts: int) -> list[list[torch.Tensor]]:
    torch.manual_seed(1)
    return [
        [torch.randint(0, 256, (3, 32, 32), dtype=torch.uint8) for _ in range(n)] for n in counts
    ]


def _words(*lengths: int) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(2)
    ids = torch.randint(4, 40, (len(lengths), max(lengths)))
    valid = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    return ids.masked_fill(~valid, 0), valid


def test_views_stand_between_the_first_word_and_the_rest():
    ids, valid = _words(5, 3)
    prefix = _model().embed_pictures(ids, valid, _pictures(2, 2))
    assert prefix.is_image[0].tolist() == [False] + [True] * 8 + [False] * 4
    assert prefix.token_ids[0].tolist() == [ids[0, 0], *[0] * 8, *ids[0, 1:]]
    assert prefix.valid[1].tolist() == [True] * 11 + [False] * 2
    assert prefix.positions[1].tolist() == [*range(11), 10, 10]


def test_one_tensor_of_pictures_is_read_as_the_same_pictures_one_by_one():
    (ids, valid), rows = _words(5, 3), _pictures(2, 2)
    together = torch.stack([torch.stack(row) for row in rows])
    apart, whole = (_model().embed_pictures(ids, valid, given) for given in (rows, together))
    assert torch.equal(apart.embeddings, whole.embeddings)


@pytest.mark.parametrize("attention", list(PrefixAttention))
@pytest.mark.parametrize("is_left", [True, False])
def test_neither_padding_nor_missing_pictures_nor_other_rows_change_a_row(attention, is_left):
    model, (ids, valid), rows = _model(attention=attention), _words(6, 4), _pictures(2, 1)
    if is_left:
        ids[1], valid[1] = ids[1].roll(2), valid[1].roll(2)
    suffix = valid & (torch.arange(6) > 3)
    both = model.embed_pictures(ids, valid, rows, suffix)
    hidden = read(model.decoder, both)[1][both.valid[1]]
    alone = model.embed_pictures(
        ids[1:, valid[1]], valid[1:, valid[1]], rows[1:], suffix[1:, valid[1]]
    )
    torch.testing.assert_close(hidden, read(model.decoder, alone)[0], atol=1e-5, rtol=1e-4)


def test_words_of_an_answer_see_what_came_before_and_the_prompt_sees_no_answer():
    model, (ids, valid), rows = _model(), _words(6), _pictures(1)
    suffix = torch.arange(6)[None] > 3
    before = model(ids, valid, rows, suffix)
    ids[0, 5] += 1 if ids[0, 5] < 39 else -1
    after = model(ids, valid, rows, suffix)
    assert torch.allclose(before[:, :-1], after[:, :-1], atol=1e-6)
    assert not torch.allclose(before[:, -1], after[:, -1], atol=1e-4)


def test_words_alone_and_clips_can_be_read_too():
    model, (ids, valid) = _model(), _words(5)
    assert model.embed_pictures(ids, valid, [[]]).embeddings.shape == (1, 5, 32)
    (row,) = _pictures(2)
    clip = model.embed_pictures(ids, valid, [[torch.stack(row)]])
    assert torch.equal(clip.embeddings, model.embed_pictures(ids, valid, [row]).embeddings)
    assert model.num_image_tokens((2, 3, 32, 32)) == 8


def test_more_pictures_than_views_are_refused():
    with pytest.raises(ConfigError, match="a row shows 3 pictures; this model has num_views = 2"):
        _model().embed_pictures(*_words(5), _pictures(3))


def test_one_tower_alone_makes_a_model():
    model = _model(towers=SHAPE.towers[:1])
    assert model(*_words(5), _pictures(2)).shape == (1, 13, 40)


def test_the_same_seed_gives_the_same_weights():
    first, second = _model().state_dict(), _model().state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_openvla_7b_has_the_size_it_is_named_after():
    with torch.device("meta"):
        model = Prismatic(openvla_7b())
    assert round(sum(p.numel() for p in model.parameters()) / 1e9, 1) == 7.5


def test_the_tiny_model_fits_its_budget():
    num_parameters = sum(p.numel() for p in Prismatic(tiny(512)).parameters())
    assert 1.5e6 < num_parameters < 4e6


@pytest.mark.parametrize("config", [SHAPE, openvla_7b()])
def test_a_config_survives_json(config):
    values = json.loads(json.dumps(config_to_dict(config)))
    assert config_from_dict(PrismaticConfig, values) == config


def test_a_config_with_an_unknown_field_or_without_views_is_refused():
    with pytest.raises(ConfigError, match="num_wheels"):
        config_from_dict(PrismaticConfig, config_to_dict(SHAPE) | {"num_wheels": 4})
    with pytest.raises(ConfigError, match="num_views = 0; it must be at least 1"):
        dataclasses.replace(SHAPE, num_views=0)
