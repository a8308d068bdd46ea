"""Directories in the hub's layout: written, read one weight at a time, and refused when something is wrong."""

import json
import os
import weakref
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import transformers
from torch import Tensor, nn

from vla.checkpoints import hf, prismatic_pt
from vla.checkpoints.keymap import KeyMap, Table, repeated, stacked_affine
from vla.errors import CheckpointError

DEPTH, WIDTH = 6, 16


class Stack(nn.Module):
    """Layers whose weight is stacked from two of the checkpoint."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(WIDTH, 2 * WIDTH, bias=False) for _ in range(DEPTH))


def key_map() -> KeyMap:
    block: Table = stacked_affine("layer", {"a": WIDTH, "b": WIDTH}, bias=False)
    block = {name.removeprefix("layer."): rule for name, rule in block.items()}
    return KeyMap(family="Stack", table=repeated("layers.{i}.", "stack.{i}.", block, DEPTH))


@pytest.fixture
def model() -> Stack:
    torch.manual_seed(0)
    return Stack()


def save(directory: Path, model: nn.Module, **options) -> dict[str, Tensor]:
    theirs = key_map().export(model.state_dict())
    hf.save_weights(directory, theirs, {"model_type": "stack"}, **options)
    return theirs


@pytest.fixture
def sharded(tmp_path, model) -> Path:
    save(tmp_path / "hub", model, max_shard_bytes=3 * WIDTH * WIDTH * 4)
    return tmp_path / "hub"


@pytest.mark.parametrize("max_shard_bytes", [10**9, 3000, 1])
def test_weights_come_back_bit_for_bit_however_they_are_sharded(tmp_path, model, max_shard_bytes):
    theirs = save(tmp_path / "hub", model, max_shard_bytes=max_shard_bytes)
    weights = hf.HubWeights(tmp_path / "hub")
    assert set(weights) == set(theirs)
    assert all(torch.equal(weights[name], tensor) for name, tensor in theirs.items())
    assert hf.read_config(tmp_path / "hub") == {"model_type": "stack"}


def test_shards_are_as_large_as_allowed_and_the_index_names_them(sharded):
    names = sorted(path.name for path in sharded.glob("*.safetensors"))
    assert names == [f"model-{i:05d}-of-00004.safetensors" for i in range(1, 5)]
    index = json.loads((sharded / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == DEPTH * 2 * WIDTH * WIDTH * 4
    assert sorted(set(index["weight_map"].values())) == names
    assert index["weight_map"]["stack.0.a.weight"] == names[0]


def test_the_hub_s_own_library_reads_what_is_written(tmp_path):
    config = transformers.LlamaConfig(
        vocab_size=8, hidden_size=8, intermediate_size=8, num_hidden_layers=2, num_attention_heads=2
    )
    reference = transformers.LlamaForCausalLM(config)
    theirs = dict(reference.state_dict())
    values = {"architectures": ["LlamaForCausalLM"], **config.to_dict()}
    hf.save_weights(tmp_path / "hub", theirs, values, max_shard_bytes=500)
    again = transformers.LlamaForCausalLM.from_pretrained(tmp_path / "hub")
    assert all(torch.equal(again.state_dict()[name], tensor) for name, tensor in theirs.items())


def test_a_model_on_the_meta_device_is_filled(sharded, model):
    with torch.device("meta"):
        empty = Stack()
    hf.load_weights(empty, sharded, key_map())
    for ours, theirs in zip(empty.parameters(), model.parameters(), strict=True):
        assert ours.requires_grad
        assert torch.equal(ours, theirs)


def test_weights_are_cast_as_they_are_read(sharded, model):
    with torch.device("meta"):
        empty = Stack()
    hf.load_weights(empty, sharded, key_map(), torch.bfloat16)
    for ours, theirs in zip(empty.parameters(), model.parameters(), strict=True):
        assert ours.dtype == torch.bfloat16
        assert torch.equal(ours, theirs.bfloat16())


def test_no_more_is_held_than_the_model_and_the_parts_of_one_weight(sharded, monkeypatch):
    held, most = 0, 0
    read: Callable[[hf.HubWeights, str], Tensor] = hf.HubWeights.__getitem__

    def release(size: int) -> None:
        nonlocal held
        held -= size

    def counted(weights: hf.HubWeights, name: str) -> Tensor:
        nonlocal held, most
        tensor = read(weights, name)
        held, most = held + tensor.nbytes, max(most, held + tensor.nbytes)
        weakref.finalize(tensor, release, tensor.nbytes)
        return tensor

    monkeypatch.setattr(hf.HubWeights, "__getitem__", counted)
    with torch.device("meta"):
        empty = Stack()
    hf.load_weights(empty, sharded, key_map())
    assert most == 2 * WIDTH * WIDTH * 4


def test_a_missing_shard_is_named(sharded):
    (sharded / "model-00002-of-00004.safetensors").unlink()
    with pytest.raises(
        CheckpointError, match=r"lacks model-00002-of-00004\.safetensors, 1 of 4 shards"
    ):
        hf.HubWeights(sharded)


@pytest.mark.parametrize("size", [0, 5, 200, 2500])
def test_a_truncated_shard_is_named(sharded, size):
    os.truncate(sharded / "model-00003-of-00004.safetensors", size)
    with pytest.raises(CheckpointError, match=r"model-00003-of-00004\.safetensors is not a whole"):
        hf.HubWeights(sharded)


def test_a_shard_that_lacks_what_the_index_promises_is_named(sharded):
    index = sharded / "model.safetensors.index.json"
    content = json.loads(index.read_text())
    content["weight_map"]["stack.9.a.weight"] = "model-00001-of-00004.safetensors"
    index.write_text(json.dumps(content))
    with pytest.raises(
        CheckpointError,
        match=r"model-00001.* lacks stack\.9\.a\.weight, which .*index.json promises",
    ):
        hf.HubWeights(sharded)


@pytest.mark.parametrize("content", ["{", "[]", '{"weight_map": 3}', "{}"])
def test_a_damaged_index_is_named(sharded, content):
    (sharded / "model.safetensors.index.json").write_text(content)
    with pytest.raises(CheckpointError, match=r"cannot read .*model\.safetensors\.index\.json"):
        hf.HubWeights(sharded)


def test_a_directory_of_pickles_is_refused_unopened(tmp_path):
    (tmp_path / "pytorch_model.bin").write_bytes(b"not opened")
    with pytest.raises(
        CheckpointError, match=r"neither model\.safetensors nor .*\.bin, are not read"
    ):
        hf.HubWeights(tmp_path)


@pytest.mark.parametrize("content", [None, "{", "[1]"])
def test_a_missing_or_damaged_config_is_named(tmp_path, content):
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    with pytest.raises(CheckpointError, match=r"config\.json"):
        hf.read_config(tmp_path)


def test_a_checkpoint_of_another_family_leaves_the_model_as_it_was(tmp_path, model):
    hf.save_weights(tmp_path / "hub", {"roberta.weight": torch.zeros(2)}, {})
    before = [parameter.clone() for parameter in model.parameters()]
    with pytest.raises(CheckpointError, match="not Stack's: 12 of 12"):
        hf.load_weights(model, tmp_path / "hub", key_map())
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


def test_a_save_that_fails_leaves_the_old_directory(tmp_path, model):
    save(tmp_path / "hub", model)
    with pytest.raises(TypeError):
        hf.save_weights(tmp_path / "hub", {"a": torch.zeros(1)}, {"odd": object()})
    assert "stack.0.a.weight" in hf.HubWeights(tmp_path / "hub")
    assert [path.name for path in tmp_path.iterdir()] == ["hub"]


class Harmful:
    """Unpickling it would run code."""

    def __reduce__(self):
        return (os.mkdir, ("harm",))


def test_a_native_file_is_flattened_by_module(tmp_path):
    torch.save({"model": {"projector": {"projector.0.weight": torch.ones(2)}}}, tmp_path / "x.pt")
    weights = prismatic_pt.read(tmp_path / "x.pt")
    assert list(weights) == ["projector.projector.0.weight"]
    assert torch.equal(weights["projector.projector.0.weight"], torch.ones(2))


def test_a_native_file_that_would_run_code_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"model": {"projector": {"w": torch.ones(2)}}, "odd": Harmful()}, "x.pt")
    with pytest.raises(CheckpointError, match=r"x\.pt cannot be read as plain weights"):
        prismatic_pt.read(tmp_path / "x.pt")
    assert not (tmp_path / "harm").exists()


def test_a_native_file_that_is_truncated_missing_or_of_another_form_is_named(tmp_path):
    torch.save({"model": {"projector": {"w": torch.ones(2000)}}}, tmp_path / "x.pt")
    os.truncate(tmp_path / "x.pt", 1000)
    for name in ("x.pt", "absent.pt"):
        with pytest.raises(CheckpointError, match=rf"{name} cannot be read as plain weights"):
            prismatic_pt.read(tmp_path / name)
    torch.save({"w": torch.ones(2)}, tmp_path / "flat.pt")
    with pytest.raises(CheckpointError, match=r"flat\.pt is no checkpoint of Prismatic"):
        prismatic_pt.read(tmp_path / "flat.pt")
