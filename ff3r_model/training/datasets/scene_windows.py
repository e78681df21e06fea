"""Windows from scenes of images, as the paper samples them: a random span, up to 16 context views, shuffled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ff3r_model.core.types import MIN_VIEWS
from ff3r_model.frames.prepare import ImageError, plan_crop, prepare
from ff3r_model.training.datasets.base import DataError, Scene, Share, View
from ff3r_model.training.datasets.batches import TrainingBatch


@dataclass(frozen=True)
class SamplingConfig:
    """How windows are drawn and images prepared."""

    views: tuple[int, ...] = (2, 4, 8, 16)
    """Views of a window, drawn evenly from these. The paper: up to 16; how many below is ours."""
    total_views: int = 16
    """Views per step and process, split over equal windows."""
    distinct: int | None = None
    """After so many steps the same windows come again, so that a teacher's cached targets serve; None: ever new."""
    span: int | None = None
    """Longest stretch of a scene, in frames, that a window's views are drawn from; None: the whole scene."""
    long_side: int = 448
    """Pixels; the paper's 448."""
    square: bool = True
    """Images are cropped to their central square, as in the paper; otherwise each keeps its shape."""


class SceneWindows:
    """Windows from scenes of images; a step's windows are a function of seed and step."""

    def __init__(self, scenes: Sequence[Scene], seed: int, patch: int, config: SamplingConfig | None = None) -> None:
        """Raises DataError where no scene has the views of the smallest window; smaller ones are left out."""
        self.config, self.seed, self.patch = config or SamplingConfig(), seed, patch
        fewest = max(MIN_VIEWS, min(self.config.views))
        self.scenes = [scene for scene in scenes if len(scene) >= fewest]
        if not self.scenes:
            found = ", ".join(f"{scene.name} with {len(scene)}" for scene in scenes[:5]) or "none"
            raise DataError(f"too few images: a window takes at least {fewest} of one scene; scenes found: {found}")
        self._shapes: dict[int, tuple[int, int]] = {}

    def batch(self, step: int, share: Share) -> TrainingBatch:
        """This process' windows of a step, of equally many views and one size. Raises DataError as `Scene.view`."""
        # Draw scenes, and views of each, for all processes.
        rng = np.random.default_rng([self.seed, step % self.config.distinct if self.config.distinct else step])
        first = int(rng.integers(len(self.scenes)))
        wanted = int(rng.choice(self.config.views))
        views = min(wanted, len(self.scenes[first]))
        count = max(1, self.config.total_views // views) * share.world
        scenes = [first, *(self._another(rng, first, views) for _ in range(count - 1))]
        drawn = [(scene, self._pick(rng, len(self.scenes[scene]), views)) for scene in scenes]
        # Read this process' part.
        windows = [[self.scenes[scene].view(int(index)) for index in picks] for scene, picks in share.of(drawn)]
        images = torch.stack([self._stacked(window) for window in windows])
        return TrainingBatch(images, tuple(view.id for window in windows for view in window))

    def _another(self, rng: np.random.Generator, first: int, views: int) -> int:
        """A random scene whose windows fit into one batch with the first one's: ten tries, then the first itself."""
        for _ in range(10):
            other = int(rng.integers(len(self.scenes)))
            if len(self.scenes[other]) >= views and (self.config.square or self._shape(other) == self._shape(first)):
                return other
        return first

    def _pick(self, rng: np.random.Generator, available: int, views: int) -> np.ndarray:
        """Distinct frames of a random span, in random order."""
        longest = min(available, max(views, self.config.span or available))
        span = int(rng.integers(views, longest + 1))
        start = int(rng.integers(0, available - span + 1))
        return start + rng.permutation(span)[:views]

    def _shape(self, scene: int) -> tuple[int, int]:
        if scene not in self._shapes:
            height, width = self.scenes[scene].view(0).image.shape[:2]
            crop = plan_crop(height, width, self.config.long_side, self.patch)
            self._shapes[scene] = (crop.height, crop.width)
        return self._shapes[scene]

    def _stacked(self, window: list[View]) -> Float[Tensor, "views 3 height width"]:
        prepared = [self._prepared(view) for view in window]
        shapes = {tuple(image.shape) for image in prepared}
        if len(shapes) > 1:
            raise DataError(
                f"images of one scene differ in shape ({window[0].id} and others: {sorted(shapes)}): "
                "train with square crops, or keep one camera per folder"
            )
        return torch.stack(prepared)

    def _prepared(self, view: View) -> Float[Tensor, "3 height width"]:
        image = view.image
        if self.config.square:
            side = min(image.shape[:2])
            top, left = (image.shape[0] - side) // 2, (image.shape[1] - side) // 2
            image = image[top : top + side, left : left + side]
        try:
            return prepare(image, None, self.config.long_side, self.patch)[0]
        except ImageError as error:
            raise DataError(f"{view.id}: {error}") from error
