"""The tasks of the tabletop, by the name the command line uses."""

from __future__ import annotations

from envs.tasks.pick_cube import PickCube
from envs.tasks.reach import Reach
from envs.tasks.task import Task

# Each name stands for the tasks an episode draws among.
TASKS: dict[str, tuple[type[Task], ...]] = {
    "reach": (Reach,),
    "pick_cube": (PickCube,),
    "tabletop": (Reach, PickCube),
}
