import numpy as np

from vla.cli.deploy.onlooker import rehearsal_facts, rehearsal_text, watch_text
from vla.cli.main import parse
from vla.control.limits import PANDA
from vla.robots.dry import DryRobot


def test_dry_run_is_a_flag_of_deploy():
    assert parse(["deploy", "--dry-run"]).overrides == ["dry_run=true"]


def test_a_rehearsal_names_the_first_step_and_the_joint_that_would_have_gone_farthest():
    joints = np.zeros((4, 7))
    command = np.zeros((4, 7))
    command[0, 2], command[3, 5] = 0.01, -0.4
    facts = rehearsal_facts(
        {"joints": joints, "command": command, "gripper": np.array([1, 1, 0, 0])}, PANDA
    )
    assert (facts["first_step_joint"], facts["farthest_joint"]) == ("joint3", "joint6")
    assert facts["range_rad"]["joint6"] == [-0.4, 0.0]
    text = rehearsal_text(facts)
    assert "4 commands would have been sent; nothing was" in text
    assert "0.400 rad from where the arm is (joint6)" in text


def test_a_rehearsal_of_no_ticks_says_so():
    nothing = {"joints": np.zeros((0, 7)), "command": np.zeros((0, 7)), "gripper": np.zeros(0)}
    assert (
        rehearsal_text(rehearsal_facts(nothing, PANDA)) == "rehearsal: nothing would have been sent"
    )


def test_what_was_dropped_is_said_and_how_to_train_on_the_rest():
    recorded = {
        "root": "driven",
        "frames": 40,
        "episodes": 2,
        "dropped_frames": 3,
        "short_frames": 1,
        "trouble": [],
    }
    text = watch_text({"recorded": recorded, "frames_without_picture": 2})
    assert "5 frames dropped" in text
    assert "vla train data.roots=[driven]" in text
    assert watch_text({}) == ""


class Arm:
    """Notes what reaches it."""

    limits = PANDA

    def __init__(self) -> None:
        self.heard: list[str] = []

    def __getattr__(self, name: str):
        return lambda *_: self.heard.append(name)


def test_a_dry_robot_is_asked_everything_and_told_nothing():
    arm = Arm()
    dry = DryRobot(arm)  # type: ignore[arg-type]
    dry.begin(None)  # type: ignore[arg-type]
    dry.pass_time(1)
    dry.command(np.zeros(8))
    dry.hold()
    dry.close()
    assert arm.heard == ["begin", "pass_time", "close"]
    assert dry.num_commands == 1


def test_a_joint_that_leans_on_its_stop_counts_as_inside_its_range():
    from vla.control.robot import JointState

    beyond = np.asarray(PANDA.high) + 0.01

    class Leaning(Arm):
        def read(self, now_s: float) -> JointState:
            return JointState(joints=beyond, velocity=np.zeros(7), gripper=1.0, measured_at_s=now_s)

    np.testing.assert_array_equal(DryRobot(Leaning()).read(0.0).joints, PANDA.high)  # type: ignore[arg-type]
