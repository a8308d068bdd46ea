"""`vla train`: datasets in, a checkpoint that can act out."""

from __future__ import annotations

import logging
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from vla.checkpoints import native
from vla.cli.config import paths_from_text
from vla.data.collate import Batches, ColourJitter
from vla.data.lerobot import Frames, open_frames
from vla.data.stats import ActionStatistics, StateStatistics
from vla.errors import CheckpointError, ConfigError
from vla.models.backbones.prismatic import Prismatic, PrismaticConfig
from vla.tokenizers.action_bins import ActionBins
from vla.tokenizers.prompt import PromptName
from vla.tokenizers.text import train_text_tokenizer
from vla.training.config import TrainingConfig
from vla.training.loop import Progressed, train
from vla.training.objective import Objective
from vla.training.stages import freeze
from vla.training.track import JsonlTracker, Metrics, Tracker, TrackerGroup, read_jsonl
from vla.types import TABLETOP, Embodiment

logger = logging.getLogger(__name__)
