"""Baselines that look at nothing: figures below theirs are worth nothing."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from ff3r_model.core.geometry import invert_rigid
from ff3r_model.evaluation.sample import TrueViews


def flat_depth(views: TrueViews) -> Float[Tensor, "views height width"]:
    """The same depth everywhere; its scale is fitted like any other's."""
    return torch.ones_like(views.depth)


def straight_ahead(views: TrueViews) -> Float[Tensor, "views 4 4"]:
    """Cameras that move straight ahead by equal steps and never turn."""
    poses = torch.eye(4).repeat(len(views), 1, 1)
    poses[:, 2, 3] = -torch.arange(len(views), dtype=poses.dtype)
    return poses.to(views.images.device)


def standing_still(views: TrueViews) -> float:
    """The trajectory error of who never moves, in the unit of the truth: the path's spread round its mean."""
    centres = invert_rigid(views.cameras.camera_from_world)[:, :3, 3]
    return float((centres - centres.mean(0)).square().sum(1).mean().sqrt())


def mean_color(context: TrueViews, views: int) -> Float[Tensor, "views 3 height width"]:
    """The mean colour of what was seen, for every pixel of every held-out view."""
    color = context.images.mean((0, 2, 3))
    return color[None, :, None, None].expand(views, 3, *context.size)


def nearest_view(context: TrueViews, targets: TrueViews) -> Float[Tensor, "views 3 height width"]:
    """For every held-out view the context view whose camera is nearest: no reconstruction."""
    ours, theirs = (invert_rigid(views.cameras.camera_from_world)[:, :3, 3] for views in (context, targets))
    return context.images[torch.cdist(theirs, ours).argmin(1)]
