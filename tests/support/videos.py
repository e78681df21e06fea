"""Videos with known pictures, written by PyAV."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.stream import Disposition

RATE = 20


def picture(index: int, height: int = 96, width: int = 128) -> np.ndarray:
    """A smooth RGB picture that differs from frame to frame, and at each corner."""
    rows, columns = np.mgrid[0:height, 0:width]
    third = np.full_like(rows, 40 * index % 256)
    return np.stack([rows * 255 // height, columns * 255 // width, third], axis=-1).astype(np.uint8)


def write_video(
    path: Path,
    codec: str = "libx264",
    pixels: str = "yuv420p",
    times: Sequence[float] = tuple(index / RATE for index in range(8)),
    size: tuple[int, int] = (96, 128),
    change: Callable[[Any], object] = lambda stream: None,
    matrix: str | None = None,
    options: dict[str, str] | None = None,
    container_options: dict[str, str] | None = None,
) -> Path:
    """A frame at each of `times`, in seconds; `change` gets the stream before anything is encoded."""
    with av.open(str(path), "w", options=container_options or {}) as container:
        stream: Any = container.add_stream(codec, rate=RATE, options=options or {})
        stream.height, stream.width, stream.pix_fmt = *size, pixels
        stream.codec_context.time_base = Fraction(1, 1000)
        change(stream)
        for index, time in enumerate(times):
            frame = av.VideoFrame.from_ndarray(picture(index, *size), "rgb24")
            frame = frame.reformat(format=pixels, dst_colorspace=matrix)
            frame.pts, frame.time_base = round(time * 1000), Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def write_sound(path: Path, cover: bool = False) -> Path:
    """A second of silence, with a cover picture if wanted."""
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("libmp3lame", rate=8000, layout="mono")
        if cover:
            art: Any = container.add_stream("png")
            art.height, art.width, art.pix_fmt, art.disposition = 64, 64, "rgb24", Disposition.attached_pic
            container.mux([*art.encode(av.VideoFrame.from_ndarray(picture(0, 64, 64), "rgb24")), *art.encode()])
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.float32), "fltp", "mono")
        frame.sample_rate, frame.pts = 8000, 0
        container.mux([*stream.encode(frame), *stream.encode()])
    return path
