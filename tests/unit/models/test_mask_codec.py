import pytest
import torch

from vla.errors import ConfigError
from vla.losses.mask_codec import mask_codec_losses, mask_iou
from vla.models.config_dict import config_from_dict, config_to_dict
from vla.models.mask_codec import (
    MASK_CODEC_PRESETS,
    MaskCodec,
    MaskCodecConfig,
    mask_codec_preset,
    revive_codewords,
)

SMALL = MaskCodecConfig(
    encoder_widths=(4, 4, 8, 8), residual_width=8, decoder_widths=(8, 8, 4, 4), codeword_width=6
)


@pytest.fixture
def codec() -> MaskCodec:
    torch.manual_seed(0)
    return MaskCodec(SMALL)


def some_masks(count: int = 3) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return (torch.rand(count, 64, 64, generator=generator) > 0.5).float()


def test_masks_become_sixteen_codes_and_codes_probabilities(codec):
    codes = codec.encode(some_masks())
    assert codes.shape == (3, 16)
    assert codes.dtype == torch.int64
    assert codes.min() >= 0
    assert codes.max() < 128
    probabilities = codec.decode(codes)
    assert probabilities.shape == (3, 64, 64)
    assert probabilities.min() >= 0.0
    assert probabilities.max() <= 1.0


def test_codes_go_row_by_row_from_the_top_left(codec):
    """Without wide context, the top right corner of a mask is seen by the fourth vector and not by the thirteenth."""
    for block in (codec.encoder[8], codec.encoder[9]):
        for parameter in block.parameters():
            parameter.data.zero_()
    empty, corner = torch.zeros(1, 64, 64), torch.zeros(1, 64, 64)
    corner[:, :16, 48:] = 1.0
    change = (codec(corner).encoded - codec(empty).encoded).norm(dim=-1)[0]
    assert change[3] > 1e-4
    assert change[12] < 1e-7


def test_the_nearest_codeword_is_chosen(codec):
    masks = some_masks()
    encoded = codec(masks).encoded
    distances = torch.cdist(encoded, codec.codebook[None].expand(3, -1, -1))
    assert torch.equal(codec.encode(masks), distances.argmin(dim=-1))


def test_the_reconstruction_of_training_is_that_of_encode_and_decode(codec):
    masks = some_masks()
    torch.testing.assert_close(
        codec(masks).mask_logits.sigmoid(), codec.decode(codec.encode(masks)), rtol=1e-4, atol=1e-5
    )


def test_the_gradient_of_the_reconstruction_passes_through_the_quantisation(codec):
    output = codec(some_masks())
    output.mask_logits.square().mean().backward()
    assert codec.encoder[0].weight.grad.abs().sum() > 0
    assert codec.codebook.grad is None or codec.codebook.grad.abs().sum() == 0


def test_the_gradient_at_the_encoder_is_that_of_its_codeword(codec):
    output = codec(some_masks(1))
    encoded_gradient = torch.autograd.grad(
        output.mask_logits.sum(), output.encoded, retain_graph=True
    )[0]
    codewords = output.quantised.detach().requires_grad_()
    codeword_gradient = torch.autograd.grad(codec._decoded(codewords).sum(), codewords)[0]
    torch.testing.assert_close(encoded_gradient, codeword_gradient)


def test_codebook_and_commitment_move_one_side_each(codec):
    masks = some_masks()

    def gradients(term: str) -> tuple[float, float]:
        codec.zero_grad()
        output = codec(masks)
        mask_codec_losses(output.mask_logits, masks, output.encoded, output.quantised)[
            term
        ].backward()
        sums = [
            0.0 if weight.grad is None else float(weight.grad.abs().sum())
            for weight in (codec.codebook, codec.encoder[0].weight)
        ]
        return sums[0], sums[1]

    codebook, encoder = gradients("codebook")
    assert codebook > 0
    assert encoder == 0
    codebook, encoder = gradients("commitment")
    assert codebook == 0
    assert encoder > 0


def test_the_loss_of_a_perfect_reconstruction_is_nearly_nothing():
    masks = some_masks()
    codewords = torch.zeros(3, 16, 6)
    terms = mask_codec_losses((2 * masks - 1) * 30, masks, codewords, codewords)
    assert all(float(value) < 1e-3 for value in terms.values())
    wrong = mask_codec_losses((1 - 2 * masks) * 30, masks, codewords, codewords)
    assert wrong["overlap"] > 0.99
    assert wrong["pixels"] > 29


def test_mask_iou_counts_shared_pixels():
    ours, theirs = torch.zeros(2, 64, 64), torch.zeros(2, 64, 64)
    ours[0, :2], theirs[0, 1:3] = 1.0, 1.0
    assert mask_iou(ours, theirs).tolist() == pytest.approx([1 / 3, 1.0])


def test_codewords_nobody_uses_move_onto_what_is_encoded(codec):
    codec.codebook.data[1:] = 1e3  # out of reach
    output = codec(some_masks())
    assert set(output.codes.flatten().tolist()) == {0}
    torch.manual_seed(3)
    moved = revive_codewords(codec, output.encoded.detach(), output.codes, chance=1.0)
    assert int(moved) == 127
    vectors = output.encoded.detach().flatten(0, 1)
    distances = torch.cdist(codec.codebook[1:], vectors).min(dim=1).values
    assert distances.max() < 1e-3
    assert len(codec.encode(some_masks()).unique()) > 4


def test_reviving_repeats_with_the_same_random_state_and_spares_used_codewords(codec):
    output = codec(some_masks())
    used = output.codes.unique()
    before = codec.codebook.detach().clone()
    results = []
    for _ in range(2):
        codec.codebook.data.copy_(before)
        torch.manual_seed(5)
        revive_codewords(codec, output.encoded.detach(), output.codes, chance=0.5)
        results.append(codec.codebook.detach().clone())
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0][used], before[used])
    assert not torch.equal(results[0], before)


def test_a_code_that_is_a_token_id_is_refused(codec):
    with pytest.raises(ConfigError, match=r"0..127; got 0..257024"):
        codec.decode(torch.tensor([[0] * 15 + [257024]]))


def test_the_released_shape_has_the_layers_of_the_reference():
    released = MaskCodec(mask_codec_preset("big_vision_oid"))
    shapes = {name: tuple(value.shape) for name, value in released.state_dict().items()}
    assert shapes["codebook"] == (128, 512)
    assert shapes["decoder.0.weight"] == (128, 512, 1, 1)
    assert [shapes[f"decoder.{i}.weight"][1] for i in (4, 6, 8, 10)] == [128, 64, 32, 16]
    assert shapes["decoder.12.weight"] == (1, 16, 1, 1)
    assert shapes["encoder.10.weight"] == (512, 128, 1, 1)
    assert shapes["encoder.8.net.0.weight"] == (128, 128, 3, 3)
    assert sum(p.numel() for p in released.parameters()) == 2_050_929
    tiny = MaskCodec(mask_codec_preset("tiny"))
    assert sum(p.numel() for p in tiny.parameters()) < 600_000


def test_the_released_codec_reads_its_numbers_from_minus_one_to_one():
    torch.manual_seed(0)
    config = MASK_CODEC_PRESETS["big_vision_oid"]
    codec = MaskCodec(config)
    codes = torch.randint(128, (2, 16))
    with torch.no_grad():
        values = codec._decoded(codec.codebook[codes])
    torch.testing.assert_close(codec.decode(codes), ((values + 1) / 2).clamp(0, 1))


def test_a_config_survives_json_and_wrong_ones_are_named():
    for config in MASK_CODEC_PRESETS.values():
        assert config_from_dict(MaskCodecConfig, config_to_dict(config)) == config
    with pytest.raises(ConfigError, match="encoder_widths must be 4"):
        MaskCodecConfig(encoder_widths=(8, 8, 8))
    with pytest.raises(ConfigError, match="tiny"):
        mask_codec_preset("tinny")
