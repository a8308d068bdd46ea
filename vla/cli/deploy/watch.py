"""The process that looks on while an arm is driven: it feeds the live page, the dataset and the rerun recording.

It only reads shared memory. When it is too slow something is dropped and counted; when it fails the drive goes on.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from dataclasses import asdict
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, cast

import numpy as np
from PIL import Image

from policies.config import PolicyKind
from vla.cli.deploy.command import DeployConfig
from vla.cli.deploy.eyes import ArmEyes, Eyes, TabletopEyes
from vla.control.board import Word
from vla.control.channel import Message
from vla.control.limits import joint_limits
from vla.control.messages import SharedLinks
from vla.control.observer import BegunAction, DriveObserver
from vla.robots.config import RobotKind
from vla.robots.driver import ArmLinks
from vla.types import END_EFFECTOR_DELTA_7D, TABLETOP, ImageArray, Observation

_POLL_S = 0.004
_SETTLED_S = 0.5  # without a tick for this long after the end, the arm is at rest
_LONGEST_END_S = 5.0
_LONGEST_MATCH_S = 0.3  # an action whose picture has not come by then has none
_JPEG_QUALITY = 80
_NICENESS = 10  # as the policy: with less it would miss pictures on a busy machine


class Watcher:
    """Sees a drive, and passes it on to whoever wants it."""

    def __init__(self, cfg: DeployConfig, shared: SharedLinks) -> None:
        """Opens what was asked for; raises ConfigError or DatasetError when something cannot be."""
        assert shared.feed is not None, "nobody is to look on"
        self._cfg, self._links = cfg, shared.links
        limits = joint_limits(cfg.robot.arm)
        period_s = cfg.control.period_s
        self.observer = DriveObserver(
            self._links, shared.feed.feed, limits, END_EFFECTOR_DELTA_7D, period_s
        )
        is_real = cfg.robot.kind is RobotKind.LEROBOT
        arm_eyes = ArmEyes(cfg, cast("ArmLinks", shared)) if is_real else None
        self._wants_frames = bool(cfg.record or cfg.rerun)
        self._page_eyes: Eyes | None = None
        self._frame_eyes: Eyes | None = None
        if cfg.view:
            self._page_eyes = arm_eyes or TabletopEyes(cfg, cfg.page.image_size)
        if self._wants_frames:
            self._frame_eyes = arm_eyes or TabletopEyes(cfg, cfg.env.image_size)
        self._recorder = _open_recorder(cfg, self._frame_eyes)
        self._rerun = _open_rerun(cfg)
        self._page = _open_page(cfg)
        self._episode = -1
        self._instruction = ""
        self._seen: dict[float, Observation] = {}  # by the instant at which an action began
        self._unmatched: list[BegunAction] = []
        self._shown_at_s = self._pictured_at_s = float("-inf")
        self._hold_shown = ""
        self.num_frames_without_picture = 0

    @property
    def url(self) -> str:
        """Where the live page is; empty where there is none."""
        return self._page.url if self._page is not None else ""

    def run(self, is_abandoned: Callable[[], bool]) -> None:
        """Looks on until the drive has ended and the arm is at rest."""
        stopped_at_s = last_tick_s = time.monotonic()
        while not is_abandoned():
            now_s = time.monotonic()
            if self.step(now_s):
                last_tick_s = now_s
            if not self._links.board[Word.STOP]:
                stopped_at_s = now_s
            elif (
                now_s - max(stopped_at_s, last_tick_s) > _SETTLED_S
                or now_s - stopped_at_s > _LONGEST_END_S
            ):
                return
            time.sleep(_POLL_S)

    def step(self, now_s: float) -> bool:
        """Takes what is new and passes it on; returns whether there were new ticks."""
        while (snapshot := self._links.snapshots.read_next()) is not None:
            self._take_snapshot(snapshot, now_s)
        before_s = self.observer.seconds_since(0.0)
        self._unmatched += self.observer.poll()
        self._match()
        if self._page is not None and now_s - self._shown_at_s >= 1 / self._cfg.page.updates_per_s:
            self._shown_at_s = now_s
            if self._page.has_browsers:
                self._page.show_state(self.page_state())
        return self.observer.seconds_since(0.0) != before_s

    def close(self) -> dict[str, Any]:
        """Ends the recordings and the page; returns what was kept and what was dropped."""
        facts: dict[str, Any] = {"lost_ticks": self.observer.num_lost_ticks}
        if self._wants_frames:
            facts["frames_without_picture"] = self.num_frames_without_picture + len(self._unmatched)
        if self._recorder is not None:
            self._end_episode()
            facts["recorded"] = {"root": self._cfg.record, **asdict(self._recorder.close())}
        if self._rerun is not None:
            facts["rerun"] = {"path": self._cfg.rerun, **self._rerun.close()}
        if self._page is not None:
            self._page.show_state({**self.page_state(), "has_ended": True})
            self._page.stop()
            facts["page"] = asdict(self._page.counts)
        for eyes in {
            id(eyes): eyes for eyes in (self._page_eyes, self._frame_eyes) if eyes
        }.values():
            eyes.close()
        return facts

    def page_state(self) -> dict[str, Any]:
        """Returns what the page shows, apart from pictures."""
        return {
            **self.observer.state(),
            "instruction": self._instruction,
            "action_names": list(END_EFFECTOR_DELTA_7D.names),
            "is_dry_run": self._cfg.dry_run,
            "facts": self._fact_lines(),
        }

    # ---- what is new -----------------------------------------------------------------------------------------------

    def _take_snapshot(self, snapshot: Message, now_s: float) -> None:
        if snapshot.integer("episode") != self._episode:
            self._begin_episode(snapshot.integer("episode"))
        began = not snapshot.integer("is_waiting")
        observation = None
        if self._frame_eyes is not None and began:
            observation = self._frame_eyes.look(snapshot)
            if observation is not None:
                self._seen[observation.captured_at_s] = observation
        due_s = self._pictured_at_s + 1 / self._cfg.page.updates_per_s
        if self._page_eyes is not None and now_s >= due_s:
            self._pictured_at_s = now_s
            self._show_pictures(snapshot)
        elif observation is not None:
            self.observer.note_state(observation.captured_at_s, observation.state)

    def _show_pictures(self, snapshot: Message) -> None:
        assert self._page_eyes is not None
        assert self._page is not None
        if not self._page.has_browsers:
            return
        observation = self._page_eyes.look(snapshot)
        if observation is None:
            return
        self.observer.note_state(observation.captured_at_s, observation.state)
        for name, image in observation.images.items():
            self._page.show_picture(name, _jpeg(image))

    def _begin_episode(self, episode: int) -> None:
        self._end_episode()
        self._episode = episode
        for eyes in (self._page_eyes, self._frame_eyes):
            if eyes is not None:
                self._instruction = eyes.begin(episode)
        if self._recorder is not None:
            seed = self._cfg.seed + episode
            self._recorder.begin(self._instruction, {"scene": seed, "seed": seed})

    def _end_episode(self) -> None:
        if self._recorder is not None and self._episode >= 0:
            self._match()
            assert self._frame_eyes is not None
            self._recorder.end(self._frame_eyes.outcome())

    # ---- frames ----------------------------------------------------------------------------------------------------

    def _match(self) -> None:
        """Brings actions together with what was seen when they began."""
        if not self._wants_frames:
            self._unmatched.clear()
            return
        waiting: list[BegunAction] = []
        for begun in self._unmatched:
            observation = self._seen.pop(begun.time_s, None)
            if observation is not None:
                if begun.episode == self._episode:
                    self._keep(observation, begun)
            elif self.observer.seconds_since(begun.time_s) < _LONGEST_MATCH_S:
                waiting.append(begun)
            else:
                self.num_frames_without_picture += 1
        self._unmatched = waiting
        while len(self._seen) > 8:
            self._seen.pop(next(iter(self._seen)))

    def _keep(self, observation: Observation, begun: BegunAction) -> None:
        state = np.asarray(observation.state, np.float32)
        if self._recorder is not None:
            self._recorder.add(observation.images, state, begun.action, begun.time_s)
        if self._rerun is not None:
            for name, image in observation.images.items():
                self._rerun.picture(name, _jpeg(image), begun.time_s)
            self._rerun.vector("state", state, begun.time_s)
            self._rerun.vector("action", begun.action, begun.time_s)
            self._rerun.text("instruction", observation.instruction, begun.time_s)
            self._log_state(begun.time_s)

    def _log_state(self, time_s: float) -> None:
        """Adds lateness, certainty and holds to the rerun recording."""
        assert self._rerun is not None
        state = self.observer.state()
        late = np.array([state["deadlines"]["p50_ms"], state["deadlines"]["p99_ms"]], np.float32)
        self._rerun.vector("lateness_ms", late, time_s)
        bits = state["chunks"][-1]["bits"] if state["chunks"] else None
        if bits is not None:
            self._rerun.vector("bin_entropy_bits", np.mean(bits, axis=0).astype(np.float32), time_s)
        hold = state["holds"]["last"]
        if hold is not None and hold["message"] != self._hold_shown:
            self._hold_shown = hold["message"]
            self._rerun.text("hold", f"{hold['check']}: {hold['message']}", time_s)

    def _fact_lines(self) -> list[list[str]]:
        cfg = self._cfg
        policy = (
            cfg.policy.path if cfg.policy.kind is PolicyKind.CHECKPOINT else cfg.policy.kind.value
        )
        lines = [
            ["robot", f"{cfg.robot.kind.value}, {cfg.robot.arm}"],
            ["policy", Path(policy).name],
        ]
        if self._recorder is not None:
            counts = self._recorder.counts
            lines += [
                ["recorded to", cfg.record],
                ["frames on disk", f"{counts.frames} in {counts.episodes} episodes"],
                ["frames dropped", f"{counts.dropped_frames + self.num_frames_without_picture}"],
            ]
            lines += [["recording", trouble] for trouble in counts.trouble[-1:]]
        if self._rerun is not None:
            lines.append(
                ["rerun", f"{self._rerun.num_logged} entries, {self._rerun.num_dropped} dropped"]
            )
        if self._page is not None:
            lines.append(["page updates dropped", f"{self._page.counts.dropped}"])
        lines.append(["ticks not seen", f"{self.observer.num_lost_ticks}"])
        return lines


def watch_main(cfg: DeployConfig, shared: SharedLinks, pipe: Connection, directory: Path) -> None:
    """The onlooker's process: the least urgent of the drive."""
    from vla.cli.deploy.workers import parent_is_gone, reporting, tell
    from vla.control.realtime import be_nice, split_cores

    del directory
    with reporting(pipe):
        is_abandoned = parent_is_gone()
        _, cores = split_cores()
        be_nice(_NICENESS, cores if cfg.control.realtime.pin_cores else None)
        watcher = Watcher(cfg, shared)
        if watcher.url:
            tell(pipe, "info", f"live page: {watcher.url}")
        tell(pipe, "granted", "")
        watcher.run(is_abandoned)
        tell(pipe, "facts", watcher.close())


def _open_recorder(cfg: DeployConfig, eyes: Eyes | None) -> Any:
    if not cfg.record:
        return None
    from vla.data.drive_record import DriveRecorder, drive_layout

    assert eyes is not None
    name = TABLETOP.name if cfg.robot.kind is RobotKind.SIM else cfg.robot.arm
    layout = drive_layout(TABLETOP, eyes.cameras, name)
    return DriveRecorder(Path(cfg.record), layout, {"recorded_by": "vla deploy", "robot": name})


def _open_rerun(cfg: DeployConfig) -> Any:
    if not cfg.rerun:
        return None
    from vla.cli.deploy.rerun_recorder import RerunRecorder

    return RerunRecorder(Path(cfg.rerun))


def _open_page(cfg: DeployConfig) -> Any:
    if not cfg.view:
        return None
    from vla.serving.live import LivePage

    page = LivePage(cfg.page)
    page.start()
    return page


def _jpeg(image: ImageArray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=_JPEG_QUALITY)
    return buffer.getvalue()
