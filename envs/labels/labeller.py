"""Draws labelled scenes: a seed in, pictures with everything that can be said about them out."""

from __future__ import annotations

import numpy as np

from envs.labels.captions import captions
from envs.labels.config import Family, SceneLabelsConfig
from envs.labels.detail import draw_detail
from envs.labels.labelled import LabelledScene, label
from envs.labels.motion import draw_clip
from envs.labels.questions import facts, shuffled
from envs.labels.studio import Studio, retried
from envs.labels.wide import draw_wide


class Labeller:
    """Draws scene after scene; each depends on its seed and the settings alone."""

    def __init__(self, cfg: SceneLabelsConfig, randomization: str = "train") -> None:
        self.cfg = cfg
        self.studio = Studio(cfg, randomization)

    def draw(self, seed: int) -> LabelledScene:
        """Returns the labelled scene of `seed`."""
        rng = np.random.default_rng([seed, list(Family).index(self.cfg.family)])
        match self.cfg.family:
            case Family.STILL:
                return draw_still(self.studio, seed, rng)
            case Family.DETAIL:
                return draw_detail(self.studio, seed, rng)
            case Family.WIDE:
                return draw_wide(self.studio, seed, rng)
            case Family.MOTION:
                return draw_clip(self.studio, seed, rng)

    def close(self) -> None:
        """Frees the renderers."""
        self.studio.close()


def draw_still(studio: Studio, seed: int, rng: np.random.Generator) -> LabelledScene:
    """Returns a picture of a random table and questions of every common kind."""
    size = studio.draw_size(rng)
    view, camera = retried(
        lambda: studio.draw_view(size, rng),
        lambda drawn: any(thing.is_clear for thing in drawn[0].objects),
    )
    frame = studio.photograph(size, camera)
    found = shuffled(facts(view, rng), rng)
    return label(seed, "still", frame[None], view, found, captions(view, rng), rng)
