"""From the options of `ff3r train` to a trainer that is ready to run, and from its weights to a checkpoint."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ff3r_model.network import FF3R
from ff3r_model.network.checkpoint import Checkpoint, CheckpointError, load_checkpoint, save_checkpoint
from ff3r_model.network.public_weights.read_weights import read_tensors
from ff3r_model.synthetic import CLASSES, COLORS
from ff3r_model.training.datasets.base import Scene, Share, Windows
from ff3r_model.training.datasets.dl3dv import open_dl3dv
from ff3r_model.training.datasets.footage import open_footage
from ff3r_model.training.datasets.room_windows import RoomWindows
from ff3r_model.training.datasets.scannet import open_scannet
from ff3r_model.training.datasets.scene_windows import SamplingConfig, SceneWindows
from ff3r_model.training.objectives.paper import PaperObjective
from ff3r_model.training.objectives.supervised import Objective, TextTargets
from ff3r_model.training.run_folder import CHECKPOINT, FRAMES, SETTINGS, TEACHER, RunError
from ff3r_model.training.settings import DataSources, Settings, plain
from ff3r_model.training.snapshots import WORDS, Snapshots
from ff3r_model.training.target_cache import TargetCache
from ff3r_model.training.teachers import NetworkTeacher, Teacher
from ff3r_model.training.text.target_space import color_phrases
from ff3r_model.training.trainer import Trainer

log = logging.getLogger(__name__)

PREVIEW_STEP = 2**40
"""The number of a step that no run reaches: from there on comes the window that the pictures show."""
SAME_WORDS = 0.99
"""Cosine of a word's vectors that two text encoders of one space give, be their weights stored wide or narrow."""
PREVIEWS = 8
"""Windows of which the largest one is drawn."""


def build(sources: DataSources, settings: Settings, out: Path, device: torch.device, share: Share) -> Trainer:
    """The trainer of a run. Raises DataError, RunError, CheckpointError and SourceError that say what is wrong."""
    start = load_checkpoint(sources.weights)
    network = student(start, fresh=sources.fresh, seed=settings.train.seed)
    settings = replace(settings, sampling=_fitted(settings.sampling, network))
    windows = _windows(sources, settings, network, out)
    objective, teacher = _objective(sources, settings, start, network, out, device)
    snapshots = None
    if settings.train.picture_minutes and share.rank == 0:
        snapshots = _snapshots(sources, windows, start)
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
        trainer.folder.file(SETTINGS).write_text(json.dumps(plain(settings), indent=1) + "\n")
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


def save_result(trainer: Trainer, sources: DataSources, settings: Settings, figures: Mapping[str, Any]) -> Path:
    """The averaged weights with the text tower they go with, as `ff3r reconstruct --weights` takes them."""
    start = load_checkpoint(sources.weights)
    network = FF3R(trainer.network.config)
    network.load_state_dict({name: value.cpu() for name, value in trainer.average.items()})
    path = trainer.folder.file(CHECKPOINT)
    taught = "exact truth of synthetic rooms" if sources.rooms else str(sources.teacher or sources.weights or "nano")
    card = {
        "made_from": {"weights": "random" if sources.fresh else str(sources.weights or "nano"), "teacher": taught},
        "steps": trainer.step,
        "seconds": round(trainer.elapsed),
        "settings": plain(settings),
        "figures": dict(figures),
        "start": start.card,
    }
    save_checkpoint(path, network, start.text_encoder, mode="trained", card=card)
    return path


def _fitted(sampling: SamplingConfig, network: FF3R) -> SamplingConfig:
    """No larger than the network is meant for, unless the settings ask for less."""
    return replace(sampling, long_side=min(sampling.long_side, network.config.image_side))


def _windows(sources: DataSources, settings: Settings, network: FF3R, out: Path) -> Windows:
    seed = settings.train.seed
    if sources.rooms is not None:
        return RoomWindows(sources.rooms, seed, settings.rooms)
    scenes: list[Scene] = [*open_footage(sources.images, out / FRAMES)]
    if sources.dl3dv is not None:
        scenes += open_dl3dv(sources.dl3dv)
    if sources.scannet is not None:
        scenes += open_scannet(sources.scannet)
    log.info("%d scenes, %d images", len(scenes), sum(map(len, scenes)))
    return SceneWindows(scenes, seed, network.config.encoder.patch, settings.sampling)


def _objective(
    sources: DataSources, settings: Settings, start: Checkpoint, network: FF3R, out: Path, device: torch.device
) -> tuple[nn.Module, Teacher | None]:
    if sources.rooms is not None:
        targets = room_targets(sources, start)
        depth = network.config.global_blocks
        for block in (*settings.supervised.matching_blocks, *settings.supervised.pose_blocks):
            if not -depth <= block < depth:
                raise RunError(f"supervised.matching_blocks and pose_blocks: the network has {depth}, not {block}")
        return Objective(settings.supervised, targets, network.config.width), None
    taught = start if sources.teacher is None else load_checkpoint(sources.teacher)
    if taught.config.text_width != network.config.text_width:
        raise RunError(
            f"the teacher's text space has {taught.config.text_width} dimensions and the network's "
            f"{network.config.text_width}: give a teacher that goes with the weights"
        )
    if taught is not start:
        _check_same_space(start, taught)
    cache = TargetCache(sources.cache or out / TEACHER, taught.network, sources.cache_gigabytes)
    return PaperObjective(settings.paper), NetworkTeacher(taught.network.to(device), cache)


def _check_same_space(start: Checkpoint, taught: Checkpoint) -> None:
    """Raises RunError where a teacher's words are others, though as wide: its features would mean something else."""
    words = list(WORDS)
    cosines = (start.text_encoder.encode(words) * taught.text_encoder.encode(words)).sum(dim=1)
    if float(cosines.min()) < SAME_WORDS:
        raise RunError(
            f"the teacher embeds words in another text space than the weights do ({words[int(cosines.argmin())]!r}: "
            f"cosine {float(cosines.min()):.2f}): give a teacher that goes with the weights"
        )


def _snapshots(sources: DataSources, windows: Windows, start: Checkpoint) -> Snapshots:
    """Pictures of a window; its words are those that the network's text space is known for."""
    several = (windows.batch(PREVIEW_STEP + index, Share()).images[0] for index in range(PREVIEWS))
    preview = max(several, key=len)  # the more views, the more they must agree on
    if sources.text_targets is not None:
        return Snapshots(preview, room_targets(sources, start).classes, CLASSES)
    return Snapshots(preview, start.text_encoder.encode(list(WORDS)))


def room_targets(sources: DataSources, start: Checkpoint) -> TextTargets:
    """What the rooms' classes and colour phrases are in the text's space. Raises RunError for a file without them."""
    if sources.text_targets is not None:
        try:
            saved = read_tensors(sources.text_targets)
            return TextTargets(saved["class_targets"].float(), saved["phrase_targets"].float())
        except (CheckpointError, KeyError) as error:
            raise RunError(f"{sources.text_targets} holds no class_targets and phrase_targets: {error}") from error
    phrases = color_phrases(CLASSES, COLORS)
    return TextTargets(start.text_encoder.encode(list(CLASSES)), start.text_encoder.encode(phrases))
