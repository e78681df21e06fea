"""Contact sheets: what the network made of a window, beside the truth."""

from __future__ import annotations

import colorsys
import re
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from jaxtyping import UInt8
from numpy import ndarray
from torch import Tensor

from ff3r_model.evaluation.benchmark import Shown
from ff3r_model.visualization.pictures import FONT, INK, save_picture

COLUMNS = 8
"""Views shown at most, spread over the window."""
LABEL, GAP, LINE = 96, 4, 16
"""Pixels of the rows' names, between pictures, and of a line of the legend."""
UNKNOWN = (40, 40, 40)
LEGEND_SHARE = 0.004
"""Words that name less of the sheet's pixels are left out of the legend."""

Picture = UInt8[ndarray, "h w 3"]


def save_sheet(shown: Shown, words: Sequence[str], folder: Path) -> Path:
    """Write the sheet of one window under its name; returns the file."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{re.sub(r'[^a-z0-9]+', '_', shown.sample.name.lower()).strip('_')}.png"
    save_picture(path, sheet(shown, words))
    return path


def sheet(shown: Shown, words: Sequence[str]) -> Picture:
    """Rows of input, depth, true depth, classes and true classes, then rendered and true held-out views."""
    truth, targets = shown.sample.context, shown.sample.targets
    views = np.unique(np.linspace(0, len(truth) - 1, min(COLUMNS, len(truth))).round().astype(int)).tolist()
    limit = float(truth.depth[truth.depth > 0].quantile(0.98)) if bool((truth.depth > 0).any()) else 1.0
    palette = colors(len(words))
    rows = [
        ("input", [rgb(truth.images[view]) for view in views]),
        ("depth", [heat(shown.depth[view], limit) for view in views]),
        ("true depth", [heat(truth.depth[view], limit) for view in views]),
        ("classes", [palette[shown.labels[view].cpu().numpy()] for view in views]),
    ]
    if bool((truth.classes >= 0).any()):
        rows.append(("true classes", [palette[truth.classes[view].cpu().numpy()] for view in views]))
    if targets is not None and shown.rendered is not None:
        rows.append(("novel view", [rgb(image) for image in shown.rendered]))
        rows.append(("true view", [rgb(image) for image in targets.images]))
    picture = np.concatenate([row(name, pictures, len(views)) for name, pictures in rows])
    seen = torch.cat([shown.labels.flatten(), truth.classes[truth.classes >= 0]])
    shares = torch.bincount(seen, minlength=len(words)) / len(seen)
    named = [(words[k], palette[k]) for k in shares.argsort(descending=True).tolist() if shares[k] > LEGEND_SHARE]
    return np.concatenate([picture, legend(named, picture.shape[1])])


def rgb(image: Tensor) -> Picture:
    """A 3×h×w tensor in [0, 1] as pixels."""
    return (image.detach().cpu().permute(1, 2, 0).clamp(0, 1) * 255).round().byte().numpy()


def heat(depth: Tensor, limit: float) -> Picture:
    """Near is bright, far is dark, unknown is grey."""
    scaled = (255 * (1 - (depth.detach().cpu() / limit).clamp(0, 1))).byte().numpy()
    picture = cv2.cvtColor(cv2.applyColorMap(scaled, cv2.COLORMAP_TURBO), cv2.COLOR_BGR2RGB)
    picture[depth.detach().cpu().numpy() <= 0] = UNKNOWN
    return picture


def colors(count: int) -> UInt8[ndarray, "count_and_unknown 3"]:
    """Colours that are told apart, and last the colour of what is unknown (index -1)."""
    hues = [(number * 0.618034 % 1, (0.85, 0.5)[number % 2], (0.95, 0.7, 0.5)[number % 3]) for number in range(count)]
    found = [[round(255 * part) for part in colorsys.hsv_to_rgb(*hue)] for hue in hues]
    return np.array([*found, UNKNOWN], dtype=np.uint8)


def row(name: str, pictures: Sequence[Picture], columns: int) -> UInt8[ndarray, "_ _ 3"]:
    """A named row, white where it has no more pictures."""
    height, width = pictures[0].shape[:2]
    canvas = np.full((height + GAP, LABEL + columns * (width + GAP), 3), 255, dtype=np.uint8)
    cv2.putText(canvas, name, (4, height // 2), FONT, 0.42, INK, 1, cv2.LINE_AA)
    for number, picture in enumerate(pictures[:columns]):
        left = LABEL + number * (width + GAP)
        canvas[:height, left : left + width] = picture
    return canvas


def legend(named: Sequence[tuple[str, ndarray]], width: int) -> Picture:
    """Words beside their colours, in lines of equal steps."""
    step = 110
    across = max(1, (width - LABEL) // step)
    canvas = np.full((LINE * (1 + len(named) // across) + GAP, width, 3), 255, dtype=np.uint8)
    for number, (word, color) in enumerate(named):
        left, top = LABEL + number % across * step, number // across * LINE
        cv2.rectangle(canvas, (left, top + 2), (left + 10, top + 12), color.tolist(), -1)
        cv2.putText(canvas, word, (left + 14, top + 12), FONT, 0.38, INK, 1, cv2.LINE_AA)
    return canvas
