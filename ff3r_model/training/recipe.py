"""From the options of `ff3r train` to a trainer that is ready to run, and from its weights to a checkpoint."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from ff3r_model.network import FF3R
from ff3r_model.network.checkpoint import NANO_WEIGHTS, Checkpoint, load_checkpoint, save_checkpoint
from ff3r_model.synthetic import CLASSES, COLORS
from ff3r_model.training.config import TrainConfig
from ff3r_model.training.datasets.base import Scene, Share, Windows
from ff3r_model.training.datasets.dl3dv import open_dl3dv
from ff3r_model.training.datasets.footage import open_footage
from ff3r_model.training.datasets.room_windows import RoomConfig, RoomWindows
from ff3r_model.training.datasets.scannet import open_scannet
from ff3r_model.training.datasets.scene_windows import SamplingConfig, SceneWindows
from ff3r_model.training.objectives.paper import PaperConfig, PaperObjective
from ff3r_model.training.objectives.supervised import Objective, SupervisedConfig, TextTargets
from ff3r_model.training.run_folder import CHECKPOINT, RunError
from ff3r_model.training.snapshots import WORDS, Snapshots
from ff3r_model.training.target_cache import TargetCache
from ff3r_model.training.teachers import NetworkTeacher, Teacher
from ff3r_model.training.text.target_space import color_phrases
from ff3r_model.training.trainer import Trainer

log = logging.getLogger(__name__)

SETTINGS = "config.json"
PREVIEW_STEP = 2**40
"""The number of a step that no run reaches: from there on comes the window that the pictures show."""
PREVIEWS = 8
"""Windows of which the largest one is drawn."""
Section = TypeVar("Section")


@dataclass(frozen=True)
class Settings:
    """Everything a run is configured by beside its data; the sections of the file of `--config`."""

    train: TrainConfig
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    rooms: RoomConfig = field(default_factory=RoomConfig)
    paper: PaperConfig = field(default_factory=PaperConfig)
    supervised: SupervisedConfig = field(default_factory=SupervisedConfig)


@dataclass(frozen=True)
class Material:
    """What a run learns from and starts with."""

    images: tuple[Path, ...] = ()
    """Folders of images and videos."""
    dl3dv: Path | None = None
    scannet: Path | None = None
    rooms: Path | None = None
    """A folder of shards of synthetic rooms."""
    weights: Path | None = None
    """Checkpoint to start from; None: nano."""
    teacher: Path | None = None
    """Checkpoint whose word is learned; None: `weights`."""
    fresh: bool = False
    """Start from random weights in the shape of `weights`."""
    text_targets: Path | None = None
    """Embeddings of the rooms' classes and phrases; None: the text tower's."""
    cache: Path | None = None
    """Folder of the teacher's targets; None: in the run's folder."""
    cache_gigabytes: float = 50.0

    def __post_init__(self) -> None:
        real = bool(self.images or self.dl3dv or self.scannet)
        if real == (self.rooms is not None):
            raise RunError("give real footage (--images, --dl3dv, --scannet) or --rooms to learn from, and not both")


def build(material: Material, settings: Settings, out: Path, device: torch.device, share: Share) -> Trainer:
    """The trainer of a run. Raises DataError, RunError, CheckpointError and SourceError that say what is wrong."""
    start = load_checkpoint(material.weights or NANO_WEIGHTS)
    network = student(start, fresh=material.fresh, seed=settings.train.seed)
    settings = replace(settings, sampling=_fitted(settings.sampling, network))
    windows = _windows(material, settings, network, out)
    objective, teacher = _objective(material, settings, start, network, out, device)
    snapshots = None
    if settings.train.picture_minutes and share.rank == 0:
        snapshots = _snapshots(material, windows, start)
    trainer = Trainer(
        network,
        objective,
        windows,
        settings.train,
        out,
        teacher=teacher,
        snapshots=snapshots,
        device=device,
        share=share,
    )
    if share.rank == 0:
        (out / SETTINGS).write_text(json.dumps(_plain(settings), indent=1) + "\n")
    return trainer


def student(start: Checkpoint, *, fresh: bool, seed: int) -> FF3R:
    """The network to train: the checkpoint's own, with fusion and Gaussian head added where it has none."""
    torch.manual_seed(seed)
    network = FF3R(replace(start.config, decode_gaussians=True))
    if not fresh:
        missing = network.load_state_dict(start.network.state_dict(), strict=False).missing_keys
        foreign = [name for name in missing if not name.startswith(("fusion.", "gaussian_head."))]
        assert not foreign, f"the checkpoint was read strictly, and yet {foreign} are missing"
    else:
        network.feature_decoder.load_state_dict(start.network.feature_decoder.state_dict())
    return network


def save_result(trainer: Trainer, material: Material, settings: Settings, figures: Mapping[str, Any]) -> Path:
    """The averaged weights with the text tower they go with, as `ff3r reconstruct --weights` takes them."""
    start = load_checkpoint(material.weights or NANO_WEIGHTS)
    network = FF3R(trainer.network.config)
    network.load_state_dict({name: value.cpu() for name, value in trainer.average.items()})
    path = trainer.folder.path / CHECKPOINT
    taught = "exact truth of synthetic rooms" if material.rooms else str(material.teacher or material.weights or "nano")
    card = {
        "made_from": {"weights": "random" if material.fresh else str(material.weights or "nano"), "teacher": taught},
        "steps": trainer.step,
        "seconds": round(trainer.elapsed),
        "settings": _plain(settings),
        "figures": dict(figures),
        "start": start.card,
    }
    save_checkpoint(path, network, start.text_encoder, mode="trained", card=card)
    return path


def read_sections(path: Path | None) -> dict[str, dict[str, Any]]:
    """The sections of a settings file; none without a file. Raises RunError for a file that is no such thing."""
    if path is None:
        return {}
    try:
        stated = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise RunError(f"{path} cannot be read as JSON: {error}") from error
    if not isinstance(stated, dict) or not all(isinstance(section, dict) for section in stated.values()):
        raise RunError(f'{path} should be an object of sections, such as {{"train": {{"steps": 1000}}}}')
    return stated


def settings_from(sections: Mapping[str, Mapping[str, Any]]) -> Settings:
    """Settings with these values, and defaults for the rest. Raises RunError naming what it does not know."""
    kinds = {
        "train": TrainConfig,
        "sampling": SamplingConfig,
        "rooms": RoomConfig,
        "paper": PaperConfig,
        "supervised": SupervisedConfig,
    }
    if unknown := sorted(set(sections) - set(kinds)):
        raise RunError(f"there is no section {', '.join(unknown)} in the settings; known are {', '.join(kinds)}")
    return Settings(**{name: _section(kind, dict(sections.get(name, {})), name) for name, kind in kinds.items()})


def _section(kind: type[Section], values: dict[str, Any], where: str) -> Section:
    known = {f.name: f for f in fields(kind)}  # type: ignore[arg-type]
    if unknown := sorted(set(values) - set(known)):
        raise RunError(f"{where} has no {', '.join(unknown)}; it has {', '.join(sorted(known))}")
    try:
        return kind(**{name: _value(known[name].default_factory, value, name) for name, value in values.items()})
    except (TypeError, ValueError) as error:
        raise RunError(f"{where}: {error}") from error


def _value(factory: Any, value: Any, name: str) -> Any:
    if is_dataclass(factory) and isinstance(value, dict):
        return _section(factory, value, name)  # type: ignore[arg-type]
    if name == "trunk" and value is not None:
        return Path(value)
    return tuple(value) if isinstance(value, list) else value


def _plain(settings: Settings) -> dict[str, Any]:
    """As JSON can hold it."""
    plain: dict[str, Any] = json.loads(json.dumps(asdict(settings), default=str))
    return plain


def _fitted(sampling: SamplingConfig, network: FF3R) -> SamplingConfig:
    """No larger than the network is meant for, unless the settings ask for less."""
    return replace(sampling, long_side=min(sampling.long_side, network.config.image_side))


def _windows(material: Material, settings: Settings, network: FF3R, out: Path) -> Windows:
    seed = settings.train.seed
    if material.rooms is not None:
        return RoomWindows(material.rooms, seed, settings.rooms)
    scenes: list[Scene] = [*open_footage(material.images, out / "frames")]
    if material.dl3dv is not None:
        scenes += open_dl3dv(material.dl3dv)
    if material.scannet is not None:
        scenes += open_scannet(material.scannet)
    log.info("%d scenes, %d images", len(scenes), sum(map(len, scenes)))
    return SceneWindows(scenes, seed, network.config.encoder.patch, settings.sampling)


def _objective(
    material: Material, settings: Settings, start: Checkpoint, network: FF3R, out: Path, device: torch.device
) -> tuple[nn.Module, Teacher | None]:
    if material.rooms is not None:
        targets = room_targets(material, start)
        return Objective(settings.supervised, targets, network.config.width), None
    taught = start if material.teacher is None else load_checkpoint(material.teacher)
    if taught.config.text_width != network.config.text_width:
        raise RunError(
            f"the teacher's text space has {taught.config.text_width} dimensions and the network's "
            f"{network.config.text_width}: give a teacher that goes with the weights"
        )
    cache = TargetCache(material.cache or out / "teacher", taught.network, material.cache_gigabytes)
    return PaperObjective(settings.paper), NetworkTeacher(taught.network.to(device), cache)


def _snapshots(material: Material, windows: Windows, start: Checkpoint) -> Snapshots:
    """Pictures of a window; its words are those that the network's text space is known for."""
    several = (windows.batch(PREVIEW_STEP + index, Share()).images[0] for index in range(PREVIEWS))
    preview = max(several, key=len)  # the more views, the more they must agree on
    if material.text_targets is not None:
        return Snapshots(preview, room_targets(material, start).classes, CLASSES)
    return Snapshots(preview, start.text_encoder.encode(list(WORDS)))


def room_targets(material: Material, start: Checkpoint) -> TextTargets:
    """What the rooms' classes and colour phrases are in the text's space."""
    if material.text_targets is not None:
        saved = torch.load(material.text_targets, weights_only=True)
        return TextTargets(saved["class_targets"].float(), saved["phrase_targets"].float())
    phrases = color_phrases(CLASSES, COLORS)
    return TextTargets(start.text_encoder.encode(list(CLASSES)), start.text_encoder.encode(phrases))
