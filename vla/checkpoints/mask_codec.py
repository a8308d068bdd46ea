"""Mask codecs on disk: ours, and the one that PaliGemma was released with."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from vla.checkpoints.folder import CONFIG, WeightsDtype, fill, load_folder, save_folder
from vla.checkpoints.maps.mask_codec import codec_config, key_map
from vla.errors import CheckpointError, ConfigError, unknown_name
from vla.models.config_dict import config_from_dict, config_to_dict
from vla.models.mask_codec import MaskCodec, MaskCodecConfig

KIND, FAMILY = "mask_codec", "mask_codec"
SHIPPED = Path(__file__).parents[1] / "pretrained" / "mask_codec"


def save_mask_codec(
    directory: Path, codec: MaskCodec, *, weights_dtype: WeightsDtype = WeightsDtype.FP32
) -> None:
    """Writes a codec's folder, whole or not at all."""
    described = {
        "kind": KIND,
        "model": {"family": FAMILY, "config": config_to_dict(codec.config)},
    }
    save_folder(directory, described, codec.state_dict(), weights_dtype=weights_dtype)


def load_mask_codec(path: Path = SHIPPED) -> MaskCodec:
    """Returns the codec at `path`, on the CPU, in fp32 and in evaluation mode.

    Args:
        path: a folder of ours, or a training run's; or a file of the released layout (vae-oid.npz). By default the
            codec that comes with this package.

    Raises:
        CheckpointError: there is none, it is damaged, or of another kind.
    """
    if path.suffix == ".npz":
        return _from_npz(path)
    folder = load_folder(path, kind=KIND)
    where = folder.directory / CONFIG
    family = folder.described["model"].get("family")
    if family != FAMILY:
        raise CheckpointError(f"{where}: {unknown_name('mask codec family', family, [FAMILY])}")
    try:
        config = config_from_dict(MaskCodecConfig, folder.described["model"]["config"])
    except (ConfigError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{where} does not describe a mask codec of this version: {error}; use the version that wrote it"
        ) from None
    return fill(lambda: MaskCodec(config), folder.tensors)


def _from_npz(path: Path) -> MaskCodec:
    try:
        with np.load(path, allow_pickle=False) as file:
            weights = {name: torch.from_numpy(file[name]) for name in file.files}
    except (OSError, ValueError) as error:
        raise CheckpointError(f"cannot read {path} ({error}); copy the file again") from None
    config = codec_config(weights)
    tensors = key_map(config).convert(weights, MaskCodec(config))
    return fill(lambda: MaskCodec(config), tensors)
