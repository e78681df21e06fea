"""An engine that knows the truth and tells it as a network would: in its own gauge, with errors of a chosen size."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import interpolate, normalize

from ff3r_model.core.geometry import anchored, invert_rigid, rigid, transform_points, unproject
from ff3r_model.core.overlap import overlaps
from ff3r_model.core.types import Cameras, Gaussians, Prediction, Window, harmonics_from_rgb
from ff3r_model.synthetic.sequences import Sequence
from ff3r_model.synthetic.vocabulary import CLASSES

LINKED = 0.1
"""Two views belong together when this share of one's pixels is seen by the other."""
CONFIDENCE, UNKNOWN_CONFIDENCE = 3.0, 1e-3
"""Of a pixel's depth, where the truth is known and where it is guessed from beside it."""
BIAS_GRID = 4
"""Knots of the smooth depth bias along each side of a view."""
PLACE, HEADING = 1.0, 0.5
"""Metres, and length of the difference between viewing directions, at which descriptors have lost much likeness."""


@dataclass(frozen=True)
class OracleNoise:
    """How wrong the oracle is. Everything is drawn anew for every window, for shared frames too."""

    depth: float = 0.0
    """Standard deviation of each pixel's depth, as a share of it."""
    bias: float = 0.0
    """The same of a smooth field over each view."""
    degrees: float = 0.0
    """Rms angle of each camera's rotation error. Its place is off by as much in direction: by a vector whose rms length
    is tan(degrees) times its distance from the window's first camera, as in the errors that pose benchmarks report."""
    outliers: float = 0.0
    """Share of the pixels whose depth is multiplied by something between 0.3 and 2.3."""
    descriptors: float = 0.0
    """Rms length of what is added to each unit descriptor."""
    false_matches: float = 0.0
    """Share of the frames whose descriptor is, always, that of another place of the sequence."""

    @staticmethod
    def realistic(outliers: float = 0.05) -> OracleNoise:
        """3 % depth noise, 5 % smooth bias, 1° pose noise, 5 % outliers, noisy descriptors, one in thirty false."""
        return OracleNoise(0.03, 0.05, 1.0, outliers, 0.3, 1 / 30)


class OracleEngine:
    """Looks a window's frames up by their stamps in a sequence. The same window gets the same answer.

    Each window has its own scale, drawn from 0.5 to 2, and its first camera's frame. Views that share nothing with the
    window's first one are put down at a wrong place and size, as a network does that is given two scenes for one.
    """

    def __init__(
        self, sequence: Sequence, noise: OracleNoise | None = None, seed: int = 0, channels: int = 16, width: int = 128
    ) -> None:
        """`channels`: of the Gaussians' features; `width`: of the descriptors."""
        self.sequence, self.noise, self.seed = sequence, noise or OracleNoise(), seed
        self._index = {stamp: index for index, stamp in enumerate(sequence.stamps)}
        self._depth = torch.stack([fill_holes(depth) for depth in sequence.depth])
        generator = torch.Generator().manual_seed(seed)
        self._codes = normalize(torch.randn(max(len(CLASSES), 27), channels, generator=generator), dim=1)
        self._descriptors = _place_descriptors(sequence, self.noise.false_matches, width, generator)

    def __call__(self, window: Window) -> Prediction:
        """The prediction for a window of the sequence's frames. Raises KeyError for stamps that are not in it."""
        index = torch.tensor([self._index[stamp] for stamp in window.stamps])
        generator = torch.Generator().manual_seed(hash((self.seed, window.stamps)) % 2**63)
        poses, sizes = self._gauge(index, generator)
        depth = self._noisy_depth(self._depth[index] * sizes[:, None, None], generator)
        confidence = torch.where(self.sequence.depth[index] > 0, CONFIDENCE, UNKNOWN_CONFIDENCE)
        cameras = Cameras(invert_rigid(poses), self.sequence.intrinsics.expand(len(index), 3, 3).contiguous())
        descriptors = self._descriptors[index]
        grain = torch.randn(descriptors.shape, generator=generator) / math.sqrt(descriptors.shape[1])
        return Prediction(
            cameras,
            depth,
            confidence,
            self._gaussians(index, depth, confidence, cameras),
            normalize(descriptors + self.noise.descriptors * grain, dim=1),
        )

    def _gauge(
        self, index: Int[Tensor, " views"], generator: torch.Generator
    ) -> tuple[Float[Tensor, "views 4 4"], Float[Tensor, " views"]]:
        """window_from_camera with its errors, and what each view's lengths are multiplied by."""
        scale = 2 ** float(torch.rand((), generator=generator) * 2 - 1)
        world_from_camera = self.sequence.world_from_camera[index]
        first_from_camera = invert_rigid(world_from_camera[:1]) @ world_from_camera
        sizes = torch.full((len(index),), scale)
        first_from_camera[:, :3, 3] *= scale
        for group in self._groups(index)[1:]:
            first_from_camera, sizes = _misplaced(first_from_camera, sizes, group, generator)
        angle = math.radians(self.noise.degrees) / math.sqrt(3)
        turns = rotations(angle * torch.randn(len(index), 3, generator=generator))
        shifts = math.tan(angle) * torch.randn(len(index), 3, generator=generator)
        centres = first_from_camera[:, :3, 3]
        noisy = rigid(first_from_camera[:, :3, :3] @ turns, centres + shifts * centres.norm(dim=1, keepdim=True))
        return invert_rigid(anchored(invert_rigid(noisy))), sizes

    def _groups(self, index: Int[Tensor, " views"]) -> list[list[int]]:
        """Views that see the same surfaces, directly or through others."""
        cameras = Cameras(
            invert_rigid(self.sequence.world_from_camera[index]), self.sequence.intrinsics.expand(len(index), 3, 3)
        )
        inside, agreeing = overlaps(self._depth[index], cameras)
        return connected(inside * agreeing > LINKED)

    def _noisy_depth(self, depth: Float[Tensor, "views h w"], generator: torch.Generator) -> Tensor:
        knots = torch.randn(len(depth), 1, BIAS_GRID, BIAS_GRID, generator=generator)
        bias = interpolate(knots, depth.shape[1:], mode="bicubic", align_corners=True)[:, 0]
        grain = torch.randn(depth.shape, generator=generator)
        factor = 1 + self.noise.depth * grain + self.noise.bias * bias / bias.std()
        wild = torch.rand(depth.shape, generator=generator) < self.noise.outliers
        wildness = 0.3 + 2 * torch.rand(depth.shape, generator=generator)
        return depth * factor.clamp_min(0.1) * torch.where(wild, wildness, 1.0)

    def _gaussians(
        self, index: Int[Tensor, " views"], depth: Tensor, confidence: Tensor, cameras: Cameras
    ) -> Gaussians:
        """A small opaque ball at every pixel, coloured as the image, with the code of its class or of its colour."""
        points = unproject(depth, cameras.intrinsics).flatten(1, 2)
        means = transform_points(invert_rigid(cameras.camera_from_world), points).flatten(0, 1)
        footprint = (depth / cameras.intrinsics[:, 0, 0][:, None, None]).reshape(-1, 1)
        colors = self.sequence.images[index].permute(0, 2, 3, 1).reshape(-1, 3)
        upright = torch.zeros(len(means), 4)
        upright[:, 0] = 1
        return Gaussians(
            means=means,
            scales=(footprint / 2).expand(-1, 3).contiguous(),
            quaternions=upright,
            harmonics=harmonics_from_rgb(colors)[:, None],
            opacities=torch.full((len(means),), 0.9),
            confidences=confidence.flatten().log(),
            features=self._codes[self._labels(index, colors)],
        )

    def _labels(self, index: Int[Tensor, " views"], colors: Float[Tensor, "n 3"]) -> Int[Tensor, " n"]:
        if self.sequence.classes is not None:
            return self.sequence.classes[index].flatten()
        return (colors * 3).floor().clamp(0, 2).long() @ torch.tensor([1, 3, 9])


def fill_holes(depth: Float[Tensor, "h w"]) -> Float[Tensor, "h w"]:
    """Unknown pixels (0) take the nearest known depth; 1 where nothing at all is known."""
    known = (depth > 0).numpy()
    if known.all() or not known.any():
        return depth if known.all() else torch.ones_like(depth)
    _, labels = cv2.distanceTransformWithLabels(
        (~known).astype(np.uint8), cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
    )
    values = np.zeros(labels.max() + 1, np.float32)
    values[labels[known]] = depth.numpy()[known]
    return torch.from_numpy(values[labels])


def rotations(vectors: Float[Tensor, "n 3"]) -> Float[Tensor, "n 3 3"]:
    """Rotation matrices of rotation vectors (axis times angle)."""
    x, y, z = vectors.unbind(1)
    zero = torch.zeros_like(x)
    return torch.linalg.matrix_exp(torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], dim=1).unflatten(1, (3, 3)))


def _misplaced(
    poses: Tensor, sizes: Tensor, group: list[int], generator: torch.Generator
) -> tuple[Float[Tensor, "views 4 4"], Float[Tensor, " views"]]:
    """A group of views, rigid in itself, put down beside the view before it, at a size that is not the others'."""
    factor = 0.7 * 2 ** float(torch.rand((), generator=generator))
    beside = poses[group[0] - 1]
    turn = rotations(0.2 * torch.randn(1, 3, generator=generator))[0]
    shift = 0.1 * sizes[0] * torch.randn(3, generator=generator)
    start = beside @ rigid(turn, shift)
    within = invert_rigid(poses[group[:1]]) @ poses[group]
    within[:, :3, 3] *= factor
    moved, resized = poses.clone(), sizes.clone()
    moved[group] = start @ within
    resized[group] *= factor
    return moved, resized


def _place_descriptors(
    sequence: Sequence, false_matches: float, width: int, generator: torch.Generator
) -> Float[Tensor, "n width"]:
    """Unit vectors whose product falls with the distance between two frames' places and headings.

    Random Fourier features (Rahimi and Recht 2007) of the camera's place and viewing direction.
    """
    poses = sequence.world_from_camera
    where = torch.cat([poses[:, :3, 3] / PLACE, poses[:, :3, 2] / HEADING], dim=1)
    frequencies = torch.randn(where.shape[1], width, generator=generator)
    phases = 2 * torch.pi * torch.rand(width, generator=generator)
    descriptors = normalize((where @ frequencies + phases).cos(), dim=1)
    wrong = torch.rand(len(poses), generator=generator) < false_matches
    other = torch.randint(len(poses), (len(poses),), generator=generator)
    return torch.where(wrong[:, None], descriptors[other], descriptors)


def connected(links: Bool[Tensor, "views views"]) -> list[list[int]]:
    """Groups of views that links (either way) join, each in order; the group of view 0 first."""
    remaining, groups = list(range(len(links))), []
    either = links | links.T
    while remaining:
        group = [remaining.pop(0)]
        for member in group:
            near = [other for other in remaining if bool(either[member, other])]
            group += near
            remaining = [other for other in remaining if other not in near]
        groups.append(sorted(group))
    return groups
