from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from policies.config import PolicyConfig, PolicyKind
from vla.cli import build
from vla.cli.config import compose
from vla.cli.doctor import checks, command
from vla.cli.doctor import policy as policy_checks
from vla.cli.doctor.command import DoctorConfig, Finding, Level, table
from vla.cli.doctor.policy import Trained
from vla.cli.doctor.robot import SeenRobot, opened
from vla.cli.main import main
from vla.control.limits import PANDA
from vla.errors import PolicyError
from vla.types import END_EFFECTOR_DELTA_7D, TABLETOP, ActionChunk

TRAINED = Trained(
    image_size=32,
    state_spec=TABLETOP.state_spec,
    state_low=np.array([0.2, -0.4, 0.0, -0.5, -0.5, -1.6, 0.0]),
    state_high=np.array([0.8, 0.4, 0.5, 0.5, 0.5, 1.6, 0.08]),
)


class SeeingPolicy:
    """Moves with the brightness of the picture and the letters of the instruction."""

    action_spec = END_EFFECTOR_DELTA_7D
    camera_names = ("front", "wrist")
    is_blind = is_deaf = False
    gripper = 1.0

    def reset(self, seed=None) -> None:
        pass

    def act(self, observation) -> ActionChunk:
        light = (
            0 if self.is_blind else np.mean([image.mean() for image in observation.images.values()])
        )
        words = "" if self.is_deaf else observation.instruction
        drawn = np.random.default_rng(list(words.encode())).uniform(-0.03, 0.03, 2)
        action = np.array([0.03 * light / 255, *drawn, 0, 0, 0, self.gripper], np.float32)
        return ActionChunk(actions=np.tile(action, (4, 1)))


def behaviour(policy, trained: Trained = TRAINED, **more) -> dict[str, Finding]:
    cfg = DoctorConfig(policy=PolicyConfig(kind=PolicyKind.CHECKPOINT), looks=3, calls=3, **more)
    with opened(cfg) as (robot, _):
        found = policy_checks.behaviour(cfg, policy, trained, robot)
    return {finding.check: finding for finding in found}


def fit(policy=None, trained: Trained = TRAINED, **changes) -> dict[str, Finding]:
    robot = SeenRobot(is_real=True, limits=PANDA, cameras={"front": (64, 64), "wrist": (64, 64)})
    for name, value in changes.items():
        setattr(robot, name, value)
    found = checks.fit(DoctorConfig(), policy or SeeingPolicy(), trained, robot)
    return {finding.check: finding for finding in found}


def spec(**changes):
    policy = SeeingPolicy()
    policy.action_spec = replace(END_EFFECTOR_DELTA_7D, **changes)
    return policy


# ---- descriptions --------------------------------------------------------------------------------------------------


def test_a_policy_and_the_robot_it_was_trained_on_fit():
    assert {finding.level for finding in fit().values()} == {Level.OK}


def test_a_camera_that_is_missing_forbids_motion_and_is_named():
    finding = fit(cameras={"front": (64, 64)})["camera names"]
    assert finding.level is Level.FORBIDS
    assert "wrist is missing" in finding.seen
    assert "robot.cameras" in finding.advice


@pytest.mark.parametrize(
    ("size", "words"), [((16, 16), "at least 32 x 32"), ((64, 128), "squeezed")]
)
def test_pictures_that_are_too_small_or_too_wide_are_warned_of(size, words):
    finding = fit(cameras={"front": size, "wrist": (64, 64)})["picture sizes"]
    assert finding.level is Level.WARNING
    assert words in finding.advice


def test_another_rate_forbids_motion_and_slow_cameras_are_warned_of():
    assert fit(spec(rate_hz=5.0))["rates"].level is Level.FORBIDS
    finding = fit(camera_hz={"front": 30.0, "wrist": 5.0})["rates"]
    assert finding.level is Level.WARNING
    assert "wrist" in finding.advice


@pytest.mark.parametrize(
    "changes",
    [
        {"units": ("mm",) * 3 + END_EFFECTOR_DELTA_7D.units[3:]},
        {"frame": "camera"},
        {"is_relative": (False,) * 7},
        {"names": tuple("abcdefg")},
    ],
)
def test_another_action_space_forbids_motion(changes):
    assert fit(spec(**changes))["action space"].level is Level.FORBIDS


def test_a_gripper_with_the_other_sign_forbids_motion():
    units = (*END_EFFECTOR_DELTA_7D.units[:-1], "0 open, 1 closed")
    finding = fit(spec(units=units))["gripper's meaning"]
    assert finding.level is Level.FORBIDS
    assert "flip" in finding.advice


def test_proprioception_in_degrees_forbids_motion():
    other = replace(TABLETOP.state_spec, units=("m", "m", "m", "deg", "deg", "deg", "m"))
    assert fit(trained=replace(TRAINED, state_spec=other))["proprioception"].level is Level.FORBIDS


# ---- behaviour -----------------------------------------------------------------------------------------------------


def test_a_policy_that_sees_and_hears_gives_no_cause_for_worry():
    levels = {name: finding.level for name, finding in behaviour(SeeingPolicy()).items()}
    assert set(levels.values()) == {Level.OK}, levels


def test_a_policy_that_does_not_react_to_black_pictures_must_not_move_anything():
    policy = SeeingPolicy()
    policy.is_blind = True
    finding = behaviour(policy)["sees the picture"]
    assert finding.level is Level.FORBIDS
    assert "vision tower" in finding.advice


def test_a_policy_that_does_not_react_to_words_is_warned_of():
    policy = SeeingPolicy()
    policy.is_deaf = True
    assert behaviour(policy)["hears the words"].level is Level.WARNING


def test_an_open_gripper_that_is_told_to_close_at_once_is_warned_of():
    policy = SeeingPolicy()
    policy.gripper = 0.0
    finding = behaviour(policy)["gripper polarity"]
    assert finding.level is Level.WARNING
    assert "sign" in finding.advice


def test_proprioception_far_from_the_training_data_names_the_number():
    far = replace(
        TRAINED, state_low=TRAINED.state_low * 0 + 100.0, state_high=TRAINED.state_high * 0 + 101.0
    )
    finding = behaviour(SeeingPolicy(), far)["units of state"]
    assert finding.level is Level.FORBIDS
    assert "millimetres for metres" in finding.advice


def test_a_first_action_that_is_not_finite_forbids_motion():
    policy = SeeingPolicy()
    policy.gripper = float("nan")
    finding = behaviour(policy)["first action"]
    assert finding.level is Level.FORBIDS
    assert "gripper is not finite" in finding.seen


def test_a_policy_that_is_too_slow_for_the_loop_forbids_motion():
    slow = DoctorConfig().control
    finding = behaviour(SeeingPolicy(), control=replace(slow, max_action_age_ms=1e-4))["latency"]
    assert finding.level is Level.FORBIDS
    assert "control.max_action_age_ms" in finding.advice


def test_a_policy_that_refuses_what_the_robot_shows_is_a_finding():
    class Refusing(SeeingPolicy):
        def act(self, observation) -> ActionChunk:
            raise PolicyError("the proprioception has another shape")

    finding = behaviour(Refusing())["behaviour"]
    assert finding.level is Level.FORBIDS
    assert "another shape" in finding.seen


# ---- the verb ------------------------------------------------------------------------------------------------------


def examine(monkeypatch, policy, tmp_path: Path) -> dict:
    monkeypatch.setattr(build, "build_policy", lambda config: policy)
    cfg = compose("doctor", DoctorConfig, ["policy=random", "looks=2", "calls=2"])
    return command.run(cfg, tmp_path)


def test_the_exit_status_is_0_when_nothing_forbids_motion_and_1_when_something_does(
    monkeypatch, tmp_path, capsys
):
    summary = examine(monkeypatch, SeeingPolicy(), tmp_path)
    assert summary["may_move"]
    assert "exit_code" not in summary
    assert "nothing forbids motion" in capsys.readouterr().out
    summary = examine(monkeypatch, spec(rate_hz=3.0), tmp_path)
    assert (summary["may_move"], summary["exit_code"]) == (False, 1)
    assert "do not let it move yet: rates" in capsys.readouterr().out


def test_an_arm_that_is_not_there_is_a_finding_and_the_rest_is_checked_all_the_same(
    tmp_path, capsys
):
    status = main(
        [
            "doctor",
            "robot=so101",
            "port=/dev/no_such_port",
            "policy=hold",
            f"run_directory={tmp_path}",
        ]
    )
    printed = capsys.readouterr().out
    assert status == 1
    assert "there is no port /dev/no_such_port" in printed
    assert "camera names" in printed


def test_every_finding_that_is_not_in_order_says_what_to_do():
    found = Finding(
        check="rates", level=Level.FORBIDS, seen="5 Hz", expected="10 Hz", advice="train again"
    )
    lines = table([found, replace(found, level=Level.OK)])
    assert lines.splitlines()[0].startswith("FORBIDS")
    assert lines.count("expected: 10 Hz") == 1
    assert "do: train again" in lines


@pytest.mark.parametrize("override", ["looks=0", "policy.ensemble=act"])
def test_settings_that_make_no_sense_are_refused(override):
    from vla.errors import ConfigError

    with pytest.raises(ConfigError):
        compose("doctor", DoctorConfig, [override])
