import numpy as np
import pytest

from vla.errors import ConfigError, ServingError
from vla.serving.card import PolicyCard
from vla.serving.config import LayoutConfig
from vla.serving.layouts import ObservationReader
from vla.types import END_EFFECTOR_DELTA_7D, TABLETOP, StateSpec

FRONT = np.full((4, 5, 3), 10, np.uint8)
WRIST = np.full((4, 5, 3), 20, np.uint8)
STATE = np.arange(7, dtype=np.float32)


def card(cameras=("front", "wrist"), state_width=7, unnorm_keys=("tabletop",)) -> PolicyCard:
    names = tuple(f"s{i}" for i in range(state_width))
    return PolicyCard(
        name="fake",
        action_spec=END_EFFECTOR_DELTA_7D,
        camera_names=cameras,
        state_spec=StateSpec(names=names, units=("m",) * state_width),
        unnorm_keys=unnorm_keys,
    )


MESSAGES = {
    "vla": {
        "images": {"front": FRONT, "wrist": WRIST},
        "state": STATE,
        "instruction": "go",
        "captured_at_s": 4.5,
    },
    "lerobot": {
        "observation.images.front": FRONT,
        "observation.images.wrist": WRIST,
        "observation.state": STATE,
        "task": "go",
    },
    "libero": {
        "observation/image": FRONT,
        "observation/wrist_image": WRIST,
        "observation/state": STATE.astype(np.float64),
        "prompt": "go",
    },
    "droid": {
        "observation/exterior_image_1_left": FRONT,
        "observation/wrist_image_left": WRIST,
        "observation/joint_position": STATE[:6],
        "observation/gripper_position": STATE[6:],
        "prompt": "go",
    },
    "plain": {"image": FRONT, "wrist_image": WRIST, "state": STATE, "prompt": "go"},
    "openvla": {"image": FRONT, "wrist_image": WRIST, "state": list(range(7)), "instruction": "go"},
}


@pytest.mark.parametrize("name", MESSAGES)
def test_every_kind_of_client_gives_the_same_observation(name):
    got = ObservationReader(card()).read(MESSAGES[name] | {"something_else": 1})
    assert np.array_equal(got.images["front"], FRONT)
    assert np.array_equal(got.images["wrist"], WRIST)
    assert np.array_equal(got.state, STATE)
    assert got.state.dtype == np.float32
    assert got.instruction == "go"
    assert got.captured_at_s == (4.5 if name == "vla" else 0.0)


def test_openvlas_own_request_is_enough_for_a_policy_with_one_camera_and_no_proprioception():
    reader = ObservationReader(card(cameras=("front",), state_width=0))
    got = reader.read({"image": FRONT, "instruction": "go"})
    assert list(got.images) == ["front"]
    assert got.state.shape == (0,)


def test_a_nested_map_stands_for_a_key_with_slashes():
    nested = {"observation": {"image": FRONT, "wrist_image": WRIST, "state": STATE}, "prompt": "go"}
    assert np.array_equal(ObservationReader(card()).read(nested).images["wrist"], WRIST)


@pytest.mark.parametrize("name", MESSAGES)
def test_missing_keys_are_named(name):
    message = dict(MESSAGES[name])
    key = next(iter(message))
    del message[key]
    expected = "images/front, images/wrist" if key == "images" else key
    with pytest.raises(ServingError, match=f"lacks {expected}.* of layout"):
        ObservationReader(card()).read(message)


def test_a_layout_of_ones_own_is_data():
    extra = {
        "lab": LayoutConfig(
            images={"front": "cam0", "wrist": "cam1"}, state=["q", "g"], instruction="say"
        )
    }
    reader = ObservationReader(card(), extra)
    got = reader.read({"cam0": FRONT, "cam1": WRIST, "q": STATE[:6], "g": 6.0, "say": "go"})
    assert np.array_equal(got.state, STATE)
    assert reader.keys_by_layout["lab"] == ["cam0", "cam1", "q", "g", "say"]


def test_a_layout_of_ones_own_that_lacks_a_camera_is_refused_at_the_start():
    with pytest.raises(ConfigError, match=r"layouts\.lab\.images has no wrist"):
        ObservationReader(card(), {"lab": LayoutConfig(images={"front": "cam0"})})


def test_layouts_without_the_policys_cameras_are_not_offered():
    assert set(ObservationReader(card(cameras=("top",))).keys_by_layout) == {"vla", "lerobot"}


def test_pictures_come_as_bytes_or_floats_and_with_channels_last_or_first():
    picture = np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8)
    floats = picture.astype(np.float32) / 255
    for sent in (picture, floats, picture.transpose(2, 0, 1), floats.transpose(2, 0, 1)):
        got = ObservationReader(card()).read(MESSAGES["plain"] | {"image": sent}).images["front"]
        assert got.dtype == np.uint8
        assert got.flags.c_contiguous
        assert np.array_equal(got, picture)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"image": "text"}, "image is str; expected a numpy array"),
        ({"image": [[1]]}, "image is list; expected a numpy array"),
        ({"image": np.zeros((4, 4), np.uint8)}, r"image has shape \(4, 4\)"),
        ({"image": np.zeros((4, 4, 4), np.uint8)}, r"image has shape \(4, 4, 4\)"),
        ({"image": np.zeros((0, 4, 3), np.uint8)}, r"image has shape \(0, 4, 3\)"),
        ({"image": np.zeros((1, 5000, 3), np.uint8)}, "sides up to 4096"),
        ({"image": np.zeros((4, 4, 3), np.int32)}, "image is int32; expected uint8"),
        ({"image": np.full((4, 4, 3), np.nan)}, r"outside \[0, 1\]"),
        ({"image": np.full((4, 4, 3), 2.0)}, r"outside \[0, 1\]"),
        ({"state": np.zeros(6)}, "state has 6 numbers; the policy takes 7"),
        ({"state": np.zeros((1, 7))}, r"state is ndarray of shape \(1, 7\)"),
        ({"state": np.full(7, np.nan)}, "not finite"),
        ({"state": np.full(7, 1e300)}, "not finite"),
        ({"state": [1, "2"]}, "state is list; expected one row of numbers"),
        ({"state": [10**400] * 7}, "not finite"),
        ({"prompt": ""}, "expected the task in words"),
        ({"prompt": 5}, "prompt is 5"),
        ({"prompt": "x" * 1001}, "prompt has 1001 characters"),
        ({"captured_at_s": "now"}, "captured_at_s is 'now'"),
        ({"captured_at_s": float("nan")}, "captured_at_s is nan"),
    ],
)
def test_values_that_are_no_observation_are_refused_with_key_and_reason(changes, reason):
    with pytest.raises(ServingError, match=reason):
        ObservationReader(card()).read(MESSAGES["plain"] | changes)


@pytest.mark.parametrize("message", [None, 5, [1], "text", np.zeros(3)])
def test_a_message_that_is_no_map_is_refused(message):
    with pytest.raises(ServingError, match="an observation is a map"):
        ObservationReader(card()).read(message)


def test_an_unknown_unnorm_key_is_refused_by_name_and_none_will_do_where_there_is_one():
    reader = ObservationReader(card())
    reader.check_unnorm_key(None)
    reader.check_unnorm_key("tabletop")
    for key, shown in (("tabletob", "'tabletob'; choose one of tabletop; did you mean"), (5, "5")):
        with pytest.raises(ServingError, match=f"unknown unnorm_key .*{shown}"):
            reader.check_unnorm_key(key)
    with pytest.raises(ServingError, match="choose one of bridge, tabletop"):
        ObservationReader(card(unnorm_keys=("tabletop", "bridge"))).check_unnorm_key(None)


def test_the_card_states_names_units_frame_limits_rate_and_gripper():
    metadata = card().metadata()
    assert metadata["action_spec"] == TABLETOP.action_spec.to_dict()
    assert metadata["gripper"] == "1 open, 0 closed"
    assert metadata["rate_hz"] == 10.0
    assert metadata["frame"].startswith("robot base")
    assert metadata["cameras"] == ["front", "wrist"]
    assert metadata["state_spec"]["units"] == ["m"] * 7
