"""Dense depth of windows: plane sweeps where pictures have texture and views agree, bent depth in between."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy import ndarray
from torch import Tensor

from ff3r_model.core.types import Cameras
from ff3r_model.slam.refinement.bent_depth import MeasuredDepths, bend, places
from ff3r_model.slam.refinement.canvas import Canvas
from ff3r_model.slam.refinement.plane_sweep import Views, agreeing, sweep
from ff3r_model.slam.refinement.structure_from_motion import Reconstruction
from ff3r_model.slam.refinement.sweep_sources import choose_sources

SWEPT_SIDE = 224
"""Long side of the pictures that are compared, pixels, about: a multiple of the network's images."""
HYPOTHESES = 64
MARGIN = 1.2
"""Factor by which depths may lie beyond what points and bent depth say."""
GOOD_MATCH = 0.25
"""Matching cost below which there is texture and it is the same: patches correlate by half."""
TOLERANCE, WITNESSES = 0.03, 2
"""Share of the depth within which so many other views must agree."""
SPECKLE = 40
"""Pixels of the smallest patch that is believed."""
CERTAINTY = 4.0
"""A pixel that triangulates weighs as much as so many others."""
REMEMBERED = 64
"""Keyframes whose depth is kept."""
LEAST_SHARED, SAME = 8, 0.05
"""Points that kept depth must know for its size in another window, and the log ratio within which they mostly agree."""


@dataclass(frozen=True)
class Swept:
    """Depth of a view by plane sweep."""

    depth: Float[ndarray, "h w"]
    cost: Float[ndarray, "h w"]
    sure: Bool[ndarray, "h w"]
    """Where other views agree, of this window or one before."""


class DenseDepth:
    """Sweeps the views of one window after the other; those that a window before had are not swept again."""

    def __init__(self) -> None:
        self._kept: dict[int, Swept] = {}

    def __call__(
        self,
        found: Reconstruction,
        canvas: Canvas,
        cameras: Cameras,
        images: Float[ndarray, "views h w 3"],
        keyframes: Sequence[int],
        bent: Float[Tensor, "views h w"],
    ) -> tuple[Float[Tensor, "views h w"], Float[Tensor, "views h w"]]:
        """Depth at the size of the network's images, and how many times surer than before each pixel is (1 to 4).

        Pixels that triangulate have the sweep's depth; the rest is the bent depth, made to fit them.
        """
        given, measured = bent.double().numpy(), MeasuredDepths.of(found, canvas)
        zoom = max(1, round(SWEPT_SIDE / max(given.shape[1:])))
        views, sources = _enlarged(canvas, cameras, given.shape[1:], zoom), choose_sources(found)
        # Views that are new are swept, the others have their size in this window's unit.
        swept = {}
        for view in (view for view, others in enumerate(sources) if others):
            known = self._recalled(keyframes[view], measured, view, zoom)
            swept[view] = known or Swept(
                *sweep(views, view, sources[view], _hypotheses(given[view], measured.of_view(view)[1])),
                np.zeros(views.pictures[view].shape, bool),
            )
        # Sure is where patches match and other views agree.
        depth = np.full(views.pictures.shape, np.nan)
        for view, one in swept.items():
            depth[view] = one.depth
        for view, one in swept.items():
            witnesses = agreeing(views, depth, view, sources[view], TOLERANCE)
            sure = one.sure | ((witnesses >= WITNESSES) & (one.cost < GOOD_MATCH))
            self._keep(keyframes[view], replace(one, sure=_without_speckles(one.depth, sure)))
        # Fusion at the size of the images.
        fused, surer = given.copy(), np.ones_like(given)
        for view in swept:
            sharp, share = _reduced(self._kept[keyframes[view]], zoom)
            fused[view] = _fused(given[view], images[view], sharp, *measured.of_view(view))
            surer[view] = 1 + (CERTAINTY - 1) * np.where(np.isfinite(sharp), share, 0)
        return torch.from_numpy(fused), torch.from_numpy(surer)

    def _keep(self, keyframe: int, swept: Swept) -> None:
        self._kept.pop(keyframe, None)
        self._kept[keyframe] = swept
        for old in list(self._kept)[:-REMEMBERED]:
            del self._kept[old]

    def _recalled(self, keyframe: int, measured: MeasuredDepths, view: int, zoom: int) -> Swept | None:
        """A view's kept depth in the unit of this window; None where there is none, or its points contradict it."""
        kept = self._kept.get(keyframe)
        if kept is None:
            return None
        pixels, z = measured.of_view(view)
        row, column = places(pixels * zoom, kept.depth)
        ratio = np.log(z / kept.depth[row, column])[kept.sure[row, column]]
        if len(ratio) < LEAST_SHARED or np.median(np.abs(ratio - np.median(ratio))) > SAME:
            return None
        return replace(kept, depth=kept.depth * np.exp(np.median(ratio)))


def _enlarged(canvas: Canvas, cameras: Cameras, size: tuple[int, ...], zoom: int) -> Views:
    """The pictures at a multiple of the images' size, with their cameras."""
    height, width = size
    pictures = [
        cv2.resize(picture, (width * zoom, height * zoom), interpolation=cv2.INTER_AREA) for picture in canvas.pictures
    ]
    intrinsics = cameras.intrinsics.cpu().double().numpy() * np.array([zoom, zoom, 1])[:, None]
    poses = cameras.camera_from_world.cpu().double().numpy()
    return Views(np.stack(pictures).astype(np.float32), poses, intrinsics)


def _hypotheses(depth: Float[ndarray, "h w"], points: Float[ndarray, " n"]) -> Float[ndarray, " hypotheses"]:
    """Inverse depths, evenly spaced over what the bent depth and the points span, and a little more."""
    near, far = np.quantile(depth, [0.02, 0.98])
    if len(points):
        near, far = min(near, np.quantile(points, 0.01)), max(far, np.quantile(points, 0.99))
    return np.linspace(1 / (far * MARGIN), MARGIN / near, HYPOTHESES)


def _without_speckles(depth: Float[ndarray, "h w"], sure: Bool[ndarray, "h w"]) -> Bool[ndarray, "h w"]:
    """The sure pixels without those that hang together in small patches only: chance agrees on no large ones."""
    thousandths = np.where(sure, 1000 * np.log(depth / depth.min()) + 1, 0).astype(np.int16)
    cv2.filterSpeckles(thousandths, 0, SPECKLE, round(1000 * TOLERANCE))
    return thousandths > 0


def _reduced(swept: Swept, zoom: int) -> tuple[Float[ndarray, "h w"], Float[ndarray, "h w"]]:
    """The median of the sure depths in each pixel of the images (NaN where fewer than half are), and their share."""
    height, width = (side // zoom for side in swept.depth.shape)

    def blocks(values: ndarray) -> ndarray:
        return values.reshape(height, zoom, width, zoom).transpose(0, 2, 1, 3).reshape(height, width, zoom * zoom)

    share = blocks(swept.sure).mean(axis=2)
    depth = np.where(blocks(swept.sure), blocks(swept.depth), np.nan)
    depth[share < 0.5] = np.nan
    median = np.full(share.shape, np.nan)
    median[share >= 0.5] = np.nanmedian(depth[share >= 0.5], axis=1)
    return median, share


def _fused(
    bent: Float[ndarray, "h w"],
    image: Float[ndarray, "h w 3"],
    sharp: Float[ndarray, "h w"],
    pixels: Float[ndarray, "n 2"],
    points: Float[ndarray, " n"],
) -> Float[ndarray, "h w"]:
    """The sharp depth where there is some; elsewhere the bent depth, which is bent to it and to points beside it."""
    sure = np.isfinite(sharp)
    row, column = places(pixels, bent)
    beside = ~sure[row, column]
    centres = np.argwhere(sure)[:, ::-1] + 0.5
    filled = bend(bent, image, np.concatenate([centres, pixels[beside]]), np.concatenate([sharp[sure], points[beside]]))
    return np.where(sure, sharp, filled)
