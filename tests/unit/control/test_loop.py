import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vla.control.board import Word
from vla.control.limits import PANDA
from vla.control.log import Mode
from vla.control.messages import chunk_fields
from vla.control.safety import AfterPolicyLoss, SafetyConfig
from vla.control.verify import verify


def delta(dx=0.0, dy=0.0, dz=0.0, gripper=1.0):
    return [dx, dy, dz, 0.0, 0.0, 0.0, gripper]


def violations(bench):
    return verify(bench.log.rows(), PANDA, bench.config.period_s)


def test_before_the_first_chunk_the_arm_stands_and_every_tick_shows_a_snapshot(bench):
    start = bench.arm.joints.copy()
    bench.tick(5)
    assert bench.modes == [Mode.START] * 5
    assert bench.snapshot.sequence == 5
    np.testing.assert_array_equal(bench.arm.joints, start)


def test_an_action_moves_the_tool_by_its_delta(bench):
    bench.tick()
    start = bench.tool
    bench.send(delta(dx=0.002, dz=-0.003))
    bench.tick(22)
    np.testing.assert_allclose(bench.tool - start, [0.002, 0.0, -0.003], atol=5e-5)
    assert violations(bench).count == 0


def test_the_gripper_takes_its_new_value_at_once_and_keeps_it(bench):
    bench.tick()
    bench.send([delta(gripper=0.0), delta(gripper=0.0)])
    bench.tick(30)
    assert [command[-1] for command in bench.arm.commands[1:]] == [0.0] * 30


def test_consecutive_actions_of_a_chunk_join_without_stopping(bench):
    bench.tick()
    bench.send([delta(dx=0.01)] * 2)
    bench.tick(12)
    speed = np.abs(np.diff(np.array(bench.arm.commands)[:, :-1], axis=0)).max(axis=1)
    assert speed[9] > 0.5 * speed.max()


def test_a_fresh_chunk_replaces_the_old_one_at_the_next_action_and_drops_what_is_late(bench):
    bench.tick()
    bench.send([delta(dx=0.01)] * 4)
    bench.tick(5)  # action 0 has begun at the first of these; the snapshot is of that instant
    bench.send([delta(dy=0.01), delta(dy=0.02), delta(dy=0.03)])
    bench.tick(8)
    rows = bench.log.rows()
    assert rows["index_in_chunk"][-1] == 1
    assert rows["consumed"][-1] == 2


def test_deltas_count_from_where_the_tool_was_when_the_policy_saw_it(bench):
    bench.tick()
    start = bench.tool
    bench.send([delta(dx=0.003), delta(dx=0.003)])
    bench.tick(5)
    bench.send(
        [delta(dx=0.001), delta(dy=0.003)]
    )  # seen at `start`: it leads 1 mm along x and 3 mm along y
    bench.tick(30)
    np.testing.assert_allclose(bench.tool - start, [0.001, 0.003, 0.0], atol=1e-4)


def test_when_the_policy_is_silent_the_arm_comes_to_rest_and_says_why(bench):
    bench.tick()
    bench.send([delta(dx=0.02)] * 8)
    bench.tick(120)
    assert bench.modes[-1] is Mode.HOLD
    assert set(bench.log.holds_by_check) == {"policy_late"}
    assert "limit 150 ms" in bench.log.holds[-1].message
    assert bench.loop.safety.is_at_rest
    assert violations(bench).count == 0


def test_no_action_begins_on_an_observation_older_than_the_limit(bench):
    bench.tick()
    bench.send([delta(dx=0.01)] * 8)
    bench.tick(60)
    rows = bench.log.rows()
    began = np.diff(rows["consumed"], prepend=0) > 0
    assert rows["action_age_s"][began].max() <= 0.15 + 1e-9
    assert rows["mode"][-1] == Mode.HOLD


def test_after_a_silence_a_fresh_chunk_goes_on_at_once(bench):
    bench.tick()
    bench.send([delta(dx=0.01)] * 8)
    bench.tick(200)
    assert bench.modes[-1] is Mode.HOLD
    bench.send([delta(dy=0.01)] * 8)
    bench.tick(2)
    assert bench.modes[-1] is Mode.MOVE
    assert bench.log.num_holds == 1


def test_an_answer_to_an_old_snapshot_is_not_carried_out(bench):
    bench.tick()
    bench.send(delta(dx=0.02))
    bench.tick(1)
    old = bench.snapshot
    bench.tick(100)
    bench.snapshot = old
    bench.send([delta(dx=0.02)] * 8)
    bench.tick(5)
    assert bench.modes[-5:] == [Mode.HOLD] * 5


def test_a_chunk_of_another_episode_is_ignored(bench):
    bench.tick()
    foreign = {**chunk_fields(bench.snapshot, np.zeros((1, 7))), "episode": 7}
    bench.links.chunks.publish(**foreign)
    bench.tick(3)
    assert bench.modes == [Mode.START] * 4


def test_an_answer_from_before_a_new_scene_of_the_same_number_is_not_carried_out(bench):
    bench.tick()
    bench.send([delta(dx=0.01)] * 8)
    bench.tick(12)
    old = bench.snapshot
    bench.begin_episode(0)  # a policy's side that was started anew counts from 0
    bench.tick()
    bench.snapshot = old
    bench.send([delta(dx=0.01)] * 8)
    bench.tick(3)
    assert bench.modes[-3:] == [Mode.START] * 3


def test_the_end_of_an_episode_lets_the_arm_rest_without_counting_a_hold(bench):
    bench.tick()
    bench.send([delta(dx=0.02)] * 8)
    bench.tick(8)
    bench.send(np.zeros((0, 7)))
    bench.tick(100)
    assert bench.modes[-1] is Mode.START
    assert bench.log.num_holds == 0
    assert bench.loop.safety.is_at_rest


def test_a_new_scene_starts_a_new_segment_at_rest(bench):
    bench.tick()
    bench.send([delta(dx=0.03)] * 8)
    bench.tick(9)
    bench.begin_episode(1)
    bench.tick(3)
    rows = bench.log.rows()
    assert rows["episode"][-1] == 1
    assert rows["segment"][-1] == rows["segment"][0] + 1
    assert bench.modes[-1] is Mode.START
    assert violations(bench).count == 0


def test_a_refused_chunk_is_named_when_it_leads_to_a_hold(bench):
    bench.tick()
    bench.send([delta(dx=float("nan"))])
    bench.tick(30)
    assert bench.log.holds[-1].check == "command_refused"
    assert "dx = nan m" in bench.log.holds[-1].message


def test_a_goal_outside_the_workspace_is_clamped_to_its_edge(bench):
    for _ in range(40):
        bench.tick(12)
        bench.send(delta(dz=-0.04))
    assert bench.tool[2] == pytest.approx(0.012, abs=1e-3)
    assert bench.loop.safety.counts.workspace_clamps > 0
    assert bench.log.num_holds == 0


def test_the_emergency_stop_holds_until_it_is_reset(bench):
    bench.tick()
    bench.send([delta(dx=0.03)] * 8)
    bench.tick(5)
    bench.links.board[Word.EMERGENCY_STOP] = 1
    bench.tick(2)
    assert bench.modes[-1] is Mode.HOLD
    bench.send([delta(dx=0.03)] * 8)
    bench.tick(50)
    assert bench.modes[-1] is Mode.HOLD
    assert bench.log.holds[-1].check == "emergency_stop"
    bench.links.board[Word.EMERGENCY_RESET] = 1
    bench.send([delta(dx=0.01)] * 8)
    bench.tick(3)
    assert bench.modes[-1] is Mode.MOVE


def test_the_arm_is_held_when_the_policy_process_has_ended(bench):
    bench.tick()
    bench.send([delta(dx=0.03)] * 8)
    bench.tick(5)
    bench.links.board[Word.POLICY_ALIVE] = 0
    bench.tick(1)
    assert bench.log.holds[-1].check == "policy_ended"


def test_a_flood_of_old_chunks_does_not_keep_the_arm_moving(bench):
    bench.tick()
    bench.send([delta(dx=0.01)] * 8)
    bench.tick(3)
    old = bench.snapshot
    for _ in range(40):
        bench.snapshot = old
        for _ in range(50):
            bench.send([delta(dx=0.01)] * 8)
        bench.tick()
    rows = bench.log.rows()
    began = np.diff(rows["consumed"], prepend=0) > 0
    assert rows["action_age_s"][began].max() <= 0.15 + 1e-9
    held = int(np.argmax(rows["mode"] == Mode.HOLD))
    assert (rows["mode"][held:] == Mode.HOLD).all()
    # at the latest when an action that began just in time has ended
    assert rows["time_s"][held] - rows["time_s"][1] <= 0.15 + 0.1 + 0.05


def test_a_policy_that_was_late_is_refused_until_a_reset_where_it_is_so_configured(make_bench):
    bench = make_bench(safety=SafetyConfig(after_policy_loss=AfterPolicyLoss.REFUSE))
    bench.tick()
    bench.send([delta(dx=0.01)] * 8)
    bench.tick(120)
    assert bench.modes[-1] is Mode.HOLD
    bench.send([delta(dy=0.01)] * 8)
    bench.tick(30)
    assert bench.modes[-1] is Mode.HOLD
    assert set(bench.log.holds_by_check) == {"policy_late"}
    bench.links.board[Word.EMERGENCY_RESET] = 1
    bench.tick(50)  # nothing has come yet: held because it is late, but not refused again
    assert "held until" not in bench.log.holds[-1].message
    bench.send([delta(dy=0.01)] * 8)
    bench.tick(3)
    assert bench.modes[-1] is Mode.MOVE
    bench.tick(120)
    assert "held until" in bench.log.holds[-1].message


def test_before_its_first_action_a_slow_policy_is_not_refused(make_bench):
    bench = make_bench(safety=SafetyConfig(after_policy_loss=AfterPolicyLoss.REFUSE))
    bench.tick(60)
    bench.send([delta(dx=0.01)] * 8)
    bench.tick(3)
    assert bench.modes[-1] is Mode.MOVE


def test_a_trajectory_that_jumps_is_refused_held_and_named(bench, monkeypatch):
    bench.tick()
    bench.send([delta(dx=0.02)] * 8)
    bench.tick(5)
    trajectory = bench.loop._trajectory
    monkeypatch.setattr(trajectory, "advance", lambda _: np.full(7, 1e9))
    bench.tick(1)
    assert bench.modes[-1] is Mode.HOLD
    assert bench.log.holds[-1].check == "position"
    assert "1e+09 rad, was refused" in bench.log.holds[-1].message
    monkeypatch.undo()
    bench.tick(60)
    assert violations(bench).count == 0


def test_a_check_that_is_turned_off_in_the_settings_does_not_hold_the_arm(make_bench):
    bench = make_bench(disabled_checks=["tracking_error"])
    bench.tick()
    bench.send([delta(dx=0.01)] * 8)
    bench.tick(3)
    bench.arm.offset[1] = 0.2
    bench.tick(1)
    assert bench.modes[-1] is Mode.MOVE


def test_a_blocked_joint_holds_the_arm_and_names_the_joint(bench):
    bench.tick()
    bench.send([delta(dx=0.01)] * 8)
    bench.tick(3)
    bench.arm.offset[1] = 0.2
    bench.tick(1)
    assert bench.log.holds[-1].check == "tracking_error"
    assert bench.log.holds[-1].message.startswith("joint2 is 0.2")


def test_a_measurement_that_is_not_finite_holds_the_arm(bench):
    bench.tick()
    bench.send([delta(dx=0.03)] * 8)
    bench.tick(6)
    bench.arm.offset[:] = np.nan
    bench.tick(150)
    assert bench.log.holds[-1].check == "state_invalid"
    assert np.isfinite(bench.arm.commands[-1]).all()
    assert bench.loop.safety.is_at_rest


def test_after_missed_deadlines_the_arm_goes_on_from_rest(bench):
    bench.tick()
    bench.send([delta(dx=0.03)] * 8)
    bench.tick(6)
    bench.tick(1, skipped=4)
    rows = bench.log.rows()
    assert rows["segment"][-1] == rows["segment"][-2] + 1
    assert violations(bench).count == 0


def test_a_run_ends_after_its_time_with_the_arm_at_rest(bench):
    bench.tick()
    bench.send([delta(dx=0.04)] * 8)
    bench.loop.run(0.1, lambda: False)
    assert bench.arm.is_held
    assert bench.loop.safety.is_at_rest
    assert violations(bench).count == 0


def test_a_run_ends_early_when_it_is_asked_to(bench):
    bench.links.board[Word.STOP] = 1
    bench.loop.run(1000.0, lambda: False)
    assert bench.log.num_ticks <= 2


numbers = st.one_of(st.floats(-0.05, 0.05), st.floats(width=32))
chunks = st.lists(st.lists(numbers, min_size=7, max_size=7), min_size=1, max_size=4)
steps = st.tuples(st.one_of(st.none(), chunks), st.integers(1, 30), st.integers(0, 3))


@settings(deadline=None, max_examples=15)
@given(script=st.lists(steps, min_size=1, max_size=8))
def test_whatever_the_policy_sends_no_command_leaves_the_limits(make_bench, script):
    bench = make_bench()
    bench.tick()
    for chunk, ticks, skipped in script:
        if chunk is not None:
            bench.send(chunk)
        bench.tick(1, skipped=skipped)
        bench.tick(ticks)
    found = violations(bench)
    assert found.count == 0, found.first
    assert np.isfinite(np.array(bench.arm.commands)).all()
