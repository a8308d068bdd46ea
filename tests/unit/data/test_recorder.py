import numpy as np
import pytest
from fake_data import CrashingTable, DyingTable, job_in, layout_of

from vla.data.lerobot import open_frames
from vla.data.recorder import SINGLE_INSTRUCTION, Job, record_episodes
from vla.data.staging import rejected_keys, staged_keys
from vla.data.write import DatasetWriter
from vla.errors import DatasetError


def _record(job: Job, num_episodes: int, num_workers: int = 0, max_attempts: int = 100) -> None:
    with DatasetWriter(job.root, job.layout, {}) as writer:
        record_episodes(
            job,
            num_episodes,
            finished=writer.finished,
            rejected=writer.rejected,
            max_attempts=max_attempts,
            num_workers=num_workers,
        )
        writer.finalize()


def _read(root):
    return open_frames(root, cameras=["front", "wrist"], cache=False)


def _same(a, b) -> bool:
    return all(
        np.array_equal(getattr(a, n), getattr(b, n))
        for n in ("actions", "state", "episode_ends", "scene")
    )


def test_only_successes_are_kept_and_failures_are_remembered(tmp_path):
    _record(job_in(tmp_path), 12)
    frames = _read(tmp_path)
    assert frames.num_episodes == 12
    assert frames.scene.tolist() == [
        0,
        0,
        1,
        1,
        2,
        2,
        3,
        3,
        5,
        5,
        6,
        6,
    ]  # the expert fails in scene 4
    with DatasetWriter(tmp_path, layout_of(), {}) as writer:
        assert writer.rejected == {8: "timeout", 9: "timeout"}


def test_a_scene_is_shown_under_every_instruction_it_allows(tmp_path):
    _record(job_in(tmp_path), 4)
    frames = _read(tmp_path)
    starts = [0, *frames.episode_ends[:-1]]
    np.testing.assert_array_equal(
        frames.images["front"][starts[0]], frames.images["front"][starts[1]]
    )
    assert [frames.tasks[frames.task_index[i]] for i in starts] == ["go right", "go left"] * 2
    assert (frames.actions[starts[0], 0], frames.actions[starts[1], 0]) == pytest.approx(
        (0.02, -0.02)
    )


def test_a_scene_with_one_instruction_is_shown_once_and_counts_as_no_failure(tmp_path):
    _record(job_in(tmp_path, count_instructions=lambda env: 1), 3)
    assert _read(tmp_path).scene.tolist() == [0, 1, 2]
    with DatasetWriter(tmp_path, layout_of(), {}) as writer:
        assert set(writer.rejected.values()) == {SINGLE_INSTRUCTION}


def test_the_label_is_the_experts_and_the_executed_action_is_the_perturbed_one(tmp_path):
    import pyarrow.parquet as pq

    _record(job_in(tmp_path), 2)
    frames = _read(tmp_path)
    table = pq.read_table(tmp_path / "data/chunk-000/file-000.parquet")
    executed = np.array(table.column("action.executed").to_pylist())
    assert 0.0005 < np.std(executed - frames.actions) < 0.005
    x = frames.state[: frames.episode_ends[0], 0]
    np.testing.assert_allclose(
        np.diff(x), executed[: len(x) - 1, 0], atol=1e-6
    )  # what was executed moved the tool
    np.testing.assert_allclose(
        frames.actions[: len(x), 0], np.clip(0.05 - x, -0.02, 0.02), atol=1e-6
    )


def test_grounding_says_minus_one_where_a_camera_does_not_see_the_object(tmp_path):
    _record(job_in(tmp_path), 1)
    grounding = _read(tmp_path).environment_state
    assert grounding is not None
    np.testing.assert_allclose(grounding[0], [0.05, 0, 0, 0.5, 0.25, -1, -1], atol=1e-6)


def test_processes_record_what_one_process_records(tmp_path):
    _record(job_in(tmp_path / "one"), 12)
    _record(job_in(tmp_path / "two"), 12, num_workers=2)
    assert _same(_read(tmp_path / "one"), _read(tmp_path / "two"))


def test_exactly_as_many_attempts_are_made_as_are_needed(tmp_path):
    job = job_in(tmp_path)
    with DatasetWriter(tmp_path, job.layout, {}):
        record_episodes(job, 11, finished=set(), rejected={}, max_attempts=100, num_workers=0)
        assert staged_keys(tmp_path) | set(rejected_keys(tmp_path)) == set(range(13))


def test_missing_attempts_are_made_up_for_before_new_ones(tmp_path):
    _record(job_in(tmp_path / "straight"), 9)
    job = job_in(tmp_path / "gaps")
    with DatasetWriter(job.root, job.layout, {}) as writer:
        record_episodes(job, 6, finished=set(), rejected={}, max_attempts=100, num_workers=0)
        for key in (1, 4):
            for path in (job.root / "staging" / f"episode-{key:08d}").iterdir():
                path.unlink()
            (job.root / "staging" / f"episode-{key:08d}").rmdir()
        assert writer.finished == {0, 2, 3, 5}
    _record(job, 9)
    assert _same(_read(tmp_path / "straight"), _read(job.root))


def test_an_expert_that_hardly_ever_succeeds_stops_the_collection(tmp_path):
    with pytest.raises(DatasetError, match="only 8 of 10 attempts gave an episode"):
        _record(job_in(tmp_path), 9, max_attempts=10)


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_crash_names_the_attempt_and_keeps_what_is_finished(tmp_path, num_workers):
    job = job_in(tmp_path, make_env=CrashingTable)
    with pytest.raises(
        DatasetError, match=r"attempt 4 \(seed 2, instruction 0\) crashed with FloatingPointError"
    ):
        _record(job, 9, num_workers=num_workers)
    assert {0, 1, 2, 3} <= staged_keys(tmp_path)


def test_a_process_that_dies_is_reported_in_one_line(tmp_path):
    with pytest.raises(DatasetError, match="one of 1 recording processes died"):
        _record(job_in(tmp_path, make_env=DyingTable), 2, num_workers=1)
