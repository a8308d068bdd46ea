import numpy as np
import pytest
from fake_data import make_episode, write_dataset
from PIL import Image

from vla.data.contact_sheet import write_contact_sheet
from vla.data.layout import ImageStorage


@pytest.mark.parametrize("storage", list(ImageStorage))
def test_the_sheet_shows_first_frames_of_the_first_episodes(tmp_path, storage):
    episodes = [make_episode(k, 3) for k in range(6)]
    root = write_dataset(tmp_path / "dataset", episodes, storage)
    write_contact_sheet(root, tmp_path / "sheet.png", num_episodes=5)
    with Image.open(tmp_path / "sheet.png") as sheet:
        pixels = np.asarray(sheet).astype(int)
    tolerance = (
        1 if storage is ImageStorage.IMAGE else 40
    )  # chroma is stored at half the resolution
    assert pixels.shape == (2 * (128 + 30 + 6) + 6, 4 * (256 + 6) + 6, 3)
    middle = pixels[6 + 65, 6 + 65]
    assert np.abs(middle - episodes[0].images["front"][0, 8, 8]).max() < tolerance
    fifth = pixels[6 + 164 + 65, 6 + 65]
    assert np.abs(fifth - episodes[4].images["front"][0, 8, 8]).max() < tolerance
    assert (pixels[6 + 164 + 64, 6 + 262 + 64] == 255).all()  # no sixth episode


def test_a_sheet_of_one_episode_is_one_tile(tmp_path):
    root = write_dataset(tmp_path / "dataset", [make_episode(0, 2)])
    write_contact_sheet(root, tmp_path / "sheet.png")
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.size == (6 + 262, 6 + 164)
