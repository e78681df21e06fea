"""Optical flow between all overlapping views of a window, and cameras refined by it through the predicted depth.

Not in the paper, and off for a network that does not need it: a small network's rotations come out too small, and such
an error adds up from window to window. The network's own cameras and depth say where every pixel should have gone;
dense flow, started there, says where it went; bundle adjustment says which cameras explain that.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy import ndarray
from torch import Tensor

from ff3r_model.core.geometry import invert_rigid, project, transform_points, unproject
from ff3r_model.core.overlap import overlaps
from ff3r_model.core.ranges import AT_LEAST_ONE, NOT_NEGATIVE, POSITIVE, SHARE, check_range
from ff3r_model.core.types import Cameras, Prediction, Window
from ff3r_model.frames.optical_flow import dense_flow, grey
from ff3r_model.gaussians.transform import with_geometry
from ff3r_model.slam.refinement.bundle_adjustment import Adjusted, BundleConfig, Matches, adjust

PAIR_GRID = 14
"""Pixels along the long side at which views are compared to find which to match: few suffice."""


@dataclass(frozen=True)
class RefineConfig:
    """How flow is measured, and between which views."""

    rounds: int = 2
    """Flow is measured anew after each adjustment, from where the better cameras expect it."""
    neighbours: int = 6
    """Views that each view is compared with, those it shares most with."""
    min_overlap: float = 0.25
    """Least share of a view's pixels that the other is expected to see."""
    stride: int = 2
    """Every so many pixels along each axis become a correspondence."""
    max_matches: int = 200
    """Of one pair of views, in one direction."""
    min_matches: int = 30
    agreement: float = 0.7
    """Pixels by which flow there and back may miss its start."""
    contrast: float = 1.5
    """Correspondences start where the image's gradient (of 0–255, per pixel) is at least this: flow on blank walls is
    made up."""
    bundle: BundleConfig = field(default_factory=BundleConfig)

    def __post_init__(self) -> None:
        check_range(self, NOT_NEGATIVE, "rounds", "contrast")
        check_range(self, AT_LEAST_ONE, "neighbours", "stride", "max_matches", "min_matches")
        check_range(self, SHARE, "min_overlap")
        check_range(self, POSITIVE, "agreement")


def refine_cameras(
    images: Float[Tensor, "views 3 h w"],
    depth: Float[Tensor, "views h w"],
    cameras: Cameras,
    known_intrinsics: bool = False,
    config: RefineConfig | None = None,
    held: Bool[Tensor, " views"] | None = None,
) -> Adjusted:
    """Cameras that follow the images' optical flow, and each view's depth scale that goes with them.

    The first camera stays, or those that are `held`, with their depth. The focal length is refined too, one factor for
    all views, unless it is known. Views whose flow agrees with no other's keep the network's word.
    """
    config = config or RefineConfig()
    # The solver runs in float64 on the CPU, as the flow does.
    gray = [grey(image) for image in images]
    device, depth = cameras.camera_from_world.device, depth.cpu().double()
    current = Cameras(cameras.camera_from_world.cpu().double(), cameras.intrinsics.cpu().double())
    scale = torch.ones(len(gray), dtype=torch.float64)
    for _ in range(config.rounds):
        # Flow, started where the present cameras expect it; then the cameras that explain it best.
        matches = _matches(gray, depth * scale[:, None, None], current, config)
        if matches is None:
            break
        adjusted = adjust(matches, current, config.bundle, known_intrinsics, held)
        current, scale = adjusted.cameras, scale * adjusted.depth_scale
    pose, intrinsics = (x.to(device, cameras.intrinsics.dtype) for x in (current.camera_from_world, current.intrinsics))
    return Adjusted(Cameras(pose, intrinsics), scale.to(intrinsics))


def refine_prediction(prediction: Prediction, window: Window, config: RefineConfig | None = None) -> Prediction:
    """The prediction with its cameras, and each view's depth by a factor, corrected by the window's optical flow."""
    known = window.intrinsics is not None
    refined = refine_cameras(window.images, prediction.depth, prediction.cameras, known, config)
    return with_geometry(prediction, refined.cameras, prediction.depth * refined.depth_scale[:, None, None])


def _matches(
    gray: list[ndarray], depth: Float[Tensor, "views h w"], cameras: Cameras, config: RefineConfig
) -> Matches | None:
    """Flow between each view and its neighbours, both ways; None where nothing agrees."""
    # Where cameras and depth send each pixel.
    points = unproject(depth, cameras.intrinsics)
    flow = {
        (i, j): _expected_flow(points[i], cameras, i, j)
        for pair in _pairs(depth, cameras, config)
        for i, j in (pair, pair[::-1])
    }
    # Dense flow from there.
    flow = {(i, j): dense_flow(gray[i], gray[j], expected) for (i, j), expected in flow.items()}
    # Correspondences where there is something to see, and where flow there and back agrees.
    textured = [_textured(image, config) for image in gray]
    found = []
    for (i, j), forward in flow.items():
        source, target = _correspondences(textured[i], forward, flow[j, i], config)
        if len(source) >= config.min_matches:
            found.append((i, j, source, target))
    return _padded(found, depth, config.max_matches) if found else None


def _pairs(depth: Float[Tensor, "views h w"], cameras: Cameras, config: RefineConfig) -> list[tuple[int, int]]:
    """The pairs of views, lower one first, that either counts among the neighbours it shares most with."""
    overlap, _ = overlaps(depth, cameras, grid=PAIR_GRID)
    overlap.fill_diagonal_(-1)
    best = overlap.argsort(dim=1, descending=True)[:, : config.neighbours].tolist()
    chosen = {(min(i, j), max(i, j)) for i, row in enumerate(best) for j in row if overlap[i, j] >= config.min_overlap}
    return sorted(chosen)


def _expected_flow(points: Float[Tensor, "h w 3"], cameras: Cameras, source: int, target: int) -> ndarray:
    """Where the cameras and the depth send each pixel of `source` in `target`, minus where it is."""
    height, width = points.shape[:2]
    relative = cameras.camera_from_world[target] @ invert_rigid(cameras.camera_from_world[source])
    pixels, z = project(transform_points(relative, points.flatten(0, 1)), cameras.intrinsics[target])
    own, _ = project(points.flatten(0, 1), cameras.intrinsics[source])
    flow = torch.where((z > 1e-3)[:, None], pixels - own, torch.zeros_like(pixels))
    limit = float(max(height, width))
    return flow.clamp(-limit, limit).view(height, width, 2).float().numpy()


def _textured(image: ndarray, config: RefineConfig) -> ndarray:
    """Pixels, (column, row), on the grid of candidates where the image shows something."""
    height, width = image.shape
    rows, columns = (grid.ravel() for grid in np.mgrid[1 : height - 1 : config.stride, 1 : width - 1 : config.stride])
    gradient = np.hypot(cv2.Sobel(image, cv2.CV_32F, 1, 0), cv2.Sobel(image, cv2.CV_32F, 0, 1)) / 8
    return np.stack([columns, rows], axis=1)[gradient[rows, columns] >= config.contrast]


def _correspondences(
    source: ndarray, forward: ndarray, backward: ndarray, config: RefineConfig
) -> tuple[ndarray, ndarray]:
    """The candidates whose flow returns to where it started, and where it leads (u, v)."""
    height, width = forward.shape[:2]
    moved = forward[source[:, 1], source[:, 0]]
    target = source + moved
    inside = ((target >= 0) & (target <= [width - 1, height - 1])).all(axis=1)
    nearest = np.clip(target.round().astype(int), 0, [width - 1, height - 1])
    back = moved + backward[nearest[:, 1], nearest[:, 0]]
    good = inside & (np.linalg.norm(back, axis=1) < config.agreement)
    return source[good], target[good].astype(np.float64) + 0.5


def _padded(found: list[tuple[int, int, ndarray, ndarray]], depth: Float[Tensor, "views h w"], limit: int) -> Matches:
    """All pairs' matches in one array, each thinned evenly to `limit`."""
    pixels, observed = torch.zeros(2, len(found), limit, 2, dtype=torch.float64).unbind(0)
    z, valid = torch.ones(2, len(found), limit, dtype=torch.float64).unbind(0)
    valid.zero_()
    for row, (i, _, source, target) in enumerate(found):
        chosen = np.linspace(0, len(source) - 1, min(limit, len(source))).round().astype(int)
        here, count = torch.from_numpy(source[chosen]), len(chosen)
        pixels[row, :count], observed[row, :count] = here + 0.5, torch.from_numpy(target[chosen])
        z[row, :count], valid[row, :count] = depth[i, here[:, 1], here[:, 0]], 1
    source_views, target_views = (torch.tensor([pair[side] for pair in found]) for side in (0, 1))
    return Matches(source_views, target_views, pixels, observed, z, valid)
