"""One row of a dataset of labelled scenes: in memory, and as Parquet with the features that `datasets` reads."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from PIL import Image

from vla.types import ImageArray

Box = tuple[float, float, float, float]


@dataclass(frozen=True, kw_only=True)
class SceneObject:
    """One thing that a picture shows.

    Attributes:
        name: e.g. "red cube"; fixtures are "bowl", "square", "cabinet", "drawer", "gripper".
        color: word for its colour, "" for a fixture.
        shape: word for its shape; a fixture's is its name.
        box: (y0, x0, y1, x1), shares of the picture, tight around the mask.
        mask_png: its pixels as a one-bit PNG of the whole picture.
        is_clear: whether enough of it shows to be known; the others have no phrases and no question is about them.
        phrases: referring expressions that are true of it alone, with their article.
        held_out_phrases: the same in words kept out of training; empty below seed 1000000.
    """

    name: str
    color: str
    shape: str
    box: Box
    mask_png: bytes
    num_pixels: int
    is_clear: bool
    phrases: tuple[str, ...] = ()
    held_out_phrases: tuple[str, ...] = ()

    @cached_property
    def mask(self) -> NDArray[np.bool_]:
        """(H, W) bool, decoded when first asked for."""
        with Image.open(io.BytesIO(self.mask_png)) as picture:
            return np.asarray(picture).astype(bool)


@dataclass(frozen=True, kw_only=True)
class SceneQuestion:
    """A question about a picture; `split` is "held_out" where its wording is kept out of training."""

    kind: str
    question: str
    answer: str
    split: str = "train"


@dataclass(frozen=True, kw_only=True, eq=False)
class SceneRow:
    """One picture or clip and what is known about it.

    Attributes:
        frames: (T, 3, H, W) uint8 RGB; T is 1 for a still.
        camera: "zoom", "front" or "wrist".
        scene_seed: what it was drawn from; from 1000000 on held out.
        kind: "still" or "clip".
        objects: of the last frame.
    """

    frames: ImageArray
    camera: str
    scene_seed: int
    kind: str
    objects: tuple[SceneObject, ...]
    captions: tuple[str, ...]
    questions: tuple[SceneQuestion, ...]

    @classmethod
    def from_record(cls, record: dict[str, Any], frames: ImageArray) -> Self:
        """Returns the row that a table's `record` and its decoded frames make."""
        objects = [
            SceneObject(**{key: _frozen(value) for key, value in entry.items()})
            for entry in record["objects"]
        ]
        return cls(
            frames=frames,
            camera=record["camera"],
            scene_seed=record["scene_seed"],
            kind=record["kind"],
            objects=tuple(objects),
            captions=tuple(record["captions"]),
            questions=tuple(SceneQuestion(**entry) for entry in record["questions"]),
        )

    def record(self) -> dict[str, Any]:
        """Returns the row as plain values, as `scene_schema` stores it."""
        _, _, height, width = self.frames.shape
        return {
            "frames": [
                {"bytes": encode_png(frame.transpose(1, 2, 0)), "path": None}
                for frame in self.frames
            ],
            "height": height,
            "width": width,
            "num_frames": len(self.frames),
            "camera": self.camera,
            "scene_seed": self.scene_seed,
            "kind": self.kind,
            "objects": [_plain(thing) for thing in self.objects],
            "captions": list(self.captions),
            "questions": [_plain(question) for question in self.questions],
        }


def scene_schema() -> pa.Schema:
    """Returns the Arrow schema of a shard, with the metadata by which `datasets` knows lists and pictures."""
    described = {"info": {"features": scene_features()}}
    fields = [pa.field(name, _arrow_type(kind)) for name, kind in scene_features().items()]
    return pa.schema(fields, metadata={"huggingface": json.dumps(described)})


def scene_features() -> dict[str, Any]:
    """Returns the features in the form of `datasets.Features.to_dict` (importing `datasets` itself takes seconds)."""
    text, texts = _value("string"), _list(_value("string"))
    thing = {
        "name": text, "color": text, "shape": text, "box": _list(_value("float32"), 4),
        "mask_png": _value("binary"), "num_pixels": _value("int32"), "is_clear": _value("bool"),
        "phrases": texts, "held_out_phrases": texts,
    }  # fmt: skip
    question = {"kind": text, "question": text, "answer": text, "split": text}
    return {
        "frames": _list({"_type": "Image"}), "height": _value("int32"), "width": _value("int32"),
        "num_frames": _value("int32"), "camera": text, "scene_seed": _value("int64"), "kind": text,
        "objects": _list(thing), "captions": texts, "questions": _list(question),
    }  # fmt: skip


def encode_png(picture: ImageArray | NDArray[np.bool_]) -> bytes:
    """Returns a PNG of an (H, W, 3) uint8 picture or of an (H, W) bool mask, one bit a pixel."""
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(picture)).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def decode_png(encoded: bytes) -> ImageArray:
    """Returns (H, W, 3) uint8."""
    with Image.open(io.BytesIO(encoded)) as picture:
        return np.asarray(picture.convert("RGB"))


def _plain(value: SceneObject | SceneQuestion) -> dict[str, Any]:
    return {field.name: getattr(value, field.name) for field in fields(value)}


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _value(dtype: str) -> dict[str, Any]:
    return {"dtype": dtype, "_type": "Value"}


def _list(feature: dict[str, Any], length: int | None = None) -> dict[str, Any]:
    fixed = {} if length is None else {"length": length}
    return {"feature": feature, **fixed, "_type": "List"}


def _arrow_type(described: dict[str, Any]) -> pa.DataType:
    match described.get("_type"):
        case "Value":
            return pa.type_for_alias(described["dtype"])
        case "List":
            return pa.list_(_arrow_type(described["feature"]), described.get("length", -1))
        case "Image":
            return pa.struct([("bytes", pa.binary()), ("path", pa.string())])
        case _:
            return pa.struct([(name, _arrow_type(kind)) for name, kind in described.items()])
