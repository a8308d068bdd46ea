import numpy as np
import pytest

from envs.base import TabletopEnv
from envs.config import EnvConfig
from envs.experts import make_expert
from envs.instructions import PHRASINGS
from vla.errors import ConfigError
from vla.types import TOOL_POSE_7D


@pytest.fixture(scope="module")
def env():
    env = TabletopEnv(EnvConfig(task="pick_cube"))
    yield env
    env.close()


@pytest.fixture(scope="module")
def mixture():
    return TabletopEnv(EnvConfig(task="tabletop", cameras=[]))


def scene_state(env: TabletopEnv) -> np.ndarray:
    return env.scene.data.qpos.copy()


def test_an_observation_has_pictures_tool_pose_and_words(env):
    observation, info = env.reset(seed=0)
    assert list(observation["images"]) == ["front", "wrist"]
    assert observation["images"]["wrist"].shape == (64, 64, 3)
    assert observation["images"]["wrist"].dtype == np.uint8
    assert observation["state"].shape == (TOOL_POSE_7D.width,)
    assert observation["state"].dtype == np.float32
    np.testing.assert_allclose(observation["state"][:3], env.scene.tool_position, atol=1e-6)
    assert info["target"] in observation["instruction"]
    assert observation in env.observation_space


def test_the_same_seed_gives_the_same_frames_whatever_happened_before(env):
    actions = np.random.default_rng(0).uniform(env.action_space.low, env.action_space.high, (6, 7))
    runs = []
    for distraction in (11, 12):
        env.reset(seed=distraction)
        env.step(actions[distraction % 6])
        frames = [env.reset(seed=7)[0]]
        frames += [env.step(action)[0] for action in actions]
        runs.append(frames)
    for first, second in zip(*runs, strict=True):
        for camera in ("front", "wrist"):
            np.testing.assert_array_equal(first["images"][camera], second["images"][camera])
        np.testing.assert_array_equal(first["state"], second["state"])
        assert first["instruction"] == second["instruction"]


def test_swapping_the_instruction_keeps_the_picture_and_names_another_object(env):
    for seed in range(10):
        plain, info = env.reset(seed=seed)
        swapped, swapped_info = env.reset(seed=seed, options={"swap_instruction": True})
        for camera in ("front", "wrist"):
            np.testing.assert_array_equal(plain["images"][camera], swapped["images"][camera])
        assert info["target"] != swapped_info["target"]
        assert swapped_info["target"] in [spec.name for spec in env.scene.objects]
        # the same sentence about another object
        sentence = info["instruction"].replace(info["target"], swapped_info["target"])
        assert swapped_info["instruction"] == sentence


def test_a_swap_is_itself_determined_by_the_seed(env):
    targets = [env.reset(seed=4, options={"swap_instruction": True})[1]["target"] for _ in range(3)]
    assert len(set(targets)) == 1


def test_a_mixture_swaps_only_where_there_is_something_else_to_name(mixture):
    for seed in range(40):
        task = mixture.reset(seed=seed)[1]["task"]
        swapped = mixture.reset(seed=seed, options={"swap_instruction": True})[1]
        assert swapped["task"] == task or task == "open_drawer"
        assert swapped["task"] != "open_drawer"


def test_held_out_words_come_from_the_held_out_sentences_about_the_same_target(env):
    _, info = env.reset(seed=0)
    _, held_out = env.reset(seed=0, options={"instruction_split": "held_out"})
    sentences = [s.format(object=info["target"]) for s in PHRASINGS["pick_cube"].held_out]
    assert held_out["target"] == info["target"]
    assert held_out["instruction"] in sentences
    assert info["instruction"] not in sentences


def test_given_words_replace_the_sentence_but_not_the_goal(env):
    _, info = env.reset(seed=1)
    observation, spoken = env.reset(seed=1, options={"instruction": "do something"})
    assert observation["instruction"] == spoken["instruction"] == "do something"
    assert spoken["target"] == info["target"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"swap": True},
            "unknown reset option 'swap'; choose one of instruction, instruction_split, swap_instruction",
        ),
        ({"instruction_split": "test"}, "unknown instruction_split 'test'"),
        ({"instruction": "a" * 500}, "longer than 160 characters"),
    ],
)
def test_a_reset_option_that_cannot_be_is_refused(env, options, message):
    with pytest.raises(ConfigError, match=message):
        env.reset(seed=0, options=options)


def test_a_swap_where_the_task_has_one_goal_is_refused():
    env = TabletopEnv(EnvConfig(task="open_drawer", cameras=[]))
    with pytest.raises(ConfigError, match="only one"):
        env.reset(seed=0, options={"swap_instruction": True})


def test_the_segmentation_of_an_unknown_camera_is_refused(env):
    env.reset(seed=0)
    with pytest.raises(ConfigError, match="unknown camera 'side'"):
        env.segmentation("side")


def test_an_environment_that_was_not_reset_says_so():
    with pytest.raises(ConfigError, match="call reset"):
        TabletopEnv(EnvConfig(cameras=[])).step(np.zeros(7, np.float32))


def test_reset_without_a_seed_goes_on_from_the_last_seed(env):
    runs = []
    for _ in range(2):
        env.reset(seed=123)
        runs.append([env.reset()[1]["instruction"] for _ in range(4)])
    assert runs[0] == runs[1]
    assert len(set(runs[0])) > 1


def test_max_steps_of_the_config_cut_the_episode():
    env = TabletopEnv(EnvConfig(task="reach", cameras=[], max_steps=3))
    env.reset(seed=0)
    cut = [env.step(np.array([0, 0, 0, 0, 0, 0, 1], np.float32))[3] for _ in range(3)]
    assert cut == [False, False, True]


def test_instruction_and_scene_draw_from_separate_streams(env):
    env.reset(seed=2)
    before = scene_state(env)
    env.reset(seed=2, options={"instruction_split": "held_out", "swap_instruction": True})
    np.testing.assert_array_equal(scene_state(env), before)


def test_the_info_names_the_object_that_was_picked(env: TabletopEnv):
    expert = make_expert(env)
    _, info = env.reset(seed=3)
    assert info["handled"] == ""
    expert.reset(np.random.default_rng(0))
    ended = False
    while not ended:
        _, _, terminated, truncated, info = env.step(expert.act())
        ended = terminated or truncated
    assert info["handled"] == info["target"]


def test_people_get_a_larger_picture_than_the_policy():
    env = TabletopEnv(EnvConfig(image_size=32), render_mode="rgb_array")
    env.reset(seed=0)
    picture = env.render()
    env.close()
    assert picture is not None
    assert picture.shape == (256, 256, 3)
    assert picture.std() > 10
