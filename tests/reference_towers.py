"""Random weights for references and for ours, and batches of patches, for the parity tests of vision towers."""

from typing import Any

import torch
from torch import Tensor, nn

from vla.checkpoints.keymap import KeyMap
from vla.models.connectors import MergeConnector
from vla.models.vision.vit import ViT
from vla.nn.positions import grid_positions

TOLERANCE: dict[str, float] = {"atol": 1e-5, "rtol": 0.0}
SMALL: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 56,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
}


class TowerWithMerger(nn.Module):
    """What the reference's tower holds."""

    def __init__(self, tower: ViT, merger: MergeConnector) -> None:
        super().__init__()
        self.tower, self.merger = tower, merger


def randomised(model: nn.Module) -> Any:
    """Weights that hide nothing: gains, biases, tokens and the bounds of clipped layers are random too."""
    generator = torch.Generator().manual_seed(0)
    for name, tensor in model.state_dict().items():
        noise = torch.randn(tensor.shape, generator=generator)
        if name.endswith(("_min", "_max")):
            tensor.copy_((0.5 + noise.abs()) * (1 if name.endswith("max") else -1))
        elif "q_norm" in name or "k_norm" in name:  # Gemma 4 divides q k by nothing
            tensor.copy_(0.4 + 0.1 * noise)
        elif any(part in name for part in ("norm", "ln_q", "lambda1", "std_scale")):
            tensor.copy_(noise * 0.3 if name.endswith("bias") else 1 + 0.3 * noise)
        else:
            tensor.copy_(0.2 * noise)
    return model.eval()


def loaded(model: nn.Module, key_map: KeyMap, reference: nn.Module) -> Any:
    """Our model with the reference's weights."""
    model.load_state_dict(key_map.convert(reference.state_dict(), model))
    return model.eval()


def pictures(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def check_round_trip(model: nn.Module, key_map: KeyMap, reference: nn.Module) -> None:
    """Ours to theirs gives the reference's own weights; theirs to ours gives random ones of ours back."""
    exported = key_map.export(model.state_dict())
    expected = reference.state_dict()
    assert exported.keys() == expected.keys()
    assert all(torch.equal(exported[name], expected[name]) for name in expected)
    ours = {name: torch.rand_like(tensor) for name, tensor in model.state_dict().items()}
    back = key_map.convert(key_map.export(ours), model)
    assert all(torch.equal(back[name], ours[name]) for name in ours)


SHAPES = torch.tensor([[3, 5], [6, 2], [4, 4]])  # rows, columns; padded to 17 patches


def naflex_batch(shapes: Tensor = SHAPES, num_patches: int = 17) -> tuple[Tensor, Tensor, Tensor]:
    positions = torch.full((len(shapes), num_patches, 2), -1)
    valid = torch.zeros(len(shapes), num_patches, dtype=torch.bool)
    for i, (rows, columns) in enumerate(shapes.tolist()):
        positions[i, : rows * columns] = grid_positions(rows, columns)
        valid[i, : rows * columns] = True
    return pictures(len(shapes), num_patches, 48), positions, valid
