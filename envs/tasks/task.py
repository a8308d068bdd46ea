"""What a task is: it lays the table, knows which goals that table allows, and judges what happens."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

import numpy as np

from envs.rotations import Vector
from envs.scene import Scene

NO_SLOT = -1
STILL_M_S = 0.02  # an object slower than this has come to rest


class Outcome(StrEnum):
    """State of an episode after a step; the failures' values are what `info["failure"]` says."""

    RUNNING = ""
    SUCCESS = "success"
    WRONG_OBJECT = "wrong_object"
    DROPPED = "dropped"


@dataclass(frozen=True, kw_only=True)
class Goal:
    """One thing that can be asked for on the present table.

    Attributes:
        target: slot of the named object; NO_SLOT when the task names none (the drawer).
        reference: slot of a second object the sentence names, if any.
        words: what fills the sentence's {object} and {reference}.
    """

    target: int = NO_SLOT
    reference: int = NO_SLOT
    words: dict[str, str] = field(default_factory=dict)

    @property
    def target_name(self) -> str:
        return self.words["object"]


class Task(Protocol):
    """A task; one instance lives through one episode at a time.

    Attributes:
        name: as on the command line.
        max_steps: policy steps before an episode is cut.
        has_alternatives: whether every table allows goals with different targets.
    """

    name: str
    max_steps: int
    has_alternatives: bool

    def arrange(self, scene: Scene, num_distractors: int, rng: np.random.Generator) -> None:
        """Lays the table; must not depend on which goal will be chosen."""
        ...

    def goals(self, scene: Scene) -> list[Goal]:
        """Returns every goal the table allows."""
        ...

    def begin(self, scene: Scene, goal: Goal) -> None:
        """Starts judging an episode with this goal."""
        ...

    def judge(self, scene: Scene) -> Outcome:
        """Returns the state of the episode; called once after every step."""
        ...

    def failure_at_timeout(self) -> str:
        """Returns "dropped" when the object had been held and was lost, else "timeout"."""
        ...

    def focus(self, scene: Scene) -> tuple[Vector, frozenset[int]]:
        """Returns the named thing's centre (3,) m and its MuJoCo geoms."""
        ...


class Streak:
    """Counts how many steps in a row something has been true."""

    def __init__(self, steps: int) -> None:
        self._needed = steps
        self._count = 0

    def update(self, is_true: bool) -> bool:
        """Returns whether it has now been true for the needed number of steps."""
        self._count = self._count + 1 if is_true else 0
        return self._count >= self._needed


class FirstObject:
    """Waits for the first object to meet a condition for some steps in a row: the named one, or a wrong one."""

    def __init__(self, scene: Scene, goal: Goal, steps: int) -> None:
        self._target = goal.target
        self._streaks = {slot: Streak(steps) for slot in range(len(scene.objects))}

    def judge(self, meets: Callable[[int], bool], otherwise: Outcome) -> Outcome:
        """Returns success or wrong object, or `otherwise` while no object's slot has met the condition long enough."""
        outcome = otherwise
        for slot, streak in self._streaks.items():
            if streak.update(meets(slot)):
                outcome = Outcome.SUCCESS if slot == self._target else Outcome.WRONG_OBJECT
        return outcome


def has_settled(scene: Scene, slot: int) -> bool:
    """Whether the object has been let go and come to rest."""
    return not scene.is_touched(slot) and scene.object_speed(slot) < STILL_M_S


def object_goals(scene: Scene, slots: range) -> list[Goal]:
    """Returns one goal per object in `slots`."""
    return [Goal(target=slot, words={"object": scene.objects[slot].name}) for slot in slots]


def object_focus(scene: Scene, goal: Goal) -> tuple[Vector, frozenset[int]]:
    """Returns centre and geom of the goal's object."""
    return scene.object_position(goal.target), frozenset({scene.object_geom(goal.target)})


class GripHistory:
    """Remembers whether the named object was lifted and then lost."""

    def __init__(self, slot: int) -> None:
        self._slot = slot
        self._was_lifted = False
        self.was_dropped = False

    def update(self, scene: Scene) -> None:
        held = scene.is_held(self._slot)
        if held and scene.object_height(self._slot) > 0.03:
            self._was_lifted, self.was_dropped = True, False
        elif self._was_lifted and not held and scene.object_height(self._slot) < 0.02:
            self.was_dropped = True


def is_out_of_reach(scene: Scene, slot: int) -> bool:
    """Whether the object has left the part of the table where it can be grasped."""
    x, y, z = scene.object_position(slot)
    return not (0.28 <= x <= 0.72 and abs(y) <= 0.33 and z > -0.05)
