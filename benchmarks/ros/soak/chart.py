"""The soak's chart: memory, threads, latency and map over time, drawn with OpenCV."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy import ndarray

from benchmarks.ros.soak.record import column
from ff3r_model.visualization.pictures import BACKGROUND, INK, put_text, save_picture

WIDTH, PANEL = 1000, 190
LEFT, RIGHT, TOP, BOTTOM = 70, 20, 34, 16
"""Pixels around a panel's curves."""
GRID = (225, 225, 225)
COLORS = ((30, 100, 220), (230, 120, 30), (60, 160, 70), (150, 60, 170))
MARKED = {"reset": (240, 200, 200), "cleanup, configure": (200, 200, 240)}
"""Events that are drawn as upright lines."""


@dataclass(frozen=True)
class Panel:
    """Curves that share an axis."""

    title: str
    curves: dict[str, str]
    """Name in the legend → column."""
    factor: float = 1.0


PANELS = (
    Panel("resident memory, MB", {name: f"{name} rss_mb" for name in ("perception", "camera", "viewer")}),
    Panel("threads and file descriptors", {"threads": "perception threads", "descriptors": "perception descriptors"}),
    Panel("latency of a window, s", {"latency": "latency"}),
    Panel("map, MB", {"map": "map bytes"}, 1e-6),
    Panel("voxels", {"voxels": "voxels"}),
)


def draw(rows: list[dict[str, str]], events: list[dict[str, Any]], file: Path) -> None:
    """Write the chart; the suffix of `file` chooses the format."""
    seconds = np.array(column(rows, "seconds"))
    marks = [(event["seconds"], MARKED[event["event"]]) for event in events if event["event"] in MARKED]
    save_picture(file, np.concatenate([_panel(panel, seconds, rows, marks) for panel in PANELS]))


def _panel(
    panel: Panel, seconds: ndarray, rows: list[dict[str, str]], marks: list[tuple[float, tuple[int, int, int]]]
) -> ndarray:
    picture = np.full((PANEL, WIDTH, 3), BACKGROUND, dtype=np.uint8)
    curves = {name: panel.factor * np.array(column(rows, key)) for name, key in panel.curves.items()}
    known = [values[np.isfinite(values)] for values in curves.values()]
    top = _ceiling(max((float(values.max()) for values in known if len(values)), default=1.0))
    end = max(float(seconds[-1]) if len(seconds) else 0.0, 60.0)
    for at, color in marks:
        column_ = _across(at, end)
        cv2.line(picture, (column_, TOP), (column_, PANEL - BOTTOM), color, 1)
    for share in (0.0, 0.5, 1.0):
        row = _down(share)
        cv2.line(picture, (LEFT, row), (WIDTH - RIGHT, row), GRID, 1)
        put_text(picture, f"{share * top:,.0f}" if top > 10 else f"{share * top:g}", (4, row + 5))
    put_text(picture, f"{panel.title}  (0 to {end / 60:.0f} minutes)", (LEFT, 20))
    for index, (name, values) in enumerate(curves.items()):
        color = COLORS[index % len(COLORS)]
        _curve(picture, seconds / end, values / top, color)
        cv2.putText(picture, name, (WIDTH - 150 * (len(curves) - index), 20), cv2.FONT_HERSHEY_SIMPLEX, 0.55, color, 2)
    cv2.rectangle(picture, (LEFT, TOP), (WIDTH - RIGHT, PANEL - BOTTOM), INK, 1)
    return picture


def _curve(picture: ndarray, across: ndarray, up: ndarray, color: tuple[int, int, int]) -> None:
    """A line from known value to known value; it breaks where a value is missing."""
    points = np.stack([LEFT + across * (WIDTH - LEFT - RIGHT), PANEL - BOTTOM - up * (PANEL - TOP - BOTTOM)], axis=1)
    known = np.isfinite(up)
    for piece in np.split(np.arange(len(up)), np.flatnonzero(np.diff(known)) + 1):
        if len(piece) and known[piece[0]]:
            cv2.polylines(picture, [points[piece].round().astype(np.int32)], False, color, 1, cv2.LINE_AA)


def _across(at: float, end: float) -> int:
    return LEFT + round(at / end * (WIDTH - LEFT - RIGHT))


def _down(share: float) -> int:
    return PANEL - BOTTOM - round(share * (PANEL - TOP - BOTTOM))


def _ceiling(value: float) -> float:
    """The next of 1, 2, 5, 10, 20 … above a value."""
    power = 10.0 ** np.floor(np.log10(max(value, 1e-3)))
    return float(next(step * power for step in (1, 2, 5, 10) if step * power >= value))
