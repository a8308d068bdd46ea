"""From vision features to tokens of the decoder."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F


class FusedMLPProjector(nn.Module):
    """Linear, GELU, linear, GELU, linear: OpenVLA's projector for fused towers (2176 -> 8704 -> 4096 -> 4096)."""

    def __init__(self, vision_width: int, hidden_width: int, width: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(vision_width, hidden_width)
        self.fc2 = nn.Linear(hidden_width, width)
        self.fc3 = nn.Linear(width, width)

    def forward(
        self, features: Float[Tensor, "*batch vision_width"]
    ) -> Float[Tensor, "*batch width"]:
        return self.fc3(F.gelu(self.fc2(F.gelu(self.fc1(features)))))


class ProprioProjector(nn.Module):
    """Normalised proprioception to one token: linear, GELU, linear."""

    def __init__(self, state_width: int, width: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(state_width, width)
        self.fc2 = nn.Linear(width, width)

    def forward(self, state: Float[Tensor, "batch state"]) -> Float[Tensor, "batch 1 width"]:
        return self.fc2(F.gelu(self.fc1(state)))[:, None]
