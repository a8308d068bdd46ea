import os
import subprocess
import sys

import numpy as np
import pytest

from envs.base import TabletopEnv
from envs.config import EnvConfig
from envs.experts import make_expert
from envs.labels.grounding import ground
from envs.objects import COLORS
from envs.rotations import UP


@pytest.fixture(scope="module")
def env():
    env = TabletopEnv(EnvConfig(task="pick_cube", image_size=64))
    yield env
    env.close()


def hue(rgb: np.ndarray) -> float:
    """Angle on the colour circle, degrees."""
    red, green, blue = rgb
    return float(np.rad2deg(np.arctan2(np.sqrt(3) * (green - blue), 2 * red - green - blue)) % 360)


def test_a_cube_is_at_least_five_pixels_wide_in_a_64_pixel_front_picture(env):
    for seed in range(20):
        env.reset(seed=seed)
        labels, names = env.segmentation("front")
        for index in range(1, len(names)):
            columns = np.flatnonzero((labels == index).any(axis=0))
            assert columns.size >= 5, (seed, names[index], columns.size)


def test_every_object_is_inside_the_front_picture(env):
    for seed in range(20):
        env.reset(seed=seed)
        labels, names = env.segmentation("front")
        assert set(range(1, len(names))) <= set(np.unique(labels)), seed


def test_the_wrist_camera_sees_the_named_object_in_the_last_second_before_the_grasp(env):
    expert = make_expert(env)
    for seed in range(6):
        env.reset(seed=seed)
        pixels = []
        while not env.scene.is_held(env.goal.target):
            labels, _ = env.segmentation("wrist")
            pixels.append(int((labels == env.goal.target + 1).sum()))
            env.step(expert.act())
        assert min(pixels[-10:]) >= 6, (seed, pixels)  # of 4096; ten steps are a second
        assert pixels[-1] > 300, (seed, pixels)


def test_under_train_light_every_colour_stays_nearest_to_its_own_hue(env):
    names_and_hues = {name: hue(np.array(rgb)) for name, rgb in COLORS.items()}
    for seed in range(25):
        observation, _ = env.reset(seed=seed)
        labels, names = env.segmentation("front")
        for index in range(1, len(names)):
            seen = hue(observation["images"]["front"][labels == index].mean(axis=0))
            distance = {
                name: abs((seen - expected + 180) % 360 - 180)
                for name, expected in names_and_hues.items()
            }
            nearest = min(distance, key=distance.__getitem__)
            assert nearest == names[index].split()[0], (seed, names[index], seen)


def test_the_projected_centre_falls_on_the_object(env):
    for seed in range(8):
        env.reset(seed=seed)
        grounding, (labels, _) = env.grounding(), env.segmentation("front")
        u, v = grounding.pixels["front"]
        assert grounding.visible["front"]
        assert labels[int(v * 64), int(u * 64)] == env.goal.target + 1


def test_what_is_under_the_table_or_outside_the_picture_is_not_visible(env):
    env.reset(seed=0)
    position, geoms = env.task.focus(env.scene)
    joint = env.scene.model.body_jntadr[
        env.scene.model.geom_bodyid[env.scene.object_geom(env.goal.target)]
    ]
    height = env.scene.model.jnt_qposadr[joint] + 2
    env.scene.data.qpos[height] -= 0.1
    env.scene.settle()
    hidden = ground(env.scene, position - 0.1 * UP, geoms)
    assert hidden.visible == {"front": False, "wrist": False}
    assert all(0.0 < share < 1.0 for share in hidden.pixels["front"])
    far_away = ground(env.scene, np.array([0.5, 3.0, 0.0]), geoms)
    assert far_away.visible == {"front": False, "wrist": False}
    assert far_away.target_from_tool[1] == pytest.approx(3.0 - env.scene.tool_position[1], abs=1e-5)


def test_rendering_goes_on_after_close(env):
    before = env.reset(seed=3)[0]["images"]["front"]
    env.close()
    np.testing.assert_array_equal(env.reset(seed=3)[0]["images"]["front"], before)


def test_without_a_renderer_the_error_says_what_to_install():
    script = "import envs\ntry:\n    envs.make().reset(seed=0)\nexcept Exception as error:\n    print(repr(error))"
    environment = {**os.environ, "MUJOCO_GL": "disable", "PYTHONPATH": os.pathsep.join(sys.path)}
    child = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True
    )
    assert "ConfigError" in child.stdout
    assert "apt-get install" in child.stdout
    assert child.stderr == ""
