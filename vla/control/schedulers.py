"""From the name of a schedule to its scheduler."""

from __future__ import annotations

from vla.control.ensemble import TemporalEnsemble
from vla.control.horizon import Asynchronous, Synchronous
from vla.control.realtime_chunking import RealTimeChunking
from vla.control.schedule import ChunkScheduler, Schedule, SchedulerSettings


def make_scheduler(schedule: Schedule, settings: SchedulerSettings) -> ChunkScheduler:
    """Returns the scheduler that `schedule` names."""
    match schedule:
        case Schedule.SYNCHRONOUS:
            return Synchronous(settings)
        case Schedule.ASYNCHRONOUS:
            return Asynchronous(settings)
        case Schedule.TEMPORAL_ENSEMBLE:
            return TemporalEnsemble(settings)
        case Schedule.REAL_TIME_CHUNKING:
            return RealTimeChunking(settings)
