import numpy as np
import pytest
import torch

from vla.checkpoints.folder import WeightsDtype
from vla.checkpoints.maps.mask_codec import CODEBOOK, codec_config, key_map
from vla.checkpoints.mask_codec import SHIPPED, load_mask_codec, save_mask_codec
from vla.data.mask_batches import drawn_masks
from vla.data.procedural_masks import SCENE_SHAPES
from vla.errors import CheckpointError
from vla.models.mask_codec import MaskCodec, MaskCodecConfig, MaskReading

SMALL = MaskCodecConfig(
    encoder_widths=(4, 5, 6, 8),
    residual_width=9,
    decoder_widths=(8, 7, 6, 5),
    codeword_width=10,
    reading=MaskReading.SIGNED,
)


def released_weights() -> dict[str, np.ndarray]:
    """Random numbers under the names and in the layout of vae-oid.npz, written out by hand."""
    rng = np.random.default_rng(0)
    shapes: dict[str, tuple[int, ...]] = {
        "_vq_vae._embedding": (128, 10),
        "encoder.0": (4, 1, 4, 4), "encoder.2": (5, 4, 4, 4),
        "encoder.4": (6, 5, 4, 4), "encoder.6": (8, 6, 4, 4), "encoder.10": (10, 8, 1, 1),
        "decoder.0": (9, 10, 1, 1), "decoder.4": (9, 8, 4, 4), "decoder.6": (8, 7, 4, 4),
        "decoder.8": (7, 6, 4, 4), "decoder.10": (6, 5, 4, 4), "decoder.12": (1, 5, 1, 1),
    }  # fmt: skip
    for block, width in (("encoder.8", 8), ("encoder.9", 8), ("decoder.2", 9), ("decoder.3", 9)):
        for layer, kernel in ((0, 3), (2, 3), (4, 1)):
            shapes[f"{block}.net.{layer}"] = (width, width, kernel, kernel)
    weights = {}
    for name, shape in shapes.items():
        if name == CODEBOOK:
            weights[name] = rng.normal(size=shape).astype(np.float32)
            continue
        is_transposed = name in ("decoder.4", "decoder.6", "decoder.8", "decoder.10")
        weights[f"{name}.weight"] = rng.normal(size=shape).astype(np.float32)
        weights[f"{name}.bias"] = rng.normal(size=shape[is_transposed]).astype(np.float32)
    return weights


def test_a_file_of_the_released_layout_is_read_whatever_its_widths(tmp_path):
    path = tmp_path / "vae-oid.npz"
    weights = released_weights()
    np.savez(path, **weights)
    codec = load_mask_codec(path)
    assert codec.config == SMALL
    assert torch.equal(codec.codebook, torch.from_numpy(weights[CODEBOOK]))
    kernel = torch.from_numpy(weights["decoder.8.weight"])
    assert torch.equal(codec.decoder[8].weight, kernel)
    assert codec.encode(torch.rand(2, 64, 64)).shape == (2, 16)


def test_the_released_names_come_out_again_bit_for_bit():
    weights = {name: torch.from_numpy(value) for name, value in released_weights().items()}
    config = codec_config(weights)
    table = key_map(config)
    counts = {"_vq_vae._ema_cluster_size": torch.ones(128)}
    state = table.convert(weights | counts, MaskCodec(config))
    exported = table.export(state)
    assert exported.keys() == weights.keys()
    assert all(torch.equal(exported[name], weights[name]) for name in weights)


def test_other_weights_are_refused_by_name():
    weights = {name: torch.from_numpy(value) for name, value in released_weights().items()}
    with pytest.raises(CheckpointError, match=r"no encoder\.0\.weight"):
        codec_config({k: v for k, v in weights.items() if k != "encoder.0.weight"})
    with pytest.raises(CheckpointError, match="64 codewords; there are 128"):
        codec_config(weights | {CODEBOOK: torch.zeros(64, 10)})
    with pytest.raises(CheckpointError, match="window of 4 x 4"):
        codec_config(weights | {"encoder.2.weight": torch.zeros(5, 4, 3, 3)})
    with pytest.raises(CheckpointError, match=r"encoder\.9\.net\.2\.bias"):
        table = key_map(codec_config(weights))
        table.convert(
            {k: v for k, v in weights.items() if k != "encoder.9.net.2.bias"},
            MaskCodec(codec_config(weights)),
        )


def test_what_is_no_npz_is_refused(tmp_path):
    path = tmp_path / "vae-oid.npz"
    path.write_bytes(b"<html>not found</html>")
    with pytest.raises(CheckpointError, match=r"cannot read .*vae-oid\.npz"):
        load_mask_codec(path)


def test_a_codec_survives_its_folder(tmp_path):
    torch.manual_seed(0)
    codec = MaskCodec(SMALL)
    save_mask_codec(tmp_path / "codec", codec)
    again = load_mask_codec(tmp_path / "codec")
    masks = torch.rand(3, 64, 64)
    assert torch.equal(again.encode(masks), codec.encode(masks))
    assert again.config == SMALL
    save_mask_codec(tmp_path / "half", codec, weights_dtype=WeightsDtype.FP16)
    torch.testing.assert_close(
        load_mask_codec(tmp_path / "half").codebook, codec.codebook, rtol=1e-3, atol=1e-3
    )


@pytest.mark.skipif(not SHIPPED.is_dir(), reason="this build ships no mask codec")
def test_the_shipped_codec_brings_back_masks_it_never_saw():
    from vla.training.mask_codec import reconstruction_ious

    masks = [item for item in drawn_masks(1_000_777, 200) if item.num_pixels >= 64]
    codec = load_mask_codec()
    of_scenes = [m for m in masks if m.shape in {shape.value for shape in SCENE_SHAPES}][:50]
    assert len(of_scenes) == 50
    assert np.mean(reconstruction_ious(codec, of_scenes)) >= 0.85
    assert sum(path.stat().st_size for path in SHIPPED.iterdir()) < 1_500_000
