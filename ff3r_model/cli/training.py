"""`ff3r train`: from options to a run, in one process or as one of torchrun's."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ff3r_model.engine import device_named
from ff3r_model.training.errors import RunError
from ff3r_model.training.parallel import joined
from ff3r_model.training.recipe import Material, Settings, build, read_settings, save_result
from ff3r_model.training.run_folder import LOG, PICTURES
from ff3r_model.training.train import Trainer

NEWCOMERS_MINUTES = 10.0
"""Budget where none is given."""


@dataclass(frozen=True)
class Plan:
    """What to train and for how long; the fields are the options of `ff3r train`."""

    output: Path
    material: Material
    minutes: float | None = None
    steps: int | None = None
    config: Path | None = None
    long_side: int | None = None
    views: tuple[int, ...] = ()
    total_views: int | None = None
    learning_rate: float | None = None
    seed: int | None = None
    workers: int | None = None
    device: str = "auto"
    resume: bool = False


def train(plan: Plan) -> str:
    """Run it; returns the summary. Raises RunError, DataError, CheckpointError, SourceError."""
    settings = read_settings(plan.config, _overrides(plan))
    try:
        wanted = device_named(plan.device)
    except ValueError as error:
        raise RunError(str(error)) from error
    logging.getLogger("ff3r_model.training").setLevel(logging.INFO)
    with joined(wanted) as (share, device):
        trainer = build(plan.material, settings, plan.output, device, share)
        if plan.resume:
            trainer.resume()
        elif trainer.folder.holds_a_run() and share.rank == 0:
            raise RunError(f"{plan.output} holds a run already: go on with --resume, or choose another output folder")
        trainer.run()
        return _finish(trainer, plan.material, settings) if share.rank == 0 else ""


def _overrides(plan: Plan) -> dict[str, dict[str, Any]]:
    """The options that were given, by section."""
    budgeted = plan.config is not None and "train" in _sections(plan.config)
    minutes = plan.minutes
    if minutes is None and plan.steps is None and not budgeted:
        minutes = NEWCOMERS_MINUTES
    train = {"learning_rate": plan.learning_rate, "seed": plan.seed, "workers": plan.workers}
    budget: dict[str, Any] = {"minutes": minutes, "steps": plan.steps} if minutes or plan.steps else {}
    views = {"views": plan.views or None, "total_views": plan.total_views}
    sections: dict[str, dict[str, Any]] = {
        "train": train,
        "sampling": views | {"long_side": plan.long_side},
        "rooms": views,
    }
    given = {
        name: {key: value for key, value in values.items() if value is not None} for name, values in sections.items()
    }
    given["train"] |= budget
    return given


def _sections(path: Path) -> dict[str, Any]:
    try:
        stated = json.loads(path.read_text())
        return stated if isinstance(stated, dict) else {}
    except (OSError, ValueError):
        return {}  # said where it is read


def _finish(trainer: Trainer, material: Material, settings: Settings) -> str:
    """Write the checkpoint, and say how the loss and the pictures went."""
    figures = trainer.folder.course()
    path = save_result(trainer, material, settings, figures)
    changes = [f"{name} {first:.3f} → {last:.3f}" for name, (first, last) in figures.items()]
    folder = trainer.folder.path
    lines = [f"{trainer.step} steps in {trainer.elapsed / 60:.1f} minutes; " + ", ".join(changes)]
    lines += [f"  {folder / PICTURES}: pictures along the way", f"  {folder / LOG}: losses"]
    return "\n".join([*lines, f"  {path}: use it with `ff3r reconstruct --weights {path}`"])
