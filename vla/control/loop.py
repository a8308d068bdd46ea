"""The control loop: one tick per servo period, and nothing in a tick waits for anybody."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from vla.control.board import Word
from vla.control.checks import Breach, Check
from vla.control.clock import Clock, Deadlines, Tick
from vla.control.config import ControlConfig
from vla.control.kinematics import ArmKinematics
from vla.control.limits import Workspace
from vla.control.log import Mode, TickLog
from vla.control.messages import Links, question_fields
from vla.control.robot import JointRobot, JointState
from vla.control.rotation import Pose, Vector
from vla.control.safety import Safety
from vla.control.schedule import (
    Capture,
    ChunkScheduler,
    NoAction,
    ScheduledAction,
    SchedulerSettings,
    TimedChunk,
)
from vla.control.schedulers import make_scheduler
from vla.control.trajectory import JointTrajectory, goal_of, held, leashed
from vla.types import END_EFFECTOR_DELTA_7D

_MAX_CAPTURES = 512  # snapshots whose answer may still come; a second at the highest servo rate
_LONGEST_STOP_S = 2.0  # every arm in the tables comes to rest within this from full speed


class ControlLoop:
    """Turns end-effector deltas into joint commands at servo rate, through the safety layer and into the robot.

    In each tick: let the robot's time pass, measure, take what has arrived, check, begin the next action when
    it is due, show the policy's side a snapshot when one begins or none is in progress, and command what the
    limiter makes of the trajectory. The same object runs in the control process on a real clock and in a test
    on a simulated one, tick for tick.
    """

    def __init__(
        self,
        *,
        robot: JointRobot,
        config: ControlConfig,
        scheduler: ChunkScheduler,
        workspace: Workspace,
        links: Links,
        clock: Clock,
        log: TickLog,
    ) -> None:
        self._spec = END_EFFECTOR_DELTA_7D
        period_s, max_age_s = config.period_s, 1e-3 * config.max_action_age_ms
        self._robot, self._config, self._links = robot, config, links
        self._clock, self._log = clock, log
        # An action goes on for one action period after it began; two ticks are for the grid they fall on.
        running_age_s = max_age_s + self._spec.dt_s + 2 * period_s
        self.safety = Safety(
            config.safety, robot.limits, workspace, period_s, running_age_s, config.checks_off
        )
        self._scheduler = scheduler
        self._trajectory = JointTrajectory(robot.limits, self._spec.dt_s)
        self._kinematics: ArmKinematics | None = None
        self._action: ScheduledAction | None = None  # in progress
        self._is_moving = False  # the trajectory is being followed
        self._captures: dict[int, Capture] = {}  # by sequence number of the snapshot
        self._is_over = False  # the episode has ended on the policy's side
        self._is_finishing = False  # the run has ended; the arm comes to rest
        self._has_acted = False  # in this episode
        self._can_lose_policy = False  # it has acted in this episode, and since the last reset
        self._refusal: Breach | None = None  # of the newest chunk
        self._episode, self._segment = -1, -1
        self._segment_start = self.safety.limiter.joints
        self._tool, self._gripper = Pose(np.zeros(3), np.eye(3)), 1.0  # of the last command
        self._goal: Vector = np.full(3, np.nan)  # of the tool, m
        self._answered_stops = self._answered_resets = 0.0

    def run(
        self,
        seconds: float,
        is_abandoned: Callable[[], bool],
        after_tick: Callable[[], None] | None = None,
    ) -> None:
        """Runs ticks for `seconds`, until the board says stop, or until `is_abandoned()`; then brings the arm to rest.

        `after_tick` is for a simulated clock, where whatever else happens must happen between ticks.
        """
        deadlines = Deadlines(self._clock, self._config.period_s)
        num_ticks = last = round(seconds * self._config.servo_hz)
        self._scheduler.reset(self._clock.now())
        try:
            while True:
                tick = deadlines.wait()
                is_asked_to_stop = bool(self._links.board[Word.STOP]) or is_abandoned()
                if not self._is_finishing and (tick.index >= num_ticks or is_asked_to_stop):
                    self._is_finishing = True
                    last = tick.index + round(_LONGEST_STOP_S * self._config.servo_hz)
                if self._is_finishing and (self.safety.is_at_rest or tick.index >= last):
                    break
                self.tick(tick)
                if after_tick is not None:
                    after_tick()
        finally:
            self._robot.hold()

    def warm_up(self) -> None:
        """Calculates once what an action needs, before deadlines count: linear algebra allocates on its first call."""
        joints = self.safety.limiter.joints
        self._arm.solve(joints + 0.01, leashed(self._tool, self._tool, 0.0, 0.0))
        self._trajectory.begin(joints, np.zeros_like(joints), joints, None)

    def take_scene(self) -> bool:
        """Begins a new episode when the policy's side has published one; returns whether it did."""
        message = self._links.scenes.read_new()
        if message is None:
            return False
        self._episode = message.integer("episode")
        # a policy's side that was started anew counts from 0 again: its number may be that of the last episode
        self._captures.clear()
        self._kinematics = self._robot.begin(message)
        state = self._robot.read(self._clock.now())
        self.safety.restart(state)
        self._begin_segment()
        self._scheduler.reset(self._clock.now())
        self._tool, self._gripper = self._kinematics.pose(state.joints), state.gripper
        self._refusal = None
        self._release()
        self._is_over = self._has_acted = self._can_lose_policy = False
        return True

    def tick(self, tick: Tick) -> None:
        """Does one servo period's work."""
        now_s = tick.deadline_s + tick.lateness_s
        if not self.take_scene():
            self._robot.pass_time(1 + tick.skipped)
        if tick.skipped:  # the arm stood on its last command meanwhile: go on from rest
            self.safety.limiter.reset(self.safety.limiter.joints)
            self._begin_segment()
        self.safety.count_lateness(
            is_overrun=tick.lateness_s > self._config.period_s or tick.skipped > 0
        )
        state = self._robot.read(now_s)
        self._take_chunk(now_s)
        self._answer_board()
        mode, began = self._decide(state, now_s)
        if began or self._action is None:
            self._show(state, now_s, began)
        mode, command = self._command(mode, state, now_s)
        self._write_log(tick, now_s, mode, state, command)

    # ---- what arrives ----------------------------------------------------------------------------------------------

    def _take_chunk(self, now_s: float) -> None:
        message = self._links.chunks.read_new()
        if message is None or message.integer("episode") != self._episode:
            return
        steps = message.integer("steps")
        if steps == 0:
            self._is_over = True
            return
        admitted = self.safety.admit(message["actions"][:steps], self._spec)
        self._refusal = admitted if isinstance(admitted, Breach) else None
        capture = self._captures.get(message.integer("snapshot"))
        if capture is not None and not isinstance(admitted, Breach):
            self._scheduler.offer(
                TimedChunk(sequence=message.sequence, capture=capture, actions=admitted), now_s
            )

    def _answer_board(self) -> None:
        board = self._links.board
        stops, resets = board[Word.EMERGENCY_STOP], board[Word.EMERGENCY_RESET]
        if stops > self._answered_stops:
            self.safety.emergency_stop("the emergency stop was pressed; it stays until it is reset")
        elif resets > self._answered_resets:
            self.safety.reset_emergency_stop()
            self._can_lose_policy = False
        self._answered_stops, self._answered_resets = stops, resets

    # ---- what to do ------------------------------------------------------------------------------------------------

    def _decide(self, state: JointState, now_s: float) -> tuple[Mode, bool]:
        """Returns what this tick does, and whether an action begins with it."""
        if self._is_over or self._is_finishing:
            self._release()
            self._log.no_hold()
            return Mode.START, False
        captured_at_s = self._action.chunk.capture.captured_at_s if self._action else None
        is_policy_alive = bool(self._links.board[Word.POLICY_ALIVE])
        breach = self.safety.check(state, self._tool, now_s, captured_at_s, is_policy_alive)
        mode, began = Mode.MOVE, False
        if breach is None and (self._action is None or self._trajectory.has_ended):
            scheduled = self._scheduler.next_action(now_s)
            if isinstance(scheduled, NoAction):
                self._action, mode = None, Mode.WAIT if self._has_acted else Mode.START
                breach = self._late(scheduled)
            else:
                self._begin(scheduled)
                began = True
        if breach is None:
            self._log.no_hold()
            return mode, began
        return self._hold(breach, now_s), False

    def _hold(self, breach: Breach, now_s: float) -> Mode:
        self._log.hold(breach.check, breach.message, now_s)
        if self._can_lose_policy:
            self.safety.lose_policy(breach)
        self._release()
        return Mode.HOLD

    def _late(self, absent: NoAction) -> Breach | None:
        if not absent.is_overdue:
            return None
        return self._refusal or Breach(Check.POLICY_LATE, absent.reason)

    def _begin(self, scheduled: ScheduledAction) -> None:
        """Plans the way to the action's goal.

        Deltas count from where the tool was told to be when the observation was captured: that is where the policy saw
        it, however long the answer took and whatever was carried out meanwhile.
        """
        actions = scheduled.chunk.actions[: scheduled.index + 1]
        goal = self.safety.clamp_to_workspace(goal_of(scheduled.chunk.capture.tool, actions))
        limiter = self.safety.limiter
        joints = self._arm.solve(limiter.joints, goal)
        following = None
        if scheduled.following is not None:
            beyond = self.safety.clamp_to_workspace(goal_of(goal, [scheduled.following]))
            following = self._arm.solve(joints, beyond)
        self._trajectory.begin(limiter.joints, limiter.velocity, joints, following)
        self._goal, self._gripper = goal.position, held(self._gripper, float(actions[-1][6]))
        self._action, self._is_moving, self._has_acted = scheduled, True, True
        self._can_lose_policy = True

    def _release(self) -> None:
        """Lets go of the motion in progress."""
        self._action, self._is_moving = None, False

    # ---- what goes out ---------------------------------------------------------------------------------------------

    def _command(self, mode: Mode, state: JointState, now_s: float) -> tuple[Mode, Vector]:
        """Sends this tick's command; returns its joints (joints,) rad, and HOLD when its target was refused."""
        if self._is_moving:  # MOVE, or WAIT at the end of the last action
            joints = self.safety.follow(self._trajectory.advance(self._config.period_s)).joints
            if self.safety.refused is not None:
                mode = self._hold(self.safety.refused, now_s)
        elif mode is Mode.HOLD:
            joints = self.safety.give_way(state).joints
        else:
            joints = self.safety.brake().joints
        self._tool = self._arm.pose(joints)
        self._robot.command(np.append(joints, self.safety.grip(self._gripper)))
        return mode, joints

    def _show(self, state: JointState, now_s: float, began: bool) -> None:
        """Publishes what the policy's side needs for its next answer, and remembers where the tool was."""
        tool = leashed(
            self._tool, self._arm.pose(state.joints), self._config.leash_m, self._config.leash_rad
        )
        base = self._scheduler.consumed - int(began)
        sequence = self._links.snapshots.publish(
            episode=self._episode,
            captured_at_s=now_s,
            is_waiting=not began,
            **question_fields(self._scheduler, base),
            **self._robot.snapshot(),
        )
        self._captures[sequence] = Capture(base=base, captured_at_s=now_s, tool=tool)
        self._captures.pop(sequence - _MAX_CAPTURES, None)

    def _write_log(
        self, tick: Tick, now_s: float, mode: Mode, state: JointState, command: Vector
    ) -> None:
        action = self._action
        self._links.board[Word.CONTROL_TICK] = tick.index
        self._log.add(
            index=tick.index,
            time_s=now_s,
            lateness_s=tick.lateness_s,
            skipped=tick.skipped,
            work_s=self._clock.now() - now_s,
            mode=mode,
            segment=self._segment,
            episode=self._episode,
            consumed=self._scheduler.consumed,
            joints=state.joints,
            velocity=state.velocity,
            command=command,
            start=self._segment_start,
            goal=self._goal,
            tool=self._tool.position,
            gripper=self._gripper,
            action=action.action if action else np.nan,
            chunk=action.chunk.sequence if action else -1,
            index_in_chunk=action.index if action else -1,
            action_age_s=now_s - action.chunk.capture.captured_at_s if action else np.nan,
        )

    def _begin_segment(self) -> None:
        self._segment += 1
        self._segment_start = self.safety.limiter.joints

    @property
    def _arm(self) -> ArmKinematics:
        assert self._kinematics is not None, "tick() before the first scene"
        return self._kinematics


def build_scheduler(config: ControlConfig, execute_steps: int = 0) -> ChunkScheduler:
    """Returns the scheduler that `config` names; `execute_steps` limits the actions used of one chunk (0 = all)."""
    settings = SchedulerSettings(
        max_age_s=1e-3 * config.max_action_age_ms,
        execute_steps=execute_steps,
        gripper_pause=config.gripper_pause,
        ensemble_decay=config.ensemble_decay,
    )
    return make_scheduler(config.schedule, settings)
