"""From pictures, words and proprioception to actions: one pass, token by token, or a flow's few steps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from vla.errors import ConfigError
from vla.inference.fast_decoding import generate_chunks
from vla.inference.flow_guidance import Guide, sample_guided
from vla.inference.generate import generate
from vla.inference.readout import Readout
from vla.inference.sampling import Sampling, cautious, choose
from vla.models.action_config import ActionDecoding
from vla.models.action_heads import TokenActionHead
from vla.models.action_model import VisionLanguageAction
from vla.models.flow_sampling import DEFAULT_STEPS, sample
from vla.models.sequence import Prefix
from vla.tokenizers.action_bins import ActionBins
from vla.tokenizers.fast import FastTokenizer


@dataclass(kw_only=True)
class ActionEngine:
    """Decodes chunks with one model. Only action tokens can come out, whatever the logits of the others.

    Attributes:
        model: put into eval mode by `predict`; it runs where its weights are.
        temperature: 0 takes the likeliest bin, or what `readout` says.
        readout: of models that decode in parallel; one bin after another the likeliest is taken.
        rest_bins: of each dimension the bin of no change, -1 where there is none (`ActionStatistics.rest_bins`).
        generator: source of randomness when temperature > 0, and of a flow's noise at any.
        flow_steps: from noise to actions.
        fast: of a model that decodes with FAST: the tokenizer of its checkpoint.
        end_id: that such a model writes after a chunk (`InstructionPrompts.end_id`).
        guide: `vla.control.guidance.guided_chunk`; without it a flow ignores what is committed.
    """

    model: VisionLanguageAction
    temperature: float = 0.0
    readout: Readout = Readout.MODE
    rest_bins: Int[Tensor, " dims"] | None = None
    generator: torch.Generator | None = None
    flow_steps: int = DEFAULT_STEPS
    guide: Guide | None = None
    fast: FastTokenizer | None = None
    end_id: int | None = None

    def chunk(
        self,
        images: UInt8[Tensor, "batch views 3 rows columns"],
        text_ids: Int[Tensor, "batch text"],
        text_valid: Bool[Tensor, "batch text"],
        state: Float[Tensor, "batch state"] | None = None,
        committed: Float[Tensor, "batch committed dims"] | None = None,
    ) -> tuple[Float[Tensor, "batch steps dims"], Float[Tensor, "batch steps dims"] | None]:
        """Returns actions normalised to [-1, 1], and the probability of each where there are bins; any head will do.

        `committed` holds the first actions, normalised, where these are settled already: a model that decodes token by
        token continues from them, a flow is guided to, the others ignore them; FAST does, since its tokens are spread
        over all of a chunk. Its tokens have probabilities, and its numbers none.

        Raises:
            ConfigError: the model decodes with FAST, and `fast` and `end_id` are not given.
        """
        if self.model.config.has_bins:
            forced = None
            if committed is not None:
                forced = torch.from_numpy(ActionBins.encode(committed.cpu().numpy()))
            bins, probabilities = self.predict(images, text_ids, text_valid, state, forced)
            return torch.from_numpy(ActionBins.decode(bins.cpu().numpy())), probabilities
        self.model.eval()
        device = next(self.model.parameters()).device
        given = [None if x is None else x.to(device) for x in (images, text_ids, text_valid, state)]
        if self.model.config.decoding is ActionDecoding.FAST:
            return self._spelled(given), None
        if self.model.config.decoding is ActionDecoding.L1:
            with torch.inference_mode():
                return self.model(*given).actions.float().clamp(-1.0, 1.0), None
        if committed is None or not committed.shape[1] or self.guide is None:
            return self._flown(given, None).clamp(-1.0, 1.0), None
        rows = [  # guidance steers one chunk at a time
            self._flown([x if x is None else x[k : k + 1] for x in given], committed[k])
            for k in range(len(images))
        ]
        return torch.cat(rows).clamp(-1.0, 1.0), None

    @torch.inference_mode()
    def _spelled(self, given: list[Any]) -> Tensor:
        if self.fast is None or self.end_id is None:
            raise ConfigError(
                "the model decodes with FAST; give ActionEngine the tokenizer (fast=) and the end token (end_id=) "
                "of its checkpoint"
            )
        actions, _ = generate_chunks(
            self.model,
            self.model.prefix(*given),
            self.fast,
            self.end_id,
            sampling=Sampling(temperature=self.temperature),
            generator=self.generator,
        )
        return actions

    def _flown(self, given: list[Any], settled: Tensor | None) -> Tensor:
        config = self.model.config
        with torch.no_grad():  # not inference_mode: guidance sends gradients through the suffix
            velocity = self.model.velocity(self.model.prefix(*given))
            noise = torch.randn(
                (len(given[0]), config.chunk_length, config.action_width),
                generator=self.generator,
                device=given[0].device,
            )
            if settled is None or self.guide is None:
                return sample(velocity, noise, self.flow_steps)
        return sample_guided(velocity, noise, settled, self.guide, self.flow_steps)

    @torch.inference_mode()
    def predict(
        self,
        images: UInt8[Tensor, "batch views 3 rows columns"],
        text_ids: Int[Tensor, "batch text"],
        text_valid: Bool[Tensor, "batch text"],
        state: Float[Tensor, "batch state"] | None = None,
        committed: Int[Tensor, "batch committed dims"] | None = None,
    ) -> tuple[Int[Tensor, "batch steps dims"], Float[Tensor, "batch steps dims"]]:
        """Returns the chosen bins of a chunk, 0..255, and the probability of each among the 256; see also `chunk`.

        `committed` holds the bins of the first steps where these are settled already. A model that decodes one token
        after another reads them as its own and continues from there; their probability is 1. One that decodes in
        parallel has no place for them, and ignores them.

        Raises:
            ConfigError: the model has no bins.
        """
        if not self.model.config.has_bins:
            raise ConfigError(
                f"decoding={self.model.config.decoding.name} has no bins; use ActionEngine.chunk"
            )
        self.model.eval()
        device = next(self.model.parameters()).device
        images, text_ids, text_valid = (x.to(device) for x in (images, text_ids, text_valid))
        state = None if state is None else state.to(device)
        sampling = Sampling(temperature=self.temperature)
        if isinstance(self.model.action_head, TokenActionHead):
            prefix = self.model.prefix(images, text_ids, text_valid, state)
            return self._one_by_one(self.model.action_head, prefix, sampling, committed)
        output = self.model(images, text_ids, text_valid, state)
        share = self.readout.middle_share
        if self.temperature == 0 and share is not None:
            return cautious(output.action_logits, share, self.rest_bins)
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
            self.model.backbone.decoder,
            prefix,
            max_tokens=config.chunk_length * config.action_width,
            allowed_ids=lambda step: ids[step % config.action_width],
            sampling=sampling,
            generator=self.generator,
            forced_ids=forced,
        )
        shape = (-1, config.chunk_length, config.action_width)
        bins = head.bins(generated.tokens.view(shape))
        return bins, generated.probabilities.view(shape)
