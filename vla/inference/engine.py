"""From pictures, words and proprioception to action bins: one forward pass, or prefill and then token by token."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from vla.inference.generate import generate
from vla.inference.readout import Readout
from vla.inference.sampling import Sampling, cautious, choose
from vla.models.action_heads import TokenActionHead
from vla.models.backbones.prismatic import Prismatic
from vla.models.sequence import Prefix
from vla.nn.masks import sequence_blocks
from vla.nn.positions import positions_from_valid


@dataclass(kw_only=True)
class ActionEngine:
    """Decodes chunks with one model. Only action tokens can come out, whatever the logits of the others.

    Attributes:
        model: put into eval mode by `predict`; it runs where its weights are.
        temperature: 0 takes the likeliest bin, or what `readout` says.
        readout: of models that decode in parallel; one bin after another the likeliest is taken.
        rest_bins: of each dimension the bin of no change, -1 where there is none (`ActionStatistics.rest_bins`).
        generator: source of randomness when temperature > 0.
    """

    model: Prismatic
    temperature: float = 0.0
    readout: Readout = Readout.MODE
    rest_bins: Int[Tensor, " dims"] | None = None
    generator: torch.Generator | None = None

    @torch.inference_mode()
    def predict(
        self,
        images: UInt8[Tensor, "batch views 3 rows columns"],
        text_ids: Int[Tensor, "batch text"],
        text_valid: Bool[Tensor, "batch text"],
        state: Float[Tensor, "batch state"] | None = None,
        committed: Int[Tensor, "batch committed dims"] | None = None,
    ) -> tuple[Int[Tensor, "batch steps dims"], Float[Tensor, "batch steps dims"]]:
        """Returns the chosen bins of a chunk, 0..255, and the probability of each among the 256.

        `committed` holds the bins of the first steps where these are settled already. A model that decodes one token
        after another reads them as its own and continues from there; their probability is 1. One that decodes in
        parallel has no place for them, and ignores them.
        """
        self.model.eval()
        device = next(self.model.parameters()).device
        images, text_ids, text_valid = (x.to(device) for x in (images, text_ids, text_valid))
        state = None if state is None else state.to(device)
        sampling = Sampling(temperature=self.temperature)
        if isinstance(self.model.action_head, TokenActionHead):
            prefix = embed_prefix(self.model, images, text_ids, text_valid, state)
            return self._one_by_one(self.model.action_head, prefix, sampling, committed)
        output = self.model(images, text_ids, text_valid, state)
        if self.temperature == 0 and self.readout is Readout.CAUTIOUS:
            return cautious(output.action_logits, self.rest_bins)
        return choose(output.action_logits, sampling, self.generator)

    def _one_by_one(
        self,
        head: TokenActionHead,
        prefix: Prefix,
        sampling: Sampling,
        committed: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        config, device = self.model.config, prefix.embeddings.device
        ids = [head.bin_ids(dim, device) for dim in range(config.action_width)]
        forced = None if committed is None else head.token_ids(committed.to(device)).flatten(1)
        generated = generate(
            self.model.decoder,
            prefix,
            max_tokens=config.chunk_length * config.action_width,
            allowed_ids=lambda step: ids[step % config.action_width],
            sampling=sampling,
            generator=self.generator,
            read_logits=head,
            forced_ids=forced,
        )
        shape = (-1, config.chunk_length, config.action_width)
        bins = head.bins(generated.tokens.view(shape))
        return bins, generated.probabilities.view(shape)


def embed_prefix(
    model: Prismatic,
    images: UInt8[Tensor, "batch views 3 rows columns"],
    text_ids: Int[Tensor, "batch text"],
    text_valid: Bool[Tensor, "batch text"],
    state: Float[Tensor, "batch state"] | None,
) -> Prefix:
    """Returns what the model's decoder reads before the first action token."""
    embeddings, valid = model.embed_prefix(images, text_ids, text_valid, state)
    return Prefix(
        embeddings=embeddings,
        valid=valid,
        positions=positions_from_valid(valid),
        blocks=sequence_blocks(
            valid,
            embeddings.shape[1],
            attention=model.config.attention,
            is_suffix_parallel=model.config.is_suffix_parallel,
        ),
    )
