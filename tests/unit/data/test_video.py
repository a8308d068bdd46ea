import numpy as np
import pytest
from fake_data import smooth_pictures

from vla.data import video
from vla.errors import DatasetError


def test_joined_files_show_each_frame_at_its_exact_time(tmp_path):
    lengths = [3, 1, 4]
    paths = [tmp_path / f"{k}.mp4" for k in range(3)]
    for k, (path, length) in enumerate(zip(paths, lengths, strict=True)):
        video.encode(smooth_pictures(length, 32, k), path, 10)
    video.concatenate(paths, lengths, tmp_path / "joined.mp4", 10)
    apart = [picture for path in paths for _, picture in video.read_frames(path)]
    seconds, pictures = zip(*video.read_frames(tmp_path / "joined.mp4"), strict=True)
    np.testing.assert_allclose(seconds, np.arange(8) / 10)
    np.testing.assert_array_equal(pictures, apart)


def test_the_same_pictures_make_the_same_file(tmp_path):
    pictures = smooth_pictures(5, 16, 0)
    for name in ("a.mp4", "b.mp4"):
        video.encode(pictures, tmp_path / name, 10)
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()


def test_an_odd_size_is_refused_with_the_way_out(tmp_path):
    with pytest.raises(DatasetError, match=r"15 x 15.*storage=image"):
        video.encode(smooth_pictures(2, 15, 0), tmp_path / "a.mp4", 10)


def test_what_is_no_video_is_refused_by_name(tmp_path):
    (tmp_path / "a.mp4").write_text("hello")
    with pytest.raises(DatasetError, match=r"cannot decode .*a.mp4"):
        list(video.read_frames(tmp_path / "a.mp4"))
