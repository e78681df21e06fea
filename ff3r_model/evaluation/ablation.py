"""`python -m ff3r_model.evaluation.ablation`: the paper's Tables 3 and 4 on procedural rooms, at a budget of our size.

Every run starts from trained weights (nano's) whose fusion and Gaussian head are made anew, sees the same windows for
the same number of steps, and is judged on the same held-out rooms; only the switches differ. Runs that are finished are
not repeated, and one that was interrupted goes on where it was saved.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import mean, stdev
from typing import Any, Literal

import torch
import tyro

from ff3r_model.engine.torch_engine import TorchEngine
from ff3r_model.evaluation.accumulators import Figures
from ff3r_model.evaluation.benchmark import BenchmarkConfig, Judge, run
from ff3r_model.evaluation.held_out_rooms import windows
from ff3r_model.evaluation.novel_views import NovelConfig
from ff3r_model.evaluation.vocabulary import of_rooms
from ff3r_model.network.checkpoint import NANO_WEIGHTS, Checkpoint, load_checkpoint
from ff3r_model.network.fusion import Fusion
from ff3r_model.network.gaussian_head import GaussianHead
from ff3r_model.network.model import FF3R
from ff3r_model.synthetic import CLASSES, COLORS
from ff3r_model.training.config import TrainConfig
from ff3r_model.training.datasets.room_windows import RoomConfig, RoomWindows
from ff3r_model.training.objectives.paper import PaperConfig, PaperObjective, without_fusion
from ff3r_model.training.objectives.perceptual import LPIPS
from ff3r_model.training.run_folder import STATE, RunError
from ff3r_model.training.teachers import NetworkTeacher, SyntheticTeacher, Teacher
from ff3r_model.training.text.target_space import color_phrases
from ff3r_model.training.trainer import Trainer

log = logging.getLogger(__name__)

SETTINGS, FIGURES, TABLE, RESULT = "settings.json", "figures.json", "ablation.md", "ablation.json"
UNMERGED = 1e-4
"""Edge of the evaluation's voxels, as a share of the median depth, at which hardly any two Gaussians meet."""
COLUMNS = {
    "psnr": "PSNR ↑", "ssim": "SSIM ↑", "lpips": "LPIPS ↓", "miou_rendered": "mIoU ↑", "accuracy_rendered": "Acc. ↑",
    "depth_rel": "Rel ↓", "auc30": "AUC@30 ↑", "voxels": "Gaussians",
}  # fmt: skip
"""Figures of the benchmark that the table shows; the first five are of held-out views, as in the paper."""


@dataclass(frozen=True)
class Variant:
    """One row of the tables."""

    name: str
    fusion: bool
    warping: bool
    voxelization: bool
    distillation: bool = True


TABLE_3 = (
    Variant("base", fusion=False, warping=False, voxelization=False),
    Variant("+ fusion", fusion=True, warping=False, voxelization=False),
    Variant("+ warping", fusion=True, warping=True, voxelization=False),
    Variant("+ semantic voxelization", fusion=True, warping=True, voxelization=True),
)
TABLE_4 = (TABLE_3[-1], replace(TABLE_3[-1], name="without distillation", distillation=False))
VARIANTS = (*TABLE_3, TABLE_4[-1])


@dataclass(frozen=True)
class AblationConfig:
    """What all runs share. The budget is ours, and small: the paper trains for days."""

    rooms: Path
    """Folder of rendered training rooms (`python -m ff3r_model.training.datasets.room_shards`)."""
    output: Path
    seeds: tuple[int, ...] = (0, 1)
    steps: int = 400
    views: int = 4
    """Views of a window."""
    total_views: int = 8
    """Views per step."""
    render_views: int = 2
    """Views rendered per window and step."""
    learning_rate: float = 1e-3
    backbone_factor: float = 0.1
    teacher: Literal["network", "truth"] = "network"
    """network: the starting weights' own cameras, depth and features, as the paper learns from VGGT and LSeg; truth:
    what the rooms really are."""
    weights: Path = NANO_WEIGHTS
    trunk: Path | None = None
    """VGG-16 for LPIPS, in the loss and in the table."""
    test_views: int = 8
    test_rooms: int = 30
    """Held-out rooms that every run is judged on, from seed 0."""
    device: str = "cpu"


def ablate(config: AblationConfig) -> Path:
    """Run all variants with all seeds, then write the tables; returns the Markdown file's path.

    Raises RunError where the output folder holds runs with other settings.
    """
    _claim(config)
    figures = {variant.name: {seed: _figures(config, variant, seed) for seed in config.seeds} for variant in VARIANTS}
    result = {"settings": _settings(config), "figures": figures}
    (config.output / RESULT).write_text(json.dumps(result, indent=1) + "\n")
    path = config.output / TABLE
    path.write_text(report(config, figures))
    return path


def report(config: AblationConfig, figures: dict[str, dict[int, Figures]]) -> str:
    """Both tables as Markdown, mean ± standard deviation over the seeds, and what they were made with."""
    tables = [("Table 3: components", TABLE_3), ("Table 4: distillation", TABLE_4)]
    parts = [f"### {title}\n\n" + _table(variants, figures) for title, variants in tables]
    return "\n".join([*parts, _conditions(config)])


def _table(variants: Sequence[Variant], figures: dict[str, dict[int, Figures]]) -> str:
    header = "| | " + " | ".join(COLUMNS.values()) + " |\n|---|" + "---|" * len(COLUMNS) + "\n"
    rows = []
    for variant in variants:
        runs = list(figures[variant.name].values())
        cells = [_cell([value for each in runs if (value := each.get(name)) is not None]) for name in COLUMNS]
        rows.append(f"| {variant.name} | " + " | ".join(cells) + " |\n")
    return header + "".join(rows)


def _cell(values: Sequence[float]) -> str:
    if not values:
        return "–"
    digits = 0 if mean(values) > 1000 else 2 if mean(values) > 2 else 3
    spread = f" ± {stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{mean(values):.{digits}f}{spread}"


def _conditions(config: AblationConfig) -> str:
    taught = "the starting weights themselves" if config.teacher == "network" else "the rooms' exact truth"
    perceptual = "LPIPS" if config.trunk else "SSIM in LPIPS' place (no VGG-16 was given)"
    return (
        f"\n{config.steps} steps of {config.total_views} views (windows of {config.views}, {config.render_views} views "
        f"rendered of each), seeds {', '.join(map(str, config.seeds))}; teacher: {taught}; image loss with "
        f"{perceptual}. Judged on {config.test_rooms} held-out rooms of {config.test_views} views; ± is the standard "
        "deviation over seeds.\n"
    )


def _claim(config: AblationConfig) -> None:
    """Make the output folder this ablation's own."""
    config.output.mkdir(parents=True, exist_ok=True)
    path, settings = config.output / SETTINGS, _settings(config)
    if path.exists() and (before := json.loads(path.read_text())) != settings:
        changed = sorted(name for name in settings if settings[name] != before.get(name))
        raise RunError(f"{config.output} holds runs with other {', '.join(changed)}: choose another output folder")
    path.write_text(json.dumps(settings, indent=1) + "\n")


def _settings(config: AblationConfig) -> dict[str, Any]:
    """What runs must share to be compared."""
    shared = {name: value for name, value in asdict(config).items() if name not in ("output", "device", "seeds")}
    plain: dict[str, Any] = json.loads(json.dumps(shared, default=str))
    return plain


def _figures(config: AblationConfig, variant: Variant, seed: int) -> Figures:
    """Train and judge one run, or read what it gave before."""
    folder = config.output / f"{variant.name.strip('+ ').replace(' ', '_')}_{seed}"
    path = folder / FIGURES
    if not path.exists():
        log.info("%s, seed %d", variant.name, seed)
        start = load_checkpoint(config.weights)
        trainer = _trainer(config, variant, seed, start, folder)
        if (folder / STATE).exists():
            trainer.resume()
        if not trainer.run():
            raise KeyboardInterrupt
        trainer.network.load_state_dict(trainer.average)
        figures = judge(config, variant, trainer.network, start) | {"train_seconds": trainer.elapsed}
        trainer.folder.file(FIGURES).write_text(json.dumps(figures, indent=1) + "\n")
    found: Figures = json.loads(path.read_text())
    return found


def _trainer(config: AblationConfig, variant: Variant, seed: int, start: Checkpoint, folder: Path) -> Trainer:
    objective = PaperObjective(
        PaperConfig(
            warping=variant.warping,
            voxelization=variant.voxelization,
            distillation=variant.distillation,
            trunk=config.trunk,
            render_views=config.render_views,
        )
    )
    training = TrainConfig(
        steps=config.steps,
        learning_rate=config.learning_rate,
        backbone_factor=config.backbone_factor,
        bfloat16=config.device != "cpu",
        seed=seed,
        picture_minutes=0.0,
    )
    rooms = RoomWindows(config.rooms, seed, RoomConfig(config.total_views, (config.views,)))
    network = fresh_heads(config, variant, seed)
    teacher = _teacher(config, start)
    return Trainer(network, objective, rooms, training, folder, teacher=teacher, device=config.device)


def fresh_heads(config: AblationConfig, variant: Variant, seed: int) -> FF3R:
    """The starting weights with a new fusion and a new Gaussian head, the same for all variants of a seed."""
    network = load_checkpoint(config.weights).network.requires_grad_(True)
    torch.manual_seed(seed)
    sizes = network.config
    network.fusion = Fusion(sizes.fusion, 2 * sizes.width, sizes.semantics.vit.width, sizes.fusion_residual)
    network.gaussian_head = GaussianHead(sizes)
    network.gaussian_head.start_plain()
    if not variant.fusion:
        without_fusion(network)
    return network


def _teacher(config: AblationConfig, start: Checkpoint) -> Teacher:
    if config.teacher == "network":
        return NetworkTeacher(load_checkpoint(config.weights, config.device).network)
    encode = start.text_encoder.encode
    return SyntheticTeacher(encode(list(CLASSES)), encode(color_phrases(CLASSES, COLORS)))


def judge(config: AblationConfig, variant: Variant, network: FF3R, start: Checkpoint) -> Figures:
    """The network's figures on held-out rooms, their Gaussians merged or not as in training."""
    learned = PaperConfig()
    novel = NovelConfig(learned.epsilon if variant.voxelization else UNMERGED, learned.distance_weight)
    trunk = None if config.trunk is None else LPIPS(config.trunk)
    engine = TorchEngine(network.cpu())
    jury = Judge(start.text_encoder.encode, network.text_space, of_rooms()[:1], BenchmarkConfig(novel=novel), trunk)
    for _ in run(windows(config.test_views, range(config.test_rooms)), engine, jury, torch.device("cpu"), None):
        pass
    return jury.figures()


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    print(ablate(tyro.cli(AblationConfig, description=__doc__)).read_text())


if __name__ == "__main__":
    main()
