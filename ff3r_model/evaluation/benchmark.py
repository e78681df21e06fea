"""The benchmark of one network on many windows: the figures of the paper's tables, and a constant predictor's."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ff3r_model.core.geometry import invert_rigid
from ff3r_model.core.text_space import TextSpace
from ff3r_model.core.types import Predict, Prediction
from ff3r_model.evaluation import constant_baseline as constant
from ff3r_model.evaluation.accumulators import Figures, GeometryErrors, Means, WordConfusion
from ff3r_model.evaluation.image_quality import ImageQuality
from ff3r_model.evaluation.metrics import ScaleBy, align_scale, trajectory_error
from ff3r_model.evaluation.novel_views import NovelConfig, merged, place_targets, seen_from
from ff3r_model.evaluation.peak_memory import with_peak
from ff3r_model.evaluation.sample import Sample, TrueViews
from ff3r_model.evaluation.vocabulary import Vocabulary


@dataclass(frozen=True)
class BenchmarkConfig:
    """How windows are judged."""

    scale_by: ScaleBy = "median"
    """How a window's one scale is found; the paper does not say."""
    novel: NovelConfig = field(default_factory=NovelConfig)


@dataclass(frozen=True)
class Shown:
    """What a picture of one window shows."""

    sample: Sample
    depth: Tensor
    """Scaled to the truth."""
    labels: Tensor
    """The network's words of the first vocabulary."""
    rendered: Tensor | None
    """RGB of the held-out views."""


class Judge:
    """Compares predictions with the truth, window by window. `embed` puts words into the text's space."""

    def __init__(
        self,
        embed: Callable[[list[str]], Tensor],
        space: TextSpace,
        vocabularies: Sequence[Vocabulary],
        config: BenchmarkConfig | None = None,
        trunk: torch.nn.Module | None = None,
    ) -> None:
        self.space, self.vocabularies, self.config = space, vocabularies, config or BenchmarkConfig()
        self.embeddings = [embed(list(vocabulary.words)) for vocabulary in vocabularies]
        self.words, self.rendered_words = WordConfusion(vocabularies), WordConfusion(vocabularies[:1])
        self.network, self.refined, self.calibrated, self.constant = (
            GeometryErrors(self.config.scale_by) for _ in range(4)
        )
        self.images, self.plain, self.copied = (ImageQuality(trunk) for _ in range(3))
        self.sizes, self.peaks = Means(), list[float]()

    def add(
        self,
        sample: Sample,
        prediction: Prediction,
        refined: Prediction | None = None,
        calibrated: Prediction | None = None,
    ) -> Shown:
        """Count one window: what the network alone says, what refinement makes of it, also with known intrinsics."""
        truth = sample.context
        _count(self.network, prediction, sample)
        if refined is not None:
            _count(self.refined, refined, sample)
        if calibrated is not None:
            _count(self.calibrated, calibrated, sample)
        still = constant.standing_still(truth) * sample.metres
        self.constant.add(constant.flat_depth(truth), constant.straight_ahead(truth), sample, still)
        labels = self._named(prediction.gaussians.features, truth)
        rendered = self._novel(sample, refined or prediction) if sample.targets is not None else None
        scale = window_scale(prediction, truth, self.config.scale_by)
        return Shown(sample, prediction.depth * scale, labels.view(truth.depth.shape), rendered)

    def figures(self) -> Figures:
        """All figures; `…_refined` after refinement, `…_calibrated` the same with known intrinsics, `constant_…` the
        constant predictor's."""
        rendered = self.rendered_words.figures()
        ours = self.network.figures() | self.words.figures() | self.images.figures()
        ours |= {"miou_rendered": rendered["miou"], "accuracy_rendered": rendered["accuracy"]}
        refined = {f"{name}_refined": value for name, value in self.refined.figures().items()}
        refined |= {f"{name}_calibrated": value for name, value in self.calibrated.figures().items()}
        theirs = self.constant.figures() | self.words.figures(constant=True) | self.plain.figures()
        copied = {f"copied_{name}": value for name, value in self.copied.figures().items()}
        sizes = self.sizes.figures() | {"peak_mib": max(self.peaks, default=None)}
        return ours | refined | sizes | {f"constant_{name}": v for name, v in theirs.items()} | copied

    def _named(self, features: Tensor, truth: TrueViews) -> Tensor:
        """The first vocabulary's words of all pixels; counts every vocabulary."""
        named = []
        for number, (vocabulary, embeddings) in enumerate(zip(self.vocabularies, self.embeddings, strict=True)):
            right = vocabulary.truth(truth)
            if number == 0 or bool((right >= 0).any()):
                named.append(self.space.similarity(features, embeddings).argmax(-1))
                self.words.add(number, named[-1], right)
        return named[0]

    def _novel(self, sample: Sample, prediction: Prediction) -> Tensor:
        """RGB of the held-out views, which are counted."""
        context, targets = sample.context, sample.targets
        assert targets is not None
        scale = window_scale(prediction, context, self.config.scale_by)
        voxels = merged(prediction, self.config.novel)
        cameras = place_targets(prediction.cameras, context.cameras, targets.cameras, scale, self.config.novel)
        start = time.perf_counter()
        images, rendering = seen_from(voxels, cameras, targets.size)
        self.sizes.add("render_seconds_per_view", (time.perf_counter() - start) / len(targets))
        self.sizes.add("gaussians", float(len(prediction.gaussians)))
        self.sizes.add("voxels", float(len(voxels)))
        self.images.add(images, targets.images)
        self.plain.add(constant.mean_color(context, len(targets)), targets.images)
        self.copied.add(constant.nearest_view(context, targets), targets.images)
        labels = self.space.similarity(rendering.features.flatten(0, 2), self.embeddings[0]).argmax(-1)
        self.rendered_words.add(0, labels, self.vocabularies[0].truth(targets))
        return images


def _count(geometry: GeometryErrors, prediction: Prediction, sample: Sample) -> None:
    poses = prediction.cameras.camera_from_world
    error = trajectory_error(poses, sample.context.cameras.camera_from_world)
    geometry.add(prediction.depth, poses, sample, None if error is None else error * sample.metres)


def window_scale(prediction: Prediction, truth: TrueViews, by: ScaleBy) -> float:
    """True units per predicted unit: by depth, or by the spread of the cameras where no depth is known."""
    if bool((truth.depth > 0).any()):
        return align_scale(prediction.depth, truth.depth, by)
    ours, true = (invert_rigid(c.camera_from_world)[:, :3, 3] for c in (prediction.cameras, truth.cameras))
    return float((true - true.mean(0)).norm() / (ours - ours.mean(0)).norm().clamp(min=1e-9))


def run(
    samples: Iterable[Sample], engine: Predict, judge: Judge, device: torch.device, refining: Predict | None = None
) -> Iterator[Shown]:
    """Take all windows through the engine, timed, and yield what each looks like.

    `engine` gives what the network alone says; `refining` the same network refined, as the pipeline would use it.
    """
    first = 0
    for sample in (given.to(device) for given in samples):
        window, known = sample.context.window(first), sample.context.window(first, calibrated=True)
        first += len(sample.context)
        start, cpu = time.perf_counter(), time.process_time()
        prediction, peak = with_peak(lambda window=window: engine(window), device)  # type: ignore[misc]
        judge.sizes.add("seconds_per_window", time.perf_counter() - start)
        judge.sizes.add("cpu_seconds_per_window", time.process_time() - cpu)
        judge.peaks += [] if peak is None else [peak]
        if refining is None:
            yield judge.add(sample, prediction)
            continue
        start = time.perf_counter()
        refined = refining(window)
        judge.sizes.add("seconds_per_window_refined", time.perf_counter() - start)
        yield judge.add(sample, prediction, refined, refining(known))
