import av
import numpy as np
from fakes import FakeEnv

from vla.evaluation.episode import Episode
from vla.evaluation.video import FAILURE, SUCCESS, TILE_PX, FrameRecorder, write_grid


def _recorded(tmp_path, seed, steps, value):
    path = tmp_path / f"{seed}.npy"
    np.save(path, np.full((steps, TILE_PX, TILE_PX, 3), value, np.uint8))
    return path


def _decoded(path):
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
        return stream.codec_context.name, stream.codec_context.pix_fmt, frames


def test_the_grid_plays_everywhere_and_lasts_as_long_as_the_longest_episode(tmp_path):
    frames = {7: _recorded(tmp_path, 7, 5, 250), 8: _recorded(tmp_path, 8, 9, 20)}
    episodes = [
        Episode(seed=7, instruction="pick up the red cube", is_success=True),
        Episode(seed=8, instruction="pick up the blue cube " * 5, failure="wrong_object"),
        Episode(seed=9, instruction="not recorded"),
    ]
    assert write_grid(tmp_path / "grid.mp4", frames, episodes, fps=10) == 2
    codec, pixel_format, pictures = _decoded(tmp_path / "grid.mp4")
    assert (codec, pixel_format) == ("h264", "yuv420p")
    assert len(pictures) == 9 + 10
    assert all(side % 2 == 0 for side in pictures[0].shape[:2])


def test_an_episode_that_is_over_gets_a_frame_in_the_colour_of_its_outcome(tmp_path):
    frames = {7: _recorded(tmp_path, 7, 3, 128), 8: _recorded(tmp_path, 8, 3, 128)}
    episodes = [Episode(seed=7, is_success=True), Episode(seed=8, failure="timeout")]
    write_grid(tmp_path / "grid.mp4", frames, episodes, fps=10)
    last = _decoded(tmp_path / "grid.mp4")[2][-1]
    middle = last.shape[1] // 2
    left, right = last[20:180, :4].mean(axis=(0, 1)), last[20:180, middle : middle + 4]
    np.testing.assert_allclose(left, SUCCESS, atol=25)
    np.testing.assert_allclose(right.mean(axis=(0, 1)), FAILURE, atol=25)


def test_nothing_recorded_writes_nothing(tmp_path):
    assert write_grid(tmp_path / "grid.mp4", {}, [Episode(seed=1)], fps=10) == 0
    assert not (tmp_path / "grid.mp4").exists()


def test_the_recorder_keeps_one_square_picture_per_observation(tmp_path):
    env = FakeEnv(image_size=32)
    recorder = FrameRecorder(env)
    recorder(env.reset(seed=0)[0])
    recorder({"images": {"front": np.zeros((48, 64, 3), np.uint8)}})
    recorder.save(tmp_path / "x.npy")
    assert np.load(tmp_path / "x.npy").shape == (2, TILE_PX, TILE_PX, 3)
