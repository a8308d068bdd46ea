"""Everything that is chosen about a vision tower. The defaults are DINOv2's; presets are in `presets`."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from vla.errors import ConfigError
from vla.nn.block import BlockConfig
from vla.nn.mlp import Activation
from vla.nn.norms import Norm
from vla.nn.rope import RopeConfig


class Positions(Enum):
    """What is added to a patch token to say where it is."""

    GRID = "grid"  # a row of a learned table that has one for every patch of a square picture
    AXES = "axes"  # a row of a table of columns and a row of a table of rows: Gemma 4
    NONE = "none"  # nothing; rotary embedding alone says it: Qwen2-VL


class Resampling(Enum):
    """How a GRID table is stretched to pictures of another shape; the two bicubic kernels differ even when it grows."""

    BICUBIC = "bicubic, antialiased"  # DINOv2 with registers, timm
    BICUBIC_PLAIN = "bicubic"  # SigLIP, CLIP and DINOv2 without registers
    BILINEAR = "bilinear, antialiased"  # SigLIP2


@dataclass(kw_only=True)
class ViTConfig:
    """Shape of one tower and what its pictures are normalised with."""

    patch_size: int = 14  # pixels
    width: int = 1024
    depth: int = 24  # blocks of the released tower
    num_heads: int = 16
    mlp_width: int = 4096
    activation: Activation = Activation.GELU
    has_class_token: bool = True  # prepended
    num_registers: int = 4  # after the class token, without positions
    layer_scale: float | None = (
        1e-5  # initial gain of each residual branch; None leaves the gains out
    )
    output_block: int = -2  # tokens are taken after this block, counted like a Python index
    has_final_norm: bool = False  # a norm over the tokens that are handed out
    stem_channels: list[int] = field(
        default_factory=list
    )  # 3x3 stride-2 convolutions before the patches
    norm_eps: float = 1e-6
    pixel_mean: list[float] = field(default_factory=lambda: [0.5, 0.5, 0.5])  # RGB in [0, 1]
    pixel_std: list[float] = field(default_factory=lambda: [0.5, 0.5, 0.5])
    num_frames: int = 1  # frames a patch spans: 2 in Qwen2-VL
    has_patch_bias: bool = True
    positions: Positions = Positions.GRID
    resampling: Resampling = Resampling.BICUBIC
    num_axis_positions: int = 10240  # rows of each of the two tables of AXES
    is_column_first: bool = False  # AXES tables and rotary sections: (column, row), as in Gemma 4
    has_class_position: bool = False  # the class token has a row of the table, before the patches'
    has_mask_token: bool = False  # replaces patches that are hidden: DINOv2's own training
    rope_theta: float | None = None  # half the channels turn by row, half by column; None: none do
    rope_is_apart: bool = False  # each half turns within itself: Gemma 4
    # all channels turn by the patch's number in the picture, counted row after row: no tower does, see what it costs
    rope_is_raster: bool = False
    has_pre_norm: bool = False  # a norm before the first block: CLIP
    norm: Norm = Norm.LAYER
    has_bias: bool = True  # of the linear layers of every block
    is_gated: bool = False
    has_post_norms: bool = False
    has_qk_norm: bool = False
    has_v_norm: bool = False
    attention_scale: float | None = None  # None: 1 / sqrt(head_dim)
    has_clipped_linears: bool = False  # linear layers that clip what goes in and comes out: Gemma 4
    has_attention_pool: bool = False  # a head that makes one vector of all patches: SigLIP
    is_whole: bool = False  # also holds what is released but not read: later blocks, final norm

    def __post_init__(self) -> None:
        if self.width % self.num_heads:
            raise ConfigError(
                f"a tower of width {self.width} cannot be split into {self.num_heads} heads; "
                "choose num_heads that divides the width"
            )
        if self.patch_size % 2 ** len(self.stem_channels):
            raise ConfigError(
                f"{len(self.stem_channels)} stride-2 convolutions do not fit a patch of "
                f"{self.patch_size} px; patch_size must be a multiple of {2 ** len(self.stem_channels)}"
            )
        if not -self.depth <= self.output_block < self.depth:
            raise ConfigError(
                f"output_block {self.output_block} is not among the {self.depth} blocks; "
                f"choose from {-self.depth} to {self.depth - 1}"
            )
        if self.rope_theta is not None and (self.num_extra_tokens or self.head_dim % 4):
            raise ConfigError(
                f"rotary embedding turns patches alone, by row and column, in heads of a multiple of 4 channels; "
                f"this tower has {self.num_extra_tokens} other tokens and heads of {self.head_dim}"
            )
        if self.has_class_position and not (
            self.has_class_token and self.positions is Positions.GRID
        ):
            raise ConfigError("has_class_position needs has_class_token and positions=GRID")

    @property
    def head_dim(self) -> int:
        """Channels of a head."""
        return self.width // self.num_heads

    @property
    def num_extra_tokens(self) -> int:
        """Class token and registers."""
        return int(self.has_class_token) + self.num_registers

    @property
    def num_read_blocks(self) -> int:
        """Blocks that tokens pass through: up to and including `output_block`."""
        return self.output_block % self.depth + 1

    @property
    def num_blocks(self) -> int:
        """Blocks that are built."""
        return self.depth if self.is_whole else self.num_read_blocks

    def block(self) -> BlockConfig:
        """Returns the shape of every block."""
        return BlockConfig(
            width=self.width,
            num_heads=self.num_heads,
            mlp_width=self.mlp_width,
            activation=self.activation,
            is_gated=self.is_gated,
            norm=self.norm,
            norm_eps=self.norm_eps,
            has_post_norms=self.has_post_norms,
            has_qk_norm=self.has_qk_norm,
            has_v_norm=self.has_v_norm,
            qkv_bias=self.has_bias,
            out_bias=self.has_bias,
            mlp_bias=self.has_bias,
            attention_scale=self.attention_scale,
            layer_scale=self.layer_scale,
        )

    def rope(self) -> RopeConfig | None:
        """Returns how queries and keys turn with row and column."""
        if self.rope_theta is None:
            return None
        if self.rope_is_raster:
            return RopeConfig(theta=self.rope_theta)
        pairs = self.head_dim // 4
        return RopeConfig(
            theta=self.rope_theta,
            sections=(pairs, pairs),
            restarts=True,
            is_apart=self.rope_is_apart,
        )
