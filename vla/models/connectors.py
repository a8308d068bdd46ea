"""From vision features to tokens of the decoder."""

from __future__ import annotations

from enum import Enum

from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from vla.errors import ConfigError
from vla.models.vision.pooling import AveragePool
from vla.nn.norms import RMSNorm


class ConnectorKind(Enum):
    """What stands between a tower of one picture size and the decoder."""

    LINEAR = "linear"  # PaliGemma
    MLP = "mlp"  # LLaVA 1.5


class LinearConnector(nn.Module):
    """One linear map: PaliGemma."""

    def __init__(self, vision_width: int, width: int) -> None:
        super().__init__()
        self.projection = nn.Linear(vision_width, width)

    def forward(
        self, features: Float[Tensor, "*batch vision_width"]
    ) -> Float[Tensor, "*batch width"]:
        return self.projection(features)


class MLPConnector(nn.Module):
    """Linear, GELU, linear: Prismatic and LLaVA 1.5 with a single tower."""

    def __init__(self, vision_width: int, width: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(vision_width, width)
        self.fc2 = nn.Linear(width, width)

    def forward(
        self, features: Float[Tensor, "*batch vision_width"]
    ) -> Float[Tensor, "*batch width"]:
        return self.fc2(F.gelu(self.fc1(features)))


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


class MergeConnector(nn.Module):
    """Each square of `side` x `side` patches becomes one token: norm, side by side, linear, GELU, linear (Qwen2-VL).

    The patches of a square must follow each other: rows of squares, columns of squares, then row by row within one.
    """

    def __init__(
        self, vision_width: int, width: int, *, side: int = 2, norm_eps: float = 1e-6
    ) -> None:
        super().__init__()
        self.num_merged = side**2
        self.norm = nn.LayerNorm(vision_width, eps=norm_eps)
        self.up = nn.Linear(vision_width * self.num_merged, vision_width * self.num_merged)
        self.down = nn.Linear(vision_width * self.num_merged, width)

    def forward(
        self, features: Float[Tensor, "*batch patches vision_width"]
    ) -> Float[Tensor, "*batch tokens width"]:
        """Returns one token for each square, in their order; raises ConfigError when patches do not fill squares."""
        if features.shape[-2] % self.num_merged:
            raise ConfigError(
                f"{features.shape[-2]} patches cannot be merged by {self.num_merged}; "
                "resize pictures so that rows and columns of patches are multiples of the square's side"
            )
        squares = self.norm(features).unflatten(-2, (-1, self.num_merged)).flatten(-2)
        return self.down(F.gelu(self.up(squares)))


class AveragePoolConnector(nn.Module):
    """Averages over squares of patches, RMS norm without weight, linear without bias: Gemma 4."""

    def __init__(
        self,
        vision_width: int,
        width: int,
        *,
        side: int,
        is_standardised: bool = False,
        norm_eps: float = 1e-6,
    ) -> None:
        super().__init__()
        self.pool = AveragePool(vision_width, side, is_standardised=is_standardised)
        self.norm = RMSNorm(vision_width, norm_eps, has_weight=False)
        self.projection = nn.Linear(vision_width, width, bias=False)

    def forward(
        self,
        features: Float[Tensor, "batch patches vision_width"],
        positions: Int[Tensor, "batch patches 2"],
        valid: Bool[Tensor, "batch patches"] | None = None,
    ) -> tuple[Float[Tensor, "batch tokens width"], Bool[Tensor, "batch tokens"]]:
        """Returns one token for each square, and which tokens there are; see `AveragePool`."""
        pooled, there = self.pool(features, positions, valid)
        return self.projection(self.norm(pooled)), there


class NormConnector(nn.Module):
    """RMS norm without weight, linear without bias: Gemma 4 without an encoder."""

    def __init__(self, vision_width: int, width: int, *, norm_eps: float = 1e-6) -> None:
        super().__init__()
        self.norm = RMSNorm(vision_width, norm_eps, has_weight=False)
        self.projection = nn.Linear(vision_width, width, bias=False)

    def forward(
        self, features: Float[Tensor, "*batch vision_width"]
    ) -> Float[Tensor, "*batch width"]:
        return self.projection(self.norm(features))


class ProprioProjector(nn.Module):
    """Normalised proprioception to one token: linear, GELU, linear."""

    def __init__(self, state_width: int, width: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(state_width, width)
        self.fc2 = nn.Linear(width, width)

    def forward(self, state: Float[Tensor, "batch state"]) -> Float[Tensor, "batch 1 width"]:
        return self.fc2(F.gelu(self.fc1(state)))[:, None]
