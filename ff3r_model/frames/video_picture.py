"""Video frames as pictures: deinterlaced, upright, with square pixels, in the colours that the file means."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import av
import numpy as np
from av.filter import Graph
from av.sidedata.sidedata import Type as SideData
from jaxtyping import UInt8
from numpy import ndarray

PIXEL_ASPECTS = (Fraction(1, 4), Fraction(4))
"""Widths of a pixel, in heights, that cameras have; others are taken for damaged headers."""


class Deinterlacer:
    """Makes progressive frames of interlaced ones (bwdif); others pass."""

    def __init__(self) -> None:
        self._graph: Graph | None = None

    def __call__(self, frame: av.VideoFrame | None) -> Iterator[av.VideoFrame]:
        """The frames that are ready once `frame` came; None after the last one."""
        if frame is None:
            yield from self._pulled(None) if self._graph else ()
        elif self._graph is None and not frame.interlaced_frame:
            yield frame
        else:
            self._graph = self._graph or _deinterlacing(frame)
            yield from self._pulled(frame)

    def _pulled(self, frame: av.VideoFrame | None) -> Iterator[av.VideoFrame]:
        assert self._graph is not None
        self._graph.vpush(frame)
        while True:
            try:
                yield self._graph.vpull()
            except (av.BlockingIOError, av.EOFError):
                return


def _deinterlacing(frame: av.VideoFrame) -> Graph:
    """One frame per frame, of those that are marked as interlaced."""
    graph = Graph()
    source = graph.add_buffer(width=frame.width, height=frame.height, format=frame.format, time_base=frame.time_base)
    graph.link_nodes(source, graph.add("bwdif", "mode=send_frame:deint=interlaced"), graph.add("buffersink"))
    graph.configure()
    return graph


def upright(frame: av.VideoFrame, pixel_aspect: Fraction | None) -> UInt8[ndarray, "height width 3"]:
    """RGB by the frame's colour matrix and range, stretched to square pixels, turned as its display matrix says."""
    known = pixel_aspect is not None and PIXEL_ASPECTS[0] <= pixel_aspect <= PIXEL_ASPECTS[1]
    width = max(1, round(frame.width * pixel_aspect)) if known and pixel_aspect else frame.width
    image = frame.to_ndarray(format="rgb24", width=width, height=frame.height, interpolation="BICUBIC")
    return np.ascontiguousarray(_turned(image, frame))


def _turned(image: ndarray, frame: av.VideoFrame) -> ndarray:
    """By the display matrix: x' = a x + c y, y' = b x + d y."""
    side_data: Any = frame.side_data
    matrix = side_data.get(SideData.DISPLAYMATRIX)
    if matrix is None:
        return image
    a, b, _, c, d = np.frombuffer(matrix, np.int32)[:5]
    if abs(a) < abs(b):
        image, a, d = image.transpose(1, 0, 2), c, b
    return image[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1]
