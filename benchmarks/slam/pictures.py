"""Paths seen from above, drawn with nothing but OpenCV."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np
from numpy import ndarray
from torch import Tensor

from benchmarks.slam.scores import level, top_down
from ff3r_model.synthetic.sequences import Sequence

SIDE, MARGIN, LINE = 900, 60, 26
"""Pixels of the picture, of its border, and of a line of text."""
COLORS = ((40, 40, 40), (40, 60, 220), (200, 110, 20), (60, 150, 60))
"""BGR, the truth's first."""


def draw_paths(file: Path, sequence: Sequence, paths: dict[str, Iterable[tuple[int, Tensor]]]) -> None:
    """The true path and others, each laid onto it by the best Sim(3), at one scale."""
    truth = level(sequence, sequence.world_from_camera[:, :3, 3].double().numpy())
    lines = {"truth": truth} | {name: top_down(path, sequence) for name, path in paths.items()}
    everything = np.concatenate(list(lines.values()))
    low, extent = everything.min(0), float(np.ptp(everything, axis=0).max())
    pixels_per_metre = (SIDE - 2 * MARGIN) / extent
    picture = np.full((SIDE, SIDE, 3), 255, np.uint8)
    for row, (name, line) in enumerate(lines.items()):
        color = COLORS[row % len(COLORS)]
        _polyline(picture, MARGIN + (line - low) * pixels_per_metre, color)
        cv2.putText(picture, name, (10, LINE * (row + 1)), cv2.FONT_HERSHEY_SIMPLEX, 0.7, color, 2, cv2.LINE_AA)
    _ruler(picture, pixels_per_metre, extent)
    file.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(file), picture)


def _polyline(picture: ndarray, points: ndarray, color: tuple[int, int, int]) -> None:
    flipped = np.column_stack([points[:, 0], SIDE - points[:, 1]])
    cv2.polylines(picture, [flipped.round().astype(np.int32)], False, color, 2, cv2.LINE_AA)
    start = tuple(flipped[0].round().astype(int).tolist())
    cv2.circle(picture, start, 6, color, -1, cv2.LINE_AA)


def _ruler(picture: ndarray, pixels_per_metre: float, extent: float) -> None:
    """A bar of one, ten … metres."""
    metres = 10.0 ** np.floor(np.log10(extent / 2))
    right = MARGIN + round(metres * pixels_per_metre)
    cv2.line(picture, (MARGIN, SIDE - 20), (right, SIDE - 20), (0, 0, 0), 3)
    cv2.putText(picture, f"{metres:g} m", (right + 10, SIDE - 14), cv2.FONT_HERSHEY_SIMPLEX, 0.6, (0, 0, 0), 1)
