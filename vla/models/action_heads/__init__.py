"""What makes actions of hidden states. Every head says what the decoder reads after the prefix, and reads its answer.

ParallelActionHead   bins, all at once       suffix: learned slots
TokenActionHead      bins, one by one        suffix: the tokens so far
FastActionHead       chunks, piece by piece  suffix: the tokens so far
L1ActionHead         numbers, all at once    suffix: learned slots, one a step
FlowActionHead       numbers, in ten steps   suffix: the chunk so far, and the time
"""

from vla.models.action_heads.bins import ParallelActionHead, TokenActionHead
from vla.models.action_heads.fast import FastActionHead
from vla.models.action_heads.flow import FlowActionHead
from vla.models.action_heads.grounding import GroundingHead
from vla.models.action_heads.l1 import L1ActionHead
from vla.models.action_heads.output import ActionOutput

ActionHead = ParallelActionHead | TokenActionHead | FastActionHead | L1ActionHead | FlowActionHead

__all__ = [
    "ActionHead",
    "ActionOutput",
    "FastActionHead",
    "FlowActionHead",
    "GroundingHead",
    "L1ActionHead",
    "ParallelActionHead",
    "TokenActionHead",
]
