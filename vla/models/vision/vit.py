"""One vision transformer: SigLIP (Zhai et al. 2023), SigLIP2 (Tschannen et al. 2025), CLIP (Radford et al. 2021),
DINOv2 with registers (Darcet et al. 2024), and the towers of Qwen2-VL (Wang et al. 2024) and Gemma 4.

Token order inside: [class token | registers | patches]; what is handed out are the patches alone.

Pictures come in two ways, both already normalised. `forward` takes pictures of one size as pixels. `encode` takes
patches that were cut before, with the place of each, so that pictures of many shapes share a batch: every row is one
picture (or the frames that one patch spans), padded at will, and rows know nothing of each other.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from vla.errors import ConfigError
from vla.models.vision.clipped import clip_linears
from vla.models.vision.patchify import PatchEmbedding
from vla.models.vision.pooling import AttentionPool
from vla.models.vision.position_tables import gather_positions, resize_position_table
from vla.models.vision.vit_config import Positions, ViTConfig
from vla.nn.block import Block
from vla.nn.masks import attention_mask
from vla.nn.norms import make_norm
from vla.nn.positions import grid_positions
from vla.nn.rope import Rotation, rope_rotation


class ViT(nn.Module):
    """Patch features of a picture, taken after the configured block."""

    def __init__(self, config: ViTConfig, image_size: int | None = None) -> None:
        """Builds the tower.

        Args:
            config: its shape.
            image_size: side of the square picture whose patches the position table has; towers without such a table
                need none.
        """
        super().__init__()
        self.config = config
        self.grid = _grid(config, image_size)
        self.patches = PatchEmbedding(
            config.width,
            config.patch_size,
            stem_channels=config.stem_channels,
            num_frames=config.num_frames,
            bias=config.has_patch_bias,
        )
        self.position_table = self.axis_tables = None
        if config.positions is Positions.GRID:
            num_rows = int(config.has_class_position) + self.grid**2
            self.position_table = nn.Parameter(torch.zeros(num_rows, config.width))
        elif config.positions is Positions.AXES:
            shape = (2, config.num_axis_positions, config.width)
            self.axis_tables = nn.Parameter(torch.zeros(shape))
        self.num_extra = config.num_extra_tokens
        self.extra_tokens = self.mask_token = None
        if self.num_extra:
            self.extra_tokens = nn.Parameter(torch.zeros(self.num_extra, config.width))
        if config.has_mask_token:
            self.mask_token = nn.Parameter(torch.zeros(config.width))
        self.pre_norm = self.final_norm = self.attention_pool = None
        if config.has_pre_norm:
            self.pre_norm = make_norm(config.norm, config.width, config.norm_eps)
        self.blocks = nn.ModuleList(_block(config) for _ in range(config.num_blocks))
        if config.has_final_norm or config.is_whole:
            self.final_norm = make_norm(config.norm, config.width, config.norm_eps)
        if config.has_attention_pool:
            self.attention_pool = AttentionPool(
                config.width, config.num_heads, config.mlp_width, config.activation, config.norm_eps
            )
        self.freeze_unread()

    def forward(
        self,
        pixels: Float[Tensor, "batch 3 rows columns"],
        *,
        is_masked: Bool[Tensor, "batch patches"] | None = None,
    ) -> Float[Tensor, "batch patches channels"]:
        """Returns patch features of pictures of one size, row after row.

        Pictures of another size than the tower was built for, or not square, get a resampled position table.

        Args:
            pixels: normalised pictures.
            is_masked: patches that the mask token replaces.
        """
        return self._finished(self._read_pictures(pixels, is_masked)[:, self.num_extra :])

    def read(
        self,
        pixels: Float[Tensor, "batch 3 rows columns"],
        *,
        is_masked: Bool[Tensor, "batch patches"] | None = None,
    ) -> tuple[Float[Tensor, "batch channels"], Float[Tensor, "batch patches channels"]]:
        """Returns the class token's features and those of the patches in one go; arguments as in `forward`."""
        if not self.config.has_class_token:
            raise ConfigError("this tower has no class token; set has_class_token=true")
        x = self._finished(self._read_pictures(pixels, is_masked))
        return x[:, 0], x[:, self.num_extra :]

    def encode(
        self,
        patches: Float[Tensor, "batch patches values"],
        positions: Int[Tensor, "batch patches 2"],
        valid: Bool[Tensor, "batch patches"] | None = None,
    ) -> Float[Tensor, "batch patches channels"]:
        """Returns features of patches cut before, in the order given.

        Args:
            patches: normalised values of every patch, numbered (frames, rows, columns, channels).
            positions: (row, column) of every patch in its picture; anything where there is padding.
            valid: False for padding, whose features mean nothing; None if there is none.
        """
        return self._finished(self._read_patches(patches, positions, valid)[:, self.num_extra :])

    def summarise(
        self, pixels: Float[Tensor, "batch 3 rows columns"]
    ) -> Float[Tensor, "batch channels"]:
        """Returns one vector a picture: of the attention pool if the tower has one, or else the class token."""
        return self._summary(self._read_pictures(pixels, None), None)

    def summarise_patches(
        self,
        patches: Float[Tensor, "batch patches values"],
        positions: Int[Tensor, "batch patches 2"],
        valid: Bool[Tensor, "batch patches"] | None = None,
    ) -> Float[Tensor, "batch channels"]:
        """Returns one vector a picture, from patches cut before; see `summarise` and `encode`."""
        return self._summary(self._read_patches(patches, positions, valid), valid)

    def freeze_unread(self) -> None:
        """Turns gradients off for parameters that are there for the checkpoint's sake alone (`is_whole`)."""
        if not self.config.has_final_norm:
            for part in (self.final_norm, self.attention_pool):
                if part is not None:
                    part.requires_grad_(False)
        for block in self.blocks[self.config.num_read_blocks :]:
            block.requires_grad_(False)

    def _read_pictures(self, pixels: Tensor, is_masked: Tensor | None) -> Tensor:
        x = self.patches(pixels)
        if is_masked is not None:
            if self.mask_token is None:
                raise ConfigError("this tower has no mask token; set has_mask_token=true")
            x = torch.where(is_masked[..., None], self.mask_token.to(x.dtype), x)
        rows, columns = (side // self.config.patch_size for side in pixels.shape[-2:])
        if self.position_table is not None:
            table = self.position_table[int(self.config.has_class_position) :]
            table = resize_position_table(table, rows, columns, self.config.resampling)
            x = x + table.to(x.dtype)
        positions = None
        if self.axis_tables is not None or self.config.rope_theta is not None:
            positions = grid_positions(rows, columns, x.device)[None]
        return self._through_blocks(x, positions, None)

    def _read_patches(self, patches: Tensor, positions: Tensor, valid: Tensor | None) -> Tensor:
        if len(self.patches.stem):
            raise ConfigError(
                "a tower with a stem of convolutions sees whole pictures; give it pixels, or stem_channels=[]"
            )
        projection = self.patches.projection
        x = projection(patches.to(projection.weight.dtype))
        if valid is not None:
            positions = positions.masked_fill(~valid[..., None], 0)
        if self.position_table is not None:
            table = self.position_table[int(self.config.has_class_position) :]
            x = x + gather_positions(table, positions, self.config.resampling).to(x.dtype)
        return self._through_blocks(x, positions, valid)

    def _through_blocks(self, x: Tensor, positions: Tensor | None, valid: Tensor | None) -> Tensor:
        """Every token after the last block that is read; `positions` of all pictures, or the same for each."""
        rotation = None
        if positions is not None:
            axes = positions.flip(-1) if self.config.is_column_first else positions
            is_raster = self.config.rope_is_raster
            rotation = self._rotation(_raster(positions) if is_raster else axes)
            if self.axis_tables is not None:
                first, second = self.axis_tables
                places = F.embedding(axes[..., 0], first) + F.embedding(axes[..., 1], second)
                x = x + places.to(x.dtype)
        if self.extra_tokens is not None:
            extra = self._placed(self.extra_tokens).to(x.dtype)
            x = torch.cat([extra.expand(x.shape[0], -1, -1), x], dim=1)
        if self.pre_norm is not None:
            x = self.pre_norm(x)
        may_attend = None
        if valid is not None:
            valid = F.pad(valid, (self.num_extra, 0), value=True)
            may_attend = attention_mask(valid, torch.zeros_like(valid, dtype=torch.int64))
        for block in self.blocks[: self.config.num_read_blocks]:
            x = block(x, may_attend=may_attend, rotation=rotation)
        return x

    def _placed(self, extra_tokens: Tensor) -> Tensor:
        """The class token with its position, where it has one; registers have none."""
        if self.position_table is None or not self.config.has_class_position:
            return extra_tokens
        return torch.cat([extra_tokens[:1] + self.position_table[:1], extra_tokens[1:]])

    def _rotation(self, axes: Tensor) -> Rotation | None:
        config = self.config.rope()
        return None if config is None else rope_rotation(axes, self.config.head_dim, config)

    def _finished(self, x: Tensor) -> Tensor:
        if self.final_norm is None or not self.config.has_final_norm:
            return x
        return self.final_norm(x)

    def _summary(self, x: Tensor, valid: Tensor | None) -> Tensor:
        if self.attention_pool is not None:
            return self.attention_pool(self._finished(x[:, self.num_extra :]), valid)
        if not self.config.has_class_token:
            raise ConfigError(
                "this tower has neither a class token nor an attention pool; average its patches instead"
            )
        return self._finished(x[:, 0])


def _raster(positions: Tensor) -> Tensor:
    """The number of every patch in its picture, row after row."""
    columns = positions[..., 1].amax(dim=1, keepdim=True) + 1
    return positions[..., 0] * columns + positions[..., 1]


def _block(config: ViTConfig) -> Block:
    block = Block(config.block())
    if config.has_clipped_linears:
        clip_linears(block)
    return block


def _grid(config: ViTConfig, image_size: int | None) -> int:
    if image_size is None:
        if config.positions is Positions.GRID:
            raise ConfigError("a tower with a position table needs an image_size; give its pixels")
        return 0
    grid, rest = divmod(image_size, config.patch_size)
    if rest:
        raise ConfigError(
            f"pictures of {image_size} px cannot be cut into patches of {config.patch_size} px; "
            f"choose a multiple, such as {(grid + 1) * config.patch_size}"
        )
    return grid
