"""The tasks of the tabletop, by the name the command line uses."""

from __future__ import annotations

from envs.tasks.open_drawer import OpenDrawer
from envs.tasks.pick_cube import PickCube
from envs.tasks.place_in_bowl import PlaceInBowl
from envs.tasks.push import Push
from envs.tasks.reach import Reach
from envs.tasks.stack import Stack
from envs.tasks.task import Task

_ALL: tuple[type[Task], ...] = (Reach, PickCube, PlaceInBowl, Push, Stack, OpenDrawer)

# Each name stands for the tasks an episode draws among.
TASKS: dict[str, tuple[type[Task], ...]] = {
    **{task.name: (task,) for task in _ALL},
    "tabletop": _ALL,
}
