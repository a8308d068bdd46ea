from collections import Counter

import numpy as np
import pytest

from envs.base import TabletopEnv
from envs.config import EnvConfig
from envs.experts import EXPERTS, make_expert
from envs.objects import Shape
from envs.tasks.layout import SEPARATION_M
from envs.tasks.task import Goal


def make(task: str, **fields) -> TabletopEnv:
    return TabletopEnv(EnvConfig(task=task, cameras=[], **fields))


def play(env: TabletopEnv, goal: Goal | None = None, after=None) -> dict:
    """Lets the expert act on `goal` (by default the episode's) until the end; `after(env)` may override an action."""
    while True:
        action = EXPERTS[env.task.name](env.scene, goal or env.goal)
        override = after(env) if after else None
        *_, terminated, truncated, info = env.step(action if override is None else override)
        if terminated or truncated:
            return info


def other_goal(env: TabletopEnv) -> Goal:
    return next(goal for goal in env.task.goals(env.scene) if goal.target != env.goal.target)


@pytest.mark.parametrize("task", ["reach", "pick_cube", "place_in_bowl", "push", "stack"])
def test_doing_it_to_another_object_ends_the_episode_as_wrong_object(task):
    env = make(task)
    for seed in range(3):
        env.reset(seed=seed)
        info = play(env, goal=other_goal(env))
        assert (info["is_success"], info["failure"]) == (False, "wrong_object")


def test_stacking_on_the_wrong_cube_is_the_wrong_object():
    env = make("stack")
    env.reset(seed=0)
    wrong = next(
        goal
        for goal in env.task.goals(env.scene)
        if goal.target == env.goal.target and goal.reference != env.goal.reference
    )
    assert play(env, goal=wrong)["failure"] == "wrong_object"


def test_letting_go_before_the_cube_has_settled_in_the_air_is_no_success():
    env = make("pick_cube")
    env.reset(seed=1)
    was_up = False

    def drop_once_up(env):
        nonlocal was_up
        was_up = was_up or env.scene.object_height(env.goal.target) > 0.05
        return np.array([0, 0, 0, 0, 0, 0, 1], np.float32) if was_up else None

    info = play(env, after=drop_once_up)
    assert was_up
    assert (info["is_success"], info["failure"]) == (False, "dropped")


def test_doing_nothing_times_out():
    for task in ("reach", "pick_cube", "open_drawer"):
        env = make(task, max_steps=12)
        env.reset(seed=2)
        info = play(env, after=lambda _: np.array([0, 0, 0, 0, 0, 0, 1], np.float32))
        assert (info["is_success"], info["failure"]) == (False, "timeout")


def test_an_object_pushed_out_of_reach_ends_the_episode_as_dropped():
    env = make("push")
    env.reset(seed=0)
    start = env.scene.model.body_jntadr[
        env.scene.model.geom_bodyid[env.scene.object_geom(env.goal.target)]
    ]
    env.scene.data.qpos[env.scene.model.jnt_qposadr[start]] = 0.95
    *_, terminated, _, info = env.step(np.array([0, 0, 0, 0, 0, 0, 1], np.float32))
    assert terminated
    assert info["failure"] == "dropped"


def test_the_object_in_the_bowl_counts_only_after_release():
    env = make("place_in_bowl")
    env.reset(seed=0)
    rewards = []
    expert = make_expert(env)
    released_at = None
    for step in range(80):
        _, reward, terminated, _, info = env.step(expert.act())
        rewards.append(reward)
        is_free = not env.scene.is_touched(env.goal.target)
        if env.scene.grip_width_m > 0.06 and is_free and sum(rewards) == 0:
            released_at = step
        if terminated:
            break
    assert info["is_success"]
    assert rewards[-1] == 1.0
    assert sum(rewards) == 1.0
    assert released_at is not None


def test_pick_cube_draws_its_target_evenly_over_places_and_colours():
    env = make("pick_cube")
    slots, colors, ranks = Counter(), Counter(), Counter()
    for seed in range(300):
        env.reset(seed=seed)
        slots[env.goal.target] += 1
        colors[env.scene.objects[env.goal.target].color] += 1
        depth = [env.scene.object_position(slot)[0] for slot in range(3)]
        ranks[int(np.argsort(np.argsort(depth))[env.goal.target])] += 1
    # 300 draws of one in three: standard deviation 8.2; of one in six: 6.5
    assert all(abs(count - 100) < 33 for count in (*slots.values(), *ranks.values())), (
        slots,
        ranks,
    )
    assert all(abs(count - 50) < 26 for count in colors.values()), colors


def test_cubes_differ_in_colour_and_leave_room_for_the_gripper():
    env = make("pick_cube", randomization="hard")
    for seed in range(60):
        env.reset(seed=seed)
        objects = env.scene.objects
        assert len({spec.color for spec in objects[:3]}) == 3
        assert len({spec.name for spec in objects}) == len(objects)
        places = [env.scene.object_position(slot)[:2] for slot in range(len(objects))]
        gaps = [np.linalg.norm(a - b) for i, a in enumerate(places) for b in places[:i]]
        assert min(gaps) > SEPARATION_M - 0.02, seed


def test_distractors_appear_only_when_hard():
    for strength, expected in (("none", {3}), ("train", {3}), ("hard", {3, 4, 5})):
        env = make("pick_cube", randomization=strength)
        counts = set()
        for seed in range(25):
            env.reset(seed=seed)
            counts.add(len(env.scene.objects))
        assert counts == expected


def test_the_bowl_task_always_holds_an_elongated_block_at_any_yaw():
    env = make("place_in_bowl")
    yaws = []
    for seed in range(40):
        env.reset(seed=seed)
        assert env.scene.objects[0].shape is Shape.BLOCK
        yaws.append(env.scene.object_yaw(0) % np.pi)
    assert np.histogram(yaws, bins=4, range=(0, np.pi))[0].min() >= 3


def test_the_mixture_draws_every_task():
    env = make("tabletop")
    seen = Counter(env.reset(seed=seed)[1]["task"] for seed in range(60))
    assert set(seen) == set(EXPERTS)
