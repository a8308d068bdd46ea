"""Key tables on a small made-up family: every rule both ways, and every way in which a checkpoint can be wrong."""

from collections.abc import Iterator, Mapping

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from vla.checkpoints.keymap import (
    KeyMap,
    affine,
    kernel,
    prefixed,
    repeated,
    reshaped,
    scalars,
    stacked,
    stacked_affine,
    without_leading,
)
from vla.errors import CheckpointError

WIDTH = 4


class Toy(nn.Module):
    """One weight for each kind of rule."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(WIDTH, 8) for _ in range(2))
        self.patches = nn.Linear(3 * 2 * 2 * 2, WIDTH, bias=False)
        self.tokens = nn.Parameter(torch.zeros(3, WIDTH))
        self.positions = nn.Parameter(torch.zeros(5, WIDTH))
        self.limits = nn.Parameter(torch.zeros(2))
        self.temperature = nn.Parameter(torch.zeros(()))
        self.embedding = nn.Parameter(torch.zeros(7, WIDTH))


def key_map() -> KeyMap:
    block = stacked_affine("", {"q": 4, "k": 2, "v": 2})
    block = {name.removeprefix("."): rule for name, rule in block.items()}
    table = repeated("layers.{i}.", "model.layers.{i}.attn.", block, 2)
    table |= {
        "patches.weight": kernel("patch.weight", (3, 2, 2, 2)),
        "tokens": stacked({"cls_token": 1, "reg_token": 2}, leading=1),
        "positions": without_leading("pos_embed"),
        "limits": scalars(["low", "high"]),
        "temperature": reshaped("logit_scale", ours=(), theirs=(1,)),
        "embedding": "model.embed.weight",
    }
    return KeyMap(
        family="Toy",
        table=table,
        prefixes={"model.language_model.": "model.", "module.": ""},
        endings={".gamma": ".weight"},
        unread=("*.inv_freq",),
        tied={"lm_head.weight": "model.embed.weight"},
    )


def checkpoint() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    weights = {}
    for i in range(2):
        for name, rows in {"q": 4, "k": 2, "v": 2}.items():
            weights[f"model.layers.{i}.attn.{name}.weight"] = draw(rows, WIDTH)
            weights[f"model.layers.{i}.attn.{name}.bias"] = draw(rows)
    return weights | {
        "patch.weight": draw(WIDTH, 3, 2, 2, 2),
        "cls_token": draw(1, 1, WIDTH),
        "reg_token": draw(1, 2, WIDTH),
        "pos_embed": draw(1, 5, WIDTH),
        "low": draw(),
        "high": draw(),
        "logit_scale": draw(1),
        "model.embed.weight": draw(7, WIDTH),
    }


def test_every_rule_goes_there_and_back_bit_for_bit():
    theirs = checkpoint()
    ours = key_map().convert(theirs, Toy())
    again = key_map().export(ours)
    assert again.keys() == theirs.keys()
    for name, tensor in theirs.items():
        assert again[name].shape == tensor.shape, name
        assert torch.equal(again[name], tensor), name
    model = Toy()
    model.load_state_dict(ours)
    for name, tensor in key_map().convert(key_map().export(model.state_dict()), Toy()).items():
        assert torch.equal(tensor, model.state_dict()[name]), name


def test_rows_are_stacked_in_the_order_of_the_table():
    theirs = checkpoint()
    ours = key_map().convert(theirs, Toy())
    parts = [theirs[f"model.layers.1.attn.{name}.weight"] for name in "qkv"]
    assert torch.equal(ours["layers.1.weight"], torch.cat(parts))
    assert torch.equal(ours["tokens"][0], theirs["cls_token"][0, 0])


def test_a_kernel_as_a_matrix_gives_what_the_convolution_gives():
    theirs = checkpoint()["patch.weight"]
    matrix = kernel("patch.weight", (3, 2, 2, 2)).join([theirs])
    window = torch.randn(1, 3, 2, 2, 2)
    expected = nn.functional.conv3d(window, theirs).flatten()
    torch.testing.assert_close(matrix @ window[0].movedim(0, -1).flatten(), expected)


def test_half_precision_stays_half_precision():
    theirs = {name: tensor.bfloat16() for name, tensor in checkpoint().items()}
    ours = key_map().convert(theirs, Toy())
    assert {tensor.dtype for tensor in ours.values()} == {torch.bfloat16}
    assert all(torch.equal(a, theirs[name]) for name, a in key_map().export(ours).items())


def test_the_model_may_be_on_the_meta_device():
    with torch.device("meta"):
        model = Toy()
    model.load_state_dict(key_map().convert(checkpoint(), model), assign=True)
    assert torch.equal(model.embedding, checkpoint()["model.embed.weight"])


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("model.", "model.language_model."),
        ("model.layers.", "module.model.layers."),
        ("", "module."),
    ],
)
def test_other_spellings_of_a_prefix_are_accepted(theirs, ours):
    respelt = {
        ours + name.removeprefix(theirs) if name.startswith(theirs) else name: tensor
        for name, tensor in checkpoint().items()
    }
    expected = key_map().convert(checkpoint(), Toy())
    for name, tensor in key_map().convert(respelt, Toy()).items():
        assert torch.equal(tensor, expected[name])


@given(st.sampled_from(sorted(checkpoint())))
def test_a_canonical_name_is_its_own_spelling(name):
    assert key_map().canonical(name) == name


def test_the_longest_prefix_wins_and_endings_are_respelt():
    assert key_map().canonical("model.language_model.layers.0.gamma") == "model.layers.0.weight"
    assert key_map().canonical("model.language_models.0") == "model.language_models.0"


def test_two_spellings_of_one_weight_are_refused():
    theirs = checkpoint()
    theirs["model.language_model.embed.weight"] = theirs["model.embed.weight"]
    with pytest.raises(
        CheckpointError, match=r"model\.embed.* and model\.lang.* are two spellings"
    ):
        key_map().convert(theirs, Toy())


def test_missing_weights_are_named_and_counted():
    theirs = {k: v for k, v in checkpoint().items() if "layers.1" not in k}
    with pytest.raises(
        CheckpointError, match=r"has no model\.layers\.1\.attn\.q\.weight.* and 3 more"
    ):
        key_map().convert(theirs, Toy())


def test_weights_nobody_asked_for_are_named():
    theirs = checkpoint() | {"adapter.weight": torch.zeros(1)}
    with pytest.raises(CheckpointError, match=r"also holds adapter\.weight, which Toy has not"):
        key_map().convert(theirs, Toy())


def test_weights_that_nobody_reads_may_be_there():
    theirs = checkpoint() | {"model.rope.inv_freq": torch.zeros(1)}
    assert key_map().convert(theirs, Toy()).keys() == Toy().state_dict().keys()


def test_a_checkpoint_of_another_family_is_called_that():
    theirs = {f"roberta.encoder.{i}.weight": torch.zeros(1) for i in range(30)}
    with pytest.raises(
        CheckpointError, match=r"is not Toy's: 20 of 20 .* has roberta\.encoder\.0.* and 27 more"
    ):
        key_map().convert(theirs, Toy())


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("model.embed.weight", (7, 5), r"gives shape \(7, 5\); the model expects \(7, 4\) for embedding"),
        ("model.layers.0.attn.k.weight", (3, 4), r"k\.weight has shape \(3, 4\), expected 2 rows"),
        ("model.layers.0.attn.k.weight", (2, 5), r"cannot become layers\.0\.weight"),
        ("patch.weight", (4, 3, 2, 2), r"patch\.weight is \(4, 3, 2, 2\), expected \(out, 3, 2, 2, 2\)"),
        ("pos_embed", (2, 5, 4), r"expected a first axis of 1"),
        ("logit_scale", (), r"logit_scale has shape \(\), expected \(1,\)"),
    ],
)  # fmt: skip
def test_a_misshapen_weight_is_named_with_both_shapes(name, shape, message):
    with pytest.raises(CheckpointError, match=message):
        key_map().convert(checkpoint() | {name: torch.zeros(shape)}, Toy())


def test_a_tied_weight_may_be_repeated_but_not_differ():
    theirs = checkpoint()
    theirs["lm_head.weight"] = theirs["model.embed.weight"].clone()
    key_map().convert(theirs, Toy())
    theirs["lm_head.weight"][0, 0] += 1
    with pytest.raises(CheckpointError, match=r"lm_head\.weight differs from model\.embed\.weight"):
        key_map().convert(theirs, Toy())


def test_a_table_of_another_config_than_the_model_is_refused():
    model = Toy()
    model.extra = nn.Parameter(torch.zeros(1))
    with pytest.raises(
        CheckpointError, match="key table of Toy and the model do not agree on extra"
    ):
        key_map().convert(checkpoint(), model)
    with pytest.raises(CheckpointError, match="do not agree on extra"):
        key_map().export(model.state_dict())


class _Counted(Mapping[str, Tensor]):
    """Weights that note when they are read."""

    def __init__(self, weights: dict[str, Tensor]) -> None:
        self.weights, self.reads = weights, []

    def __getitem__(self, name: str) -> Tensor:
        self.reads.append(name)
        return self.weights[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.weights)

    def __len__(self) -> int:
        return len(self.weights)


def test_nothing_is_read_before_all_names_are_known_to_be_there():
    weights = _Counted({k: v for k, v in checkpoint().items() if k != "low"})
    with pytest.raises(CheckpointError, match="has no low"):
        key_map().convert(weights, Toy())
    assert not weights.reads


def test_every_weight_is_read_once():
    weights = _Counted(checkpoint())
    key_map().convert(weights, Toy())
    assert sorted(weights.reads) == sorted(checkpoint())


def test_a_prefix_goes_before_every_name_of_a_rule():
    table = prefixed("a.", "b.", {"x": stacked({"p": 1, "q": 1})} | affine("y", "z", bias=False))
    assert list(table) == ["a.x", "a.y.weight"]
    rule = table["a.x"]
    assert not isinstance(rule, str)
    assert rule.names == ("b.p", "b.q")
    assert table["a.y.weight"] == "b.z.weight"
