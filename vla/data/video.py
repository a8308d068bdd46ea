"""Pictures to H.264 mp4 and back, and mp4 files end to end without encoding again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.error import FFmpegError

from vla.errors import DatasetError
from vla.types import ImageArray

# A key frame every second frame keeps random access cheap (lerobot's default); without B-frames the
# packets of an episode are in display order, so episodes can be joined by shifting time stamps alone.
# Macroblock-tree looks far ahead, which two-frame groups make useless, and on small pictures its
# output varies from run to run (1 encoding in 500 at 16 and 32 px, x264 of PyAV 15).
CODEC = "libx264"
OPTIONS = {
    "g": "2",
    "crf": "18",
    "preset": "veryfast",
    "bf": "0",
    "threads": "1",
    "x264-params": "mbtree=0",
}
PIXEL_FORMAT = "yuv420p"


def encode(images: ImageArray, path: Path, fps: int) -> None:
    """Writes `images` (frames, H, W, 3), even height and width, as an mp4 at `path`."""
    _, height, width, _ = images.shape
    if height % 2 or width % 2:
        raise DatasetError(
            f"video needs an even height and width, got {height} x {width}; choose another size or storage=image"
        )
    with av.open(str(path), "w", format="mp4") as container:
        stream: Any = container.add_stream(CODEC, rate=fps, options=OPTIONS)
        stream.width, stream.height, stream.pix_fmt = width, height, PIXEL_FORMAT
        for image in images:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))


def concatenate(paths: Sequence[Path], lengths: Sequence[int], target: Path, fps: int) -> None:
    """Joins mp4 files of `encode` into `target`; frame k of the result is shown at exactly k / fps seconds."""
    with av.open(str(target), "w", format="mp4", options={"movflags": "faststart"}) as output:
        stream: Any = None
        start = 0
        for path, length in zip(paths, lengths, strict=True):
            with av.open(str(path)) as source:
                if stream is None:
                    stream = output.add_stream_from_template(source.streams.video[0])
                    stream.time_base = source.streams.video[0].time_base
                _copy_packets(source, output, stream, start, Fraction(1, fps))
            start += length


def read_frames(path: Path) -> Iterator[tuple[float, ImageArray]]:
    """Yields (seconds, picture (H, W, 3)) for every frame in display order; raises DatasetError when unreadable."""
    try:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            stream.thread_type = "NONE"
            for frame in container.decode(stream):
                if frame.pts is not None and stream.time_base is not None:
                    yield (
                        float(frame.pts * stream.time_base),
                        frame.to_ndarray(format="rgb24").astype(np.uint8, copy=False),
                    )
    except (FFmpegError, IndexError) as error:
        raise DatasetError(
            f"cannot decode {path} ({error}); restore the file or collect the dataset again"
        ) from error


def describe(height: int, width: int, fps: int) -> dict[str, Any]:
    """Returns the `info` entry lerobot keeps beside a video feature."""
    return {
        "video.height": height, "video.width": width, "video.codec": "h264", "video.pix_fmt": PIXEL_FORMAT,
        "video.fps": fps, "video.channels": 3, "video.g": int(OPTIONS["g"]), "video.crf": int(OPTIONS["crf"]),
        "has_audio": False, "is_depth_map": False,
    }  # fmt: skip


def _copy_packets(source: Any, output: Any, stream: Any, start: int, dt: Fraction) -> None:
    for packet in source.demux(source.streams.video[0]):
        if packet.dts is None:
            continue
        shift = round(start * dt / packet.time_base)
        packet.pts, packet.dts, packet.stream = packet.pts + shift, packet.dts + shift, stream
        output.mux(packet)
