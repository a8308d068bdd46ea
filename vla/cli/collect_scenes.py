"""`vla collect labels=true`: labelled scenes in place of demonstrations. The same command again goes on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from envs.labels.config import SceneLabelsConfig

if TYPE_CHECKING:
    from envs.labels.labeller import LabelledScene
    from vla.data.scene_rows import SceneRow


def collect_scenes(
    labels: SceneLabelsConfig,
    *,
    root: Path,
    num_rows: int,
    seed: int,
    randomization: str,
    num_workers: int,
) -> dict[str, Any]:
    """Draws labelled scenes until `root` holds `num_rows` of them, and returns what it then holds."""
    from vla.cli.convert import to_plain
    from vla.data.scene_sheet import write_scene_sheet
    from vla.data.scenes_write import SceneJob, write_scenes

    job = SceneJob(
        make_draw=partial(_make_draw, labels, randomization),
        root=root,
        num_rows=num_rows,
        first_seed=seed,
        identity={"scene_labels": to_plain(labels), "randomization": randomization},
    )
    with _progress(num_rows) as show:
        meta = write_scenes(job, num_workers=num_workers, on_rows=show)
    sheet = root.with_name(f"{root.name}.png")
    write_scene_sheet(root, sheet)
    num_questions = sum(meta["questions"].values())
    print(f"{root}: {meta['num_rows']} scenes, {num_questions} questions; look at {sheet}")
    return {
        "root": root,
        "scenes": meta["num_rows"],
        "questions": num_questions,
        "contact_sheet": sheet,
    }


def _make_draw(labels: SceneLabelsConfig, randomization: str) -> Callable[[int], SceneRow]:
    from envs.labels.labeller import Labeller

    labeller = Labeller(labels, randomization)
    return lambda seed: as_row(labeller.draw(seed))


def as_row(scene: LabelledScene) -> SceneRow:
    """Returns the row of a dataset that holds the scene."""
    from vla.data.scene_rows import SceneObject, SceneQuestion, SceneRow, encode_png

    objects = []
    for thing in scene.objects:
        values = {name: value for name, value in vars(thing).items() if name != "mask"}
        objects.append(SceneObject(**values, mask_png=encode_png(thing.mask)))
    return SceneRow(
        frames=scene.frames.transpose(0, 3, 1, 2),
        camera=scene.camera,
        scene_seed=scene.scene_seed,
        kind=scene.kind,
        objects=tuple(objects),
        captions=scene.captions,
        questions=tuple(SceneQuestion(**vars(question)) for question in scene.questions),
    )


@contextmanager
def _progress(num_rows: int) -> Iterator[Callable[[int], None]]:
    """Yields a function that is told how many scenes were added: a bar with the remaining time."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("drawing scenes"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
        TextColumn("eta"), TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns) as bar:
        task = bar.add_task("drawing", total=num_rows)
        yield lambda count: bar.update(task, advance=count)
