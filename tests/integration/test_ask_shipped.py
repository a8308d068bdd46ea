"""`vla ask` without a checkpoint: the model in the package, on a table it has never seen."""

import json

import numpy as np
import pytest
from PIL import Image

from envs.labels.config import SceneLabelsConfig
from envs.labels.labeller import Labeller
from vla.cli.build import shipped_checkpoints
from vla.cli.main import main

pytestmark = pytest.mark.skipif("vlm" not in shipped_checkpoints(), reason="none is shipped")
SEED = 1_700_000  # of the first table; neither trained on nor measured with


@pytest.fixture(scope="module")
def tables():
    labeller = Labeller(SceneLabelsConfig())
    return [labeller.draw(seed) for seed in range(SEED, SEED + 6)]


def _ask(tmp_path, table, prompt):
    picture = tmp_path / "table.png"
    Image.fromarray(table.frames[0]).save(picture)
    words = [f"image={picture}", f"prompt={prompt}", f"run_directory={tmp_path / 'run'}"]
    assert main(["ask", *words]) == 0
    return json.loads((tmp_path / "run" / "summary.json").read_text())


def _overlap(one, other):
    low, high = np.maximum(one[:2], other[:2]), np.minimum(one[2:], other[2:])
    shared = np.clip(high - low, 0, None).prod()
    areas = [np.prod(np.subtract(box[2:], box[:2])) for box in (one, other)]
    return shared / (sum(areas) - shared)


def _single(table):
    """The largest coloured object whose name is its own."""
    names = [thing.name for thing in table.objects]
    alone = [
        thing
        for thing in table.objects
        if thing.is_clear and thing.color and names.count(thing.name) == 1
    ]
    return max(alone, key=lambda thing: thing.num_pixels, default=None)


def test_most_known_objects_are_found_where_they_are(tmp_path, tables):
    overlaps = []
    for table in tables:
        thing = _single(table)
        if thing is None:
            continue
        found = _ask(tmp_path, table, f"detect the {thing.name}")["objects"]
        overlaps.append(_overlap(found[0]["box"], thing.box) if found else 0.0)
    assert len(overlaps) >= 4
    assert np.mean(np.array(overlaps) > 0.5) >= 0.6, overlaps


def test_a_mask_is_drawn_on_the_picture(tmp_path, tables):
    table = next(table for table in tables if _single(table) is not None)
    summary = _ask(tmp_path, table, f"segment the {_single(table).name}")
    assert summary["objects"][0]["mask_pixels"] > 0
    with Image.open(summary["drawn"]) as drawn:
        assert min(drawn.size) >= 480


def test_a_question_is_answered_in_words(tmp_path, tables):
    answers = {
        _ask(tmp_path, table, "how many colored objects are there?")["answer"] for table in tables
    }
    assert all(answer.isdigit() or answer.isalpha() for answer in answers)
    assert len(answers) > 1  # it looks at the picture
