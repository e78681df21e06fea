"""Check of a TensorRT plan against torch on one window, before it is used; the verdict is remembered beside the plan.

Some versions of TensorRT compile some networks wrongly, and nothing but the numbers shows it: 10.3 makes the scale of
Depth Anything 3's depth jump from view to view.
"""

from __future__ import annotations

import dataclasses
import json
import logging
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from ff3r_model.core.checked import read_json, record
from ff3r_model.core.files import replaced
from ff3r_model.core.geometry import invert_rigid
from ff3r_model.core.trusted import why_untrusted
from ff3r_model.core.types import MIN_VIEWS, Predict, Prediction, Window
from ff3r_model.engine.device import free_cached_memory
from ff3r_model.engine.tensorrt.plan_cache import CachedPlan, PlanError

log = logging.getLogger(__name__)

VERDICT = "verdict.json"
TOLERANCE = {"exact": 0.01, "half": 0.05}
"""Largest relative difference: of float32 on both sides (TensorRT multiplies in TF32), and with half precision on
either. Rounding to bf16 moves the outputs by about a hundredth; a wrong plan by much more."""
OCTAVES = 5
OVERLAP = 0.25
"""Share of the picture's side by which all the views of the window are shifted in all."""


@dataclass(frozen=True)
class Verdict:
    """How far a plan's prediction is from torch's, as shares, each the worst of all views."""

    depth: float
    """‖d − d*‖ / ‖d*‖ of a view."""
    scale: float
    """|s − 1|, s the median of d / d* of a view."""
    translation: float
    """Distance of a camera's centre from torch's, as a share of the window's median depth."""
    rotation: float
    """Angle between a camera's axes and torch's, radians."""
    features: float
    """‖f − f*‖ / ‖f*‖ of all Gaussians' features."""
    tolerance: float
    circumstances: str
    """The software that it was found with: another one is another question."""

    @property
    def worst(self) -> float:
        """The largest figure; infinite where one is no number."""
        figures = (self.depth, self.scale, self.translation, self.rotation, self.features)
        return max(figure if figure == figure else float("inf") for figure in figures)

    @property
    def accepted(self) -> bool:
        """Whether the plan may be used."""
        return self.worst <= self.tolerance

    def __str__(self) -> str:
        return (
            f"depth {self.depth:.2%}, scale of a view {self.scale:.2%}, camera centres {self.translation:.2%} of the "
            f"depth, rotation {self.rotation:.4f} rad, features {self.features:.2%}; {self.tolerance:.0%} is allowed"
        )


def check_plan(
    plan: CachedPlan,
    circumstances: str,
    views: int,
    run_torch: Predict,
    run_plan: Predict,
    half: bool,
) -> None:
    """Raise PlanError, with the figures, unless the plan says what torch says: found out once, then remembered.

    `half`: whether either computes in half precision.
    """
    verdict = remembered(plan.folder, circumstances)
    if verdict is None:
        size = (plan.manifest.height, plan.manifest.width)
        verdict = _compared(run_torch, run_plan, views, size, TOLERANCE["half" if half else "exact"], circumstances)
        log.info("the plan in %s against torch: %s", plan.folder, verdict)
        _remember(plan.folder, verdict)
    if not verdict.accepted:
        raise PlanError(
            f"the plan in {plan.folder} is refused, its prediction is not torch's: {verdict}. {circumstances}; another "
            "version of TensorRT, 10.16.1 or later, may compile it rightly"
        )


def remembered(folder: Path, circumstances: str) -> Verdict | None:
    """What was found with this software; None where nothing was, or where others could have written it."""
    path = folder / VERDICT
    if not path.exists() or why_untrusted(path):
        return None
    try:
        verdict = record(Verdict, read_json(path, follow_links=False), "it")
    except (OSError, ValueError) as error:
        log.warning("%s is damaged (%s): the plan is compared again", path, error)
        return None
    return verdict if verdict.circumstances == circumstances else None


def compare(
    found: Prediction, expected: Prediction, tolerance: float = TOLERANCE["half"], circumstances: str = ""
) -> Verdict:
    """Figures of one prediction against another of the same window."""
    depth, true = found.depth.double(), expected.depth.double()
    centres = [invert_rigid(each.cameras.camera_from_world.double())[:, :3, 3] for each in (found, expected)]
    axes = [each.cameras.camera_from_world[:, :3, :3].double() for each in (found, expected)]
    features, its = found.gaussians.features.double(), expected.gaussians.features.double()
    return Verdict(
        depth=float(((depth - true).flatten(1).norm(dim=1) / true.flatten(1).norm(dim=1)).max()),
        scale=float(((depth / true).flatten(1).median(dim=1).values - 1).abs().max()),
        translation=float((centres[0] - centres[1]).norm(dim=1).max() / true.median()),
        rotation=float(_angles(*axes).max()),
        features=float((features - its).norm() / its.norm()),
        tolerance=tolerance,
        circumstances=circumstances,
    )


def example_window(views: int, height: int, width: int) -> Window:
    """A picture of noise at several scales, seen from `views` places side by side: the same at every call."""
    noise = torch.Generator().manual_seed(0)
    shift = int(OVERLAP * width)
    picture = torch.zeros(1, 3, height, width + shift)
    for octave in range(OCTAVES):
        cells = torch.rand(1, 3, 2 + 2**octave, 3 + 2**octave, generator=noise)
        picture += F.interpolate(cells, picture.shape[-2:], mode="bilinear", align_corners=True) / 2**octave
    picture = picture[0] / picture.max()
    starts = [round(index * shift / (views - 1)) for index in range(views)]
    images = torch.stack([picture[:, :, start : start + width] for start in starts])
    return Window(images, tuple(range(views)), tuple(range(views)), None)


def _compared(
    run_torch: Predict,
    run_plan: Predict,
    views: int,
    size: tuple[int, int],
    tolerance: float,
    circumstances: str,
) -> Verdict:
    """On the usual window, or on the largest smaller one for which memory suffices."""
    while True:
        window = example_window(views, *size)
        try:
            expected = run_torch(window)
            free_cached_memory()
            found = run_plan(window)
            if found.keyframes is None:
                return compare(found, expected, tolerance, circumstances)
        except torch.OutOfMemoryError:
            free_cached_memory()
        if views <= MIN_VIEWS:
            raise PlanError(f"memory does not suffice to compare the plan with torch on {MIN_VIEWS} views: torch runs")
        views = max(MIN_VIEWS, views // 2)


def _angles(a: Float[Tensor, "views 3 3"], b: Float[Tensor, "views 3 3"]) -> Float[Tensor, " views"]:
    """Between rotations; by the distance of the matrices, which small angles do not drown in."""
    return 2 * ((a - b).flatten(1).norm(dim=1) / 8**0.5).clamp(max=1).asin()


def _remember(folder: Path, verdict: Verdict) -> None:
    try:
        with replaced(folder / VERDICT) as temporary:
            temporary.write_text(json.dumps(dataclasses.asdict(verdict), indent=1) + "\n")
    except OSError as error:
        log.warning("%s cannot be written (%s): the plan is compared again the next time", folder / VERDICT, error)
