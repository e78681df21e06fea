"""Sheets of furnished rooms: pictures, depth and classes of some views, side by side."""

from __future__ import annotations

import numpy as np
import torch

from ff3r_model.evaluation.picture_sheets import LEGEND_SHARE, Picture, colors, heat, legend, row
from ff3r_model.synthetic import make_trajectory, pinhole
from ff3r_model.synthetic.furnished import CLASSES, FurnishedRoom, render_furnished

HEIGHT, WIDTH = 168, 224


def room_sheet(room: FurnishedRoom, views: int) -> Picture:
    """Views of one room that overlap, as training sees them."""
    poses = make_trajectory(room, 0, views, kind="random")
    seen = render_furnished(room, poses, pinhole(HEIGHT, WIDTH).expand(views, 3, 3), HEIGHT, WIDTH)
    palette = colors(len(CLASSES))
    inside = seen.depth[seen.depth < 2 * float((room.high - room.low).norm())]
    limit = float(inside.quantile(0.98))
    classes = seen.classes.long()
    rows = [
        ("picture", list(seen.images.numpy())),
        ("depth", [heat(depth, limit) for depth in seen.depth]),
        ("classes", [palette[view.numpy()] for view in classes]),
    ]
    picture = np.concatenate([row(name, pictures, views) for name, pictures in rows])
    shares = torch.bincount(classes.flatten(), minlength=len(CLASSES)) / classes.numel()
    named = [(CLASSES[k], palette[k]) for k in shares.argsort(descending=True).tolist() if shares[k] > LEGEND_SHARE]
    return np.concatenate([picture, legend(named, picture.shape[1])])
