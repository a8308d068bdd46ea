"""Starting weights of a model that is trained from nothing."""

from __future__ import annotations

import math

from torch import nn

from vla.models.action_heads import L1ActionHead, ParallelActionHead
from vla.models.decoder import Decoder
from vla.models.dual_encoder import TextTower
from vla.models.vision.pooling import AttentionPool
from vla.models.vision.raw_patches import RawPatchEmbedding
from vla.models.vision.vit import ViT

STANDARD_DEVIATION = 0.02


def initialise(model: nn.Module) -> None:
    """Fills all weights in place from torch's global generator; seed it first (torch.manual_seed).

    Linear maps are drawn so that they keep the variance of their input, embeddings and tables from a normal of
    0.02, output projections of residual branches smaller by sqrt(2 * number of blocks) (GPT-2's rule),
    convolutions by He's rule for the ReLU after them. Norms and LayerScale keep what their class sets.
    """
    for module in model.modules():
        match module:
            case nn.Linear():
                nn.init.normal_(module.weight, std=1.0 / math.sqrt(module.in_features))
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            case nn.Conv2d():
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            case nn.Embedding():
                nn.init.normal_(module.weight, std=STANDARD_DEVIATION)
            case ViT():
                for table in (module.position_table, module.axis_tables, module.extra_tokens):
                    if table is not None:
                        nn.init.normal_(table, std=STANDARD_DEVIATION)
            case TextTower():
                nn.init.normal_(module.position_table, std=STANDARD_DEVIATION)
            case AttentionPool():
                nn.init.normal_(module.probe, std=STANDARD_DEVIATION)
            case RawPatchEmbedding():
                nn.init.normal_(module.axis_tables, std=STANDARD_DEVIATION)
            case ParallelActionHead() | L1ActionHead():
                nn.init.normal_(module.slots, std=STANDARD_DEVIATION)
            case _:
                pass
    for module in model.modules():
        if isinstance(module, ViT | TextTower):
            _shrink_branches(module.blocks)
        elif isinstance(module, Decoder):
            _shrink_branches(module.layers)


def _shrink_branches(blocks: nn.ModuleList) -> None:
    for name, child in blocks.named_modules():
        if isinstance(child, nn.Linear) and name.endswith(("attention.out", "mlp.down")):
            child.weight.data.mul_(1.0 / math.sqrt(2 * len(blocks)))
