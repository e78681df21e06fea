"""Voxels that a window looks through: which they are, and how strongly its views speak against them.

A view speaks against a voxel that lies clearly in front of the surface measured around its pixel, and for one at that
surface; of what lies behind, or outside the image, it says nothing. What we do is ours, the paper has no such step.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn.functional import max_pool2d

from ff3r_model.core.geometry import invert_rigid, pixel_grid, project, transform_points
from ff3r_model.core.types import Cameras

_SIDE = 128
"""Pixels along the longer side of the depth images that voxels are compared with; larger ones are pooled."""


@dataclass(frozen=True)
class ObservedSurfaces:
    """What each view measured, pooled: around each pixel, the nearest and the farthest depth and the least trust."""

    cameras: Cameras
    """In the map's frame, intrinsics in pixels of `nearest`."""
    nearest: Float[Tensor, "v h w"]
    """0 where anything around is unknown."""
    farthest: Float[Tensor, "v h w"]
    trust: Float[Tensor, "v h w"]
    """Confidence over the window's median, at most 1."""

    @classmethod
    def of(
        cls, cameras: Cameras, depth: Float[Tensor, "v h w"], confidence: Float[Tensor, "v h w"]
    ) -> ObservedSurfaces:
        """Pool to about `_SIDE` pixels, then over 3 × 3 of these, so that poses may be off by 1 % of the image."""
        # what is unknown counts as depth 0 without any trust
        known = torch.isfinite(depth) & (depth > 0) & torch.isfinite(confidence)
        depth, confidence = torch.where(known, depth, 0), torch.where(known, confidence, 0)
        # trust: confidence against the window's median, so that its unit does not matter
        middle = confidence[known].median() if known.any() else confidence.new_ones(())
        trust = (confidence / middle.clamp_min(torch.finfo(confidence.dtype).tiny)).clamp(max=1)
        # pool everything to the cautious side, intrinsics along
        step = -(-max(depth.shape[1:]) // _SIDE)
        scale = torch.tensor([1 / step, 1 / step, 1.0]).to(cameras.intrinsics)
        shrunk = Cameras(cameras.camera_from_world, cameras.intrinsics * scale[:, None])
        return cls(shrunk, -_pool(-depth, step), _pool(depth, step), -_pool(-trust, step))

    def evidence(self, points: Float[Tensor, "n 3"], margin: float, slack: float) -> Float[Tensor, " n"]:
        """Σ trust of the views that look through each point − Σ trust of those that see a surface there.

        Through: z < nearest · (1 − margin) − slack; there: up to farthest · (1 + margin) + slack.
        """
        total = points.new_zeros(len(points))
        for view in range(len(self.nearest)):
            # the points whose pixel is known, with what the view measured around it
            rows, pixels, z = self._visible(points, view)
            nearest, farthest, trust = (
                image[view].flatten()[pixels] for image in (self.nearest, self.farthest, self.trust)
            )
            # +trust where the ray goes on beyond the point, −trust where it ends there, 0 where it ended before
            through = (z < nearest * (1 - margin) - slack).to(trust)
            there = (z < farthest * (1 + margin) + slack).to(trust) - through
            total.index_add_(0, rows, trust * (through - there))
        return total

    def box(self, margin: float) -> tuple[Float[Tensor, " 3"], Float[Tensor, " 3"]]:
        """Corners of a box around all that the views look through."""
        # how far along its axis each view looks through
        reach = self.nearest.flatten(1).amax(dim=1) * (1 - margin)
        height, width = self.nearest.shape[1:]
        # the rays through the outer edges of the corner pixels, as far as that
        frame = pixel_grid(height, width, self.nearest)[[0, 0, -1, -1], [0, -1, 0, -1]]
        frame = frame + (frame - frame.mean(dim=0)).sign() / 2
        far = torch.linalg.solve(self.cameras.intrinsics, torch.cat([frame, frame.new_ones(4, 1)], dim=1).T).mT
        # in the map, with the cameras' own centres
        world_from_camera = invert_rigid(self.cameras.camera_from_world)
        far = transform_points(world_from_camera, far * reach[:, None, None])
        low, high = torch.cat([far, world_from_camera[:, None, :3, 3]], dim=1).flatten(0, 1).aminmax(dim=0)
        return low, high

    def _visible(
        self, points: Float[Tensor, "n 3"], view: int
    ) -> tuple[Int64[Tensor, " m"], Int64[Tensor, " m"], Tensor]:
        """Points that project into a view and whose pixel is known: their rows, flat pixels and depths."""
        height, width = self.nearest.shape[1:]
        local = transform_points(self.cameras.camera_from_world[view], points)
        pixels, z = project(local, self.cameras.intrinsics[view])
        u, v = torch.floor(pixels).long().unbind(1)
        flat = v * width + u
        inside = (u >= 0) & (u < width) & (v >= 0) & (v < height) & (z > 0)
        rows = inside.nonzero().squeeze(1)
        rows = rows[self.nearest[view].flatten()[flat[rows]] > 0]
        return rows, flat[rows], z[rows]


def _pool(images: Float[Tensor, "v h w"], step: int) -> Float[Tensor, "v h2 w2"]:
    """The largest of each `step` × `step` pixels, then of 3 × 3 of those."""
    return max_pool2d(max_pool2d(images[:, None], step, ceil_mode=True), 3, stride=1, padding=1)[:, 0]
