"""Fusion and Gaussian decoder on Depth Anything 3's geometry train by the same objectives as on VGGT's."""

from __future__ import annotations

from dataclasses import replace

import torch

from benchmarks.network.standin import tiny_da3
from ff3r_model.network import FF3R, FF3RConfig
from ff3r_model.synthetic import CLASSES, COLORS
from ff3r_model.training.objectives.paper import PaperConfig, PaperObjective
from ff3r_model.training.objectives.supervised import LossWeights, Objective, SupervisedConfig, TextTargets
from ff3r_model.training.optimization import recompute_activations
from tests.training.test_paper_objective import batch, tiny


def config() -> FF3RConfig:
    """The geometry of tiny-da3, everything else as the other tests of training have it."""
    da3 = tiny_da3()
    return replace(tiny(), encoder=da3.encoder, da3=da3.da3, depth=da3.depth)


def network() -> FF3R:
    torch.manual_seed(0)
    return FF3R(config())


def untouched(student: FF3R) -> set[str]:
    """Weights without a gradient."""
    return {name for name, p in student.named_parameters() if p.grad is None or not p.grad.any()}


def test_every_part_learns_from_a_teacher_and_the_loss_falls() -> None:
    student, objective, window = network(), PaperObjective(PaperConfig(render_views=2)), batch()
    recompute_activations(student)
    optimizer = torch.optim.AdamW(student.parameters(), lr=1e-3)
    totals, still = [], set[str]()
    for _ in range(6):
        torch.manual_seed(0)
        total = objective(student, window)["total"]
        optimizer.zero_grad()
        total.backward()
        still = still & untouched(student) if totals else untouched(student)
        torch.nn.utils.clip_grad_norm_(student.parameters(), 0.5)
        optimizer.step()
        totals.append(float(total.detach()))
    assert not {name for name in still if not name.startswith(("aggregator.camera_encoder.", "lseg."))}
    assert totals[-1] < totals[0], totals


def test_every_part_learns_from_rooms() -> None:
    student, window, text = network(), batch(), config().text_width
    classes, phrases = torch.randn(len(CLASSES), text), torch.randn(len(CLASSES) * len(COLORS), text)
    targets = TextTargets(torch.nn.functional.normalize(classes), torch.nn.functional.normalize(phrases))
    settings = SupervisedConfig(LossWeights(), "all", matching_blocks=(0, 1), pixels_per_view=64)
    objective = Objective(settings, targets, student.config.width)
    terms = objective(student, window)
    terms["total"].backward()
    assert all(term.isfinite() for term in terms.values())
    assert all(name.startswith("aggregator.camera_encoder.") for name in untouched(student)), untouched(student)
