"""Top-down pictures of maps, with the camera's path and what a query found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Bool, Float, UInt8
from numpy import ndarray

PICTURE_SIZE = 900
"""Long side of pictures, pixels."""
CEILING_SHARE = 0.35
"""What lies higher above the camera than this share of the camera's height above the floor is taken for ceiling."""
EXTENT_QUANTILES = (0.003, 0.997)
"""The picture frames this part of the points; a few stray ones would shrink everything else."""
BACKGROUND, INK, PATH_COLOR, START_COLOR = (250, 250, 250), (60, 60, 60), (30, 100, 220), (20, 160, 60)
HEAT = ((255, 214, 80), (214, 40, 40))
"""Colours of the least and the best score that a query reached."""
FORMATS = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
CAPTION = 36
"""Rows of a caption, pixels."""
FONT = cv2.FONT_HERSHEY_SIMPLEX


@dataclass(frozen=True)
class Frame2D:
    """Where map coordinates (x forward, y left) fall in a picture whose top is +x and whose left is +y."""

    top: float
    left: float
    cell: float
    """Map units per pixel."""
    height: int
    width: int

    def pixels(self, points: Float[ndarray, "n _"]) -> Float[ndarray, "n 2"]:
        """(column, row) as fractions, pixel centres at integer + 0.5."""
        return np.stack([self.left - points[:, 1], self.top - points[:, 0]], axis=1) / self.cell


def below_ceiling(points: Float[ndarray, "n 3"], path: Float[ndarray, "m 3"]) -> Bool[ndarray, " n"]:
    """Which points a viewer from above should see: those not far above the camera. z is up, in the map's unit."""
    if not len(points) or not len(path):
        return np.ones(len(points), dtype=bool)
    camera, floor = float(np.median(path[:, 2])), float(np.quantile(points[:, 2], 0.02))
    return points[:, 2] < camera + CEILING_SHARE * max(camera - floor, 0.0)


def top_down(
    points: Float[ndarray, "n 3"],
    colors: UInt8[ndarray, "n 3"],
    path: Float[ndarray, "m 3"],
    *,
    voxel_size: float,
    metric: bool,
    size: int = PICTURE_SIZE,
    on_top: int = 0,
) -> UInt8[ndarray, "h w 3"]:
    """The map from above, x up and y left, higher points over lower ones, the camera's path on top.

    The last `on_top` points lie over all others and are shown at any height. A bar shows one metre where the map is
    metric; where it is not, the picture says so.
    """
    layer = np.arange(len(points)) >= len(points) - on_top
    keep = below_ceiling(points, path) | layer
    points, colors, layer = points[keep], colors[keep], layer[keep]
    coarse = _frame(np.concatenate([points, path]), size, voxel_size)
    picture = np.full((coarse.height, coarse.width, 3), BACKGROUND, dtype=np.uint8)
    _paint(picture, coarse, points[~layer], colors[~layer])
    _paint(picture, coarse, points[layer], colors[layer])
    zoom = max(1, round(size / max(coarse.height, coarse.width)))
    frame = Frame2D(coarse.top, coarse.left, coarse.cell / zoom, coarse.height * zoom, coarse.width * zoom)
    picture = picture.repeat(zoom, axis=0).repeat(zoom, axis=1)
    _draw_path(picture, frame, path)
    _draw_scale(picture, frame, metric)
    return picture


def heat_colors(scores: Float[ndarray, " n"], threshold: float) -> UInt8[ndarray, "n 3"]:
    """From yellow at the threshold to red at the best score."""
    spread = max(float(scores.max(initial=threshold)) - threshold, 1e-6)
    share = np.clip((scores - threshold) / spread, 0, 1)[:, None]
    low, high = np.array(HEAT, dtype=np.float64)
    return (low + share * (high - low)).round().astype(np.uint8)


def faded(colors: UInt8[ndarray, "n 3"]) -> UInt8[ndarray, "n 3"]:
    """Pale grey versions of colours, for what is not meant."""
    grey = colors.astype(np.float64).mean(axis=1, keepdims=True).repeat(3, axis=1)
    return (150 + grey * 0.35).round().astype(np.uint8)


def put_text(picture: UInt8[ndarray, "h w 3"], text: str, corner: tuple[int, int]) -> None:
    """A line of text whose lower left corner is at (column, row). OpenCV's letters are ASCII; others become "?"."""
    plain = text.encode("ascii", "replace").decode()
    cv2.putText(picture, plain, corner, FONT, 0.55, BACKGROUND, 4, cv2.LINE_AA)
    cv2.putText(picture, plain, corner, FONT, 0.55, INK, 1, cv2.LINE_AA)


def stacked(pictures: Sequence[UInt8[ndarray, "_ _ 3"]], captions: Sequence[str]) -> UInt8[ndarray, "h w 3"]:
    """Pictures one below the other, each with its caption above it."""
    width = max(picture.shape[1] for picture in pictures)
    rows = []
    for picture, caption in zip(pictures, captions, strict=True):
        title = np.full((CAPTION, width, 3), BACKGROUND, dtype=np.uint8)
        put_text(title, caption, (16, CAPTION - 12))
        rows += [title, np.full((picture.shape[0], width, 3), BACKGROUND, dtype=np.uint8)]
        rows[-1][:, : picture.shape[1]] = picture
    return np.concatenate(rows)


def save_picture(path: Path, picture: UInt8[ndarray, "h w 3"]) -> None:
    """Write a picture; the suffix chooses the format. Raises OSError when it cannot be written."""
    content = picture_bytes(picture, suffix_of(path))
    try:
        path.write_bytes(content)
    except OSError as error:
        raise OSError(f"{path} cannot be written: {error.strerror}") from error


def picture_bytes(picture: UInt8[ndarray, "h w 3"], suffix: str) -> bytes:
    """A picture in the format of a suffix."""
    return cv2.imencode(suffix, picture[..., ::-1])[1].tobytes()


def suffix_of(path: Path) -> str:
    """The suffix that says a picture's format, .png where there is none. Raises OSError for one that is none."""
    suffix = path.suffix.lower() or ".png"
    if suffix not in FORMATS:
        raise OSError(f"{path}: pictures are .png, .jpg, .webp or .bmp")
    return suffix


def _frame(points: Float[ndarray, "n 3"], size: int, voxel_size: float) -> Frame2D:
    """Around most points, with pixels no finer than voxels."""
    if not len(points):
        return Frame2D(1.0, 1.0, 2.0 / size, size, size)
    low, high = np.quantile(points[:, :2], EXTENT_QUANTILES, axis=0)
    margin = 0.06 * max(float((high - low).max()), 2 * voxel_size)
    low, high = low - margin, high + margin
    cell = max(float((high - low).max()) / size, voxel_size)
    height, width = np.ceil((high - low) / cell).astype(int)
    return Frame2D(float(high[0]), float(high[1]), cell, int(height), int(width))


def _paint(
    picture: UInt8[ndarray, "h w 3"], frame: Frame2D, points: Float[ndarray, "n 3"], colors: UInt8[ndarray, "n 3"]
) -> None:
    """One pixel per point, from the lowest to the highest, so that the highest remains."""
    order = np.argsort(points[:, 2], kind="stable")
    column, row = np.floor(frame.pixels(points[order])).astype(int).T
    inside = (column >= 0) & (row >= 0) & (column < frame.width) & (row < frame.height)
    picture[row[inside], column[inside]] = colors[order][inside]


def _draw_path(picture: UInt8[ndarray, "h w 3"], frame: Frame2D, path: Float[ndarray, "m 3"]) -> None:
    if not len(path):
        return
    pixels = np.round(frame.pixels(path) * 16).astype(np.int32)
    cv2.polylines(picture, [pixels[:, None]], False, PATH_COLOR, 2, cv2.LINE_AA, shift=4)
    cv2.circle(picture, tuple(pixels[0].tolist()), 5 * 16, START_COLOR, -1, cv2.LINE_AA, shift=4)
    cv2.circle(picture, tuple(pixels[-1].tolist()), 5 * 16, PATH_COLOR, -1, cv2.LINE_AA, shift=4)


def _draw_scale(picture: UInt8[ndarray, "h w 3"], frame: Frame2D, metric: bool) -> None:
    left, bottom = 16, frame.height - 18
    if not metric:
        put_text(picture, "unscaled map: lengths are not metres", (left, bottom))
        return
    right = left + round(1.0 / frame.cell)
    cv2.line(picture, (left, bottom), (right, bottom), INK, 3, cv2.LINE_AA)
    put_text(picture, "1 m", (left, bottom - 8))
