"""`ff3r train`: from options to a run, in one process or as one of torchrun's."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ff3r_model.engine import device_named
from ff3r_model.training.distributed import joined
from ff3r_model.training.objectives.supervised import Part
from ff3r_model.training.recipe import Material, Settings, build, read_sections, save_result, settings_from
from ff3r_model.training.run_folder import LOG, PICTURES, RunError, RunFolder
from ff3r_model.training.trainer import Trainer

NEWCOMERS_MINUTES = 10.0
"""Budget where none is given."""
ON_A_CPU: dict[str, dict[str, Any]] = {
    "train": {"learning_rate": 5e-4},
    "sampling": {"views": (2, 3, 4), "total_views": 4, "long_side": 84},
    "paper": {"render_views": 2},
}
"""What makes a run on footage show something within minutes on a CPU, where rendering takes most time. All ours; a
config file and options go before it."""
FROM_SCRATCH: dict[str, dict[str, Any]] = {"train": {"learning_rate": 1e-3, "backbone_factor": 1.0, "muon": True}}
"""What suits weights that are random, and rooms, where all of `nano` is taught. Ours; goes last, as the other."""


@dataclass(frozen=True)
class Plan:
    """What to train and for how long; the fields are the options of `ff3r train`."""

    output: Path
    material: Material
    minutes: float | None = None
    steps: int | None = None
    config: Path | None = None
    part: Part | None = None
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
    try:
        wanted = device_named(plan.device)
    except ValueError as error:
        raise RunError(str(error)) from error
    settings = settings_of(plan, on_cpu=wanted.type == "cpu")
    logging.getLogger("ff3r_model.training").setLevel(logging.INFO)
    with joined(wanted) as (share, device):
        if share.rank == 0 and not plan.resume and RunFolder(plan.output).holds_a_run():
            raise RunError(f"{plan.output} holds a run already: go on with --resume, or choose another output folder")
        trainer = build(plan.material, settings, plan.output, device, share)
        if plan.resume:
            trainer.resume()
        trainer.run()
        return _finish(trainer, plan.material, settings) if share.rank == 0 else ""


def settings_of(plan: Plan, *, on_cpu: bool) -> Settings:
    """The options over the config file over what suits the kind of run. Raises RunError for what makes no sense."""
    scratch = plan.material.rooms is not None or plan.material.fresh
    if plan.part is not None and plan.material.rooms is None:
        raise RunError("--part is for --rooms: what images teach is not taught in parts")
    defaults = FROM_SCRATCH if scratch else ON_A_CPU if on_cpu else {}
    stated, options = read_sections(plan.config), _options(plan)
    names = [*defaults, *stated, *options]
    sections = {name: {**defaults.get(name, {}), **stated.get(name, {}), **options.get(name, {})} for name in names}
    train = sections["train"]
    if plan.minutes is not None or plan.steps is not None:
        train |= {"minutes": plan.minutes, "steps": plan.steps}
    elif train.get("minutes") is None and train.get("steps") is None:
        train["minutes"] = NEWCOMERS_MINUTES
    return settings_from(sections)


def _options(plan: Plan) -> dict[str, dict[str, Any]]:
    """The options that were given, by section."""
    views = {"views": plan.views or None, "total_views": plan.total_views}
    sections: dict[str, dict[str, Any]] = {
        "train": {"learning_rate": plan.learning_rate, "seed": plan.seed, "workers": plan.workers},
        "sampling": views | {"long_side": plan.long_side},
        "rooms": views,
        "supervised": {"part": plan.part},
    }
    return {
        name: {key: value for key, value in values.items() if value is not None} for name, values in sections.items()
    }


def _finish(trainer: Trainer, material: Material, settings: Settings) -> str:
    """Write the checkpoint where its text tower is known, and say how the loss and the pictures went."""
    figures = trainer.folder.course()
    changes = [f"{name} {first:.3f} → {last:.3f}" for name, (first, last) in figures.items()]
    folder = trainer.folder.path
    lines = [f"{trainer.step} steps in {trainer.elapsed / 60:.1f} minutes; " + ", ".join(changes)]
    lines += [f"  {folder / PICTURES}: pictures along the way", f"  {folder / LOG}: losses"]
    if material.text_targets is not None:  # the tower that goes with them is not known here
        return "\n".join(
            [*lines, f"  make a checkpoint of it: python -m ff3r_model.training.ship {folder} --text TOWER"]
        )
    path = save_result(trainer, material, settings, figures)
    return "\n".join([*lines, f"  {path}: use it with `ff3r reconstruct --weights {path}`"])
