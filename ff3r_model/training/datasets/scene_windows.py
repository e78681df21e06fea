"""Windows from scenes of images, as the paper samples them: a random span, up to 16 context views, shuffled."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ff3r_model.core.ranges import AT_LEAST_ONE, Range, check_range
from ff3r_model.core.types import MIN_VIEWS
from ff3r_model.frames.prepare import ImageError, prepare
from ff3r_model.training.datasets.base import TOTAL_VIEWS, DataError, Scene, Share, View, check_views
from ff3r_model.training.datasets.batches import TrainingBatch

log = logging.getLogger(__name__)

LONG_SIDE = Range(1, 4096)
SHAPE_SAMPLES = 5
"""Images of a scene by whose commonest shape the scene's is known."""


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

    def __post_init__(self) -> None:
        check_views(self.views)
        check_range(self, TOTAL_VIEWS, "total_views")
        check_range(self, AT_LEAST_ONE, "distinct")
        check_range(self, Range(MIN_VIEWS), "span")
        check_range(self, LONG_SIDE, "long_side")


@dataclass(frozen=True)
class _Image:
    """A view at the network's size."""

    id: str
    pixels: Float[Tensor, "3 height width"]


class SceneWindows:
    """Windows from scenes of images; a step's windows are a function of seed, step and images.

    An image that cannot be used is left out: the nearest one of its scene that is not in the window stands in its
    place, or another scene for one that has too few. Which these are depends on the files alone, so a resumed run sees
    them again.
    """

    def __init__(self, scenes: Sequence[Scene], seed: int, patch: int, config: SamplingConfig | None = None) -> None:
        """Raises DataError where no scene has the views of the smallest window; smaller ones are left out."""
        self.config, self.seed, self.patch = config or SamplingConfig(), seed, patch
        if self.config.long_side < patch:
            raise DataError(f"long_side must be at least the network's patch, {patch}, not {self.config.long_side}")
        fewest = max(MIN_VIEWS, min(self.config.views))
        self.scenes = [scene for scene in scenes if len(scene) >= fewest]
        small = [f"{scene.name} with {len(scene)}" for scene in scenes if len(scene) < fewest]
        if not self.scenes:
            found = ", ".join(small[:5]) or "none"
            raise DataError(f"too few images: a window takes at least {fewest} of one scene; scenes found: {found}")
        if small:
            log.warning("left out %d scenes of fewer than %d images: %s", len(small), fewest, ", ".join(small[:5]))
        self._shapes: dict[int, tuple[int, ...] | None] = {}
        self._reasons: dict[tuple[int, int], str] = {}
        """Why images cannot be used, by scene and place in it."""

    def batch(self, step: int, share: Share) -> TrainingBatch:
        """This process' windows of a step, of equally many views and one size.

        Raises DataError where no scene has as many images that can be used.
        """
        # Draw scenes, and views of each, for all processes.
        rng = np.random.default_rng([self.seed, step % self.config.distinct if self.config.distinct else step])
        first = self._usable(int(rng.integers(len(self.scenes))))
        wanted = int(rng.choice(self.config.views))
        views = min(wanted, len(self.scenes[first]))
        count = max(1, self.config.total_views // views) * share.world
        scenes = [first, *(self._another(rng, first, views) for _ in range(count - 1))]
        drawn = [(scene, self._pick(rng, len(self.scenes[scene]), views)) for scene in scenes]
        # Read this process' part.
        left_out: list[str] = []
        windows = [self._window(scene, picks.tolist(), left_out) for scene, picks in share.of(drawn)]
        images = torch.stack([torch.stack([image.pixels for image in window]) for window in windows])
        return TrainingBatch(
            images, tuple(image.id for window in windows for image in window), left_out=tuple(left_out)
        )

    def _usable(self, scene: int) -> int:
        """The scene, or the next one with an image that can be used, where its shape must be known."""
        order = [(scene + ahead) % len(self.scenes) for ahead in range(len(self.scenes))]
        return scene if self.config.square else next((each for each in order if self._shape(each)), scene)

    def _another(self, rng: np.random.Generator, first: int, views: int) -> int:
        """A random scene whose windows fit into one batch with the first one's: ten tries, then the first itself."""
        for _ in range(10):
            other = int(rng.integers(len(self.scenes)))
            if self._fits(other, first, views):
                return other
        return first

    def _fits(self, scene: int, first: int, views: int) -> bool:
        large = len(self.scenes[scene]) >= views
        return large and (self.config.square or self._shape(scene) == self._shape(first))

    def _pick(self, rng: np.random.Generator, available: int, views: int) -> np.ndarray:
        """Distinct frames of a random span, in random order."""
        longest = min(available, max(views, self.config.span or available))
        span = int(rng.integers(views, longest + 1))
        start = int(rng.integers(0, available - span + 1))
        return start + rng.permutation(span)[:views]

    def _window(self, scene: int, picks: list[int], left_out: list[str]) -> list[_Image]:
        """The images at `picks`, or those in their place; `left_out` grows by what cannot be used."""
        for ahead in range(len(self.scenes)):
            other = (scene + ahead) % len(self.scenes)
            if self._fits(other, scene, len(picks)):
                images = self._read(other, picks if other == scene else list(range(len(picks))), left_out)
                if len(images) == len(picks):
                    return images
        known = sorted(self._reasons.values())
        raise DataError(
            f"too few images can be used: a window takes {len(picks)} of one scene; {len(known)} are left out, the "
            f"first: {known[0] if known else 'none'}"
        )

    def _read(self, scene: int, picks: list[int], left_out: list[str]) -> list[_Image]:
        """The images at `picks`, each bad one's place taken by the nearest that is left; fewer where none is."""
        left = sorted(set(range(len(self.scenes[scene]))) - set(picks))
        images: list[_Image] = []
        for pick in picks:
            for index in (pick, *_nearest(left, pick)):
                if index in left:
                    left.remove(index)
                image = self._image(scene, index, left_out)
                if image is not None:
                    images.append(image)
                    break
            else:
                return images
        return images

    def _image(self, scene: int, index: int, left_out: list[str]) -> _Image | None:
        """An image at the network's size; None for one that cannot be used, whose reason is kept."""
        if (scene, index) not in self._reasons:
            try:
                view = self.scenes[scene].view(index)
                pixels = self._prepared(view)
                if self.config.square or tuple(pixels.shape) == self._shape(scene):
                    return _Image(view.id, pixels)
                self._reasons[scene, index] = f"{view.id} has another shape than most of its scene"
            except DataError as error:
                self._reasons[scene, index] = str(error)
        left_out.append(self._reasons[scene, index])
        return None

    def _shape(self, scene: int) -> tuple[int, ...] | None:
        """The commonest shape of some prepared images of a scene; None where not one of them can be used."""
        if scene not in self._shapes:
            places = np.unique(np.linspace(0, len(self.scenes[scene]) - 1, SHAPE_SAMPLES).round().astype(int)).tolist()
            shapes = Counter(self._shapes_at(scene, places))
            self._shapes[scene] = shapes.most_common(1)[0][0] if shapes else None
        return self._shapes[scene]

    def _shapes_at(self, scene: int, places: Sequence[int]) -> Iterator[tuple[int, ...]]:
        for index in places:
            try:
                yield tuple(self._prepared(self.scenes[scene].view(index)).shape)
            except DataError as error:
                log.debug("%s", error)

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


def _nearest(places: Sequence[int], to: int) -> list[int]:
    return sorted(places, key=lambda place: abs(place - to))
