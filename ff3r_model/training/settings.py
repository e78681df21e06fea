"""What a training run is told: its data, the sections of its settings file, and what suits each kind of run."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from ff3r_model.core.checked import read_json
from ff3r_model.core.config_file import ConfigError, build, check_tree
from ff3r_model.core.types import MIN_VIEWS
from ff3r_model.training.config import TrainConfig
from ff3r_model.training.datasets.room_windows import RoomConfig
from ff3r_model.training.datasets.scene_windows import SamplingConfig
from ff3r_model.training.objectives.paper import PaperConfig
from ff3r_model.training.objectives.supervised import SupervisedConfig
from ff3r_model.training.run_folder import RunError

Sections = dict[str, dict[str, Any]]
"""Values by section and name."""

NEWCOMERS_MINUTES = 10.0
"""Budget where none is given."""
ON_A_CPU: Sections = {
    "train": {"learning_rate": 5e-4},
    "sampling": {"views": (2, 3, 4), "total_views": 4, "long_side": 84},
    "paper": {"render_views": 2},
}
"""What makes a run on footage show something within minutes on a CPU, where rendering takes most time. All ours; a
config file and options go before it."""
FROM_SCRATCH: Sections = {"train": {"learning_rate": 1e-3, "backbone_factor": 1.0, "muon": True}}
"""What suits weights that are random, and rooms, where all of `nano` is taught. Ours; goes last, as the other."""


@dataclass(frozen=True)
class Settings:
    """Everything a run is configured by beside its data; the sections of the file of `--config`."""

    train: TrainConfig
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    rooms: RoomConfig = field(default_factory=RoomConfig)
    paper: PaperConfig = field(default_factory=PaperConfig)
    supervised: SupervisedConfig = field(default_factory=SupervisedConfig)

    def __post_init__(self) -> None:
        seen = min(self.sampling.views) - self.paper.target_views
        if self.paper.target_views and seen < MIN_VIEWS:
            raise ValueError(
                f"paper.target_views must leave the network {MIN_VIEWS} views of the smallest window, not {seen} of "
                f"{min(self.sampling.views)}"
            )


@dataclass(frozen=True)
class DataSources:
    """What a run learns from and starts with."""

    images: tuple[Path, ...] = ()
    """Folders of images and videos."""
    dl3dv: Path | None = None
    scannet: Path | None = None
    rooms: Path | None = None
    """A folder of shards of synthetic rooms."""
    weights: str | Path | None = None
    """Checkpoint to start from; None: nano."""
    teacher: str | Path | None = None
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
        if not 0 <= self.cache_gigabytes < math.inf:
            raise RunError(f"--cache-gigabytes must be at least 0, not {self.cache_gigabytes}")


def settings_for(sources: DataSources, stated: Sections, options: Sections, *, on_cpu: bool) -> Settings:
    """The options over the settings file over what suits the kind of run.

    Raises RunError for what makes no sense, naming the section and the key that it does not know.
    """
    if options.get("supervised", {}).get("part") is not None and sources.rooms is None:
        raise RunError("--part is for --rooms: what images teach is not taught in parts")
    scratch = sources.rooms is not None or sources.fresh
    known = [section.name for section in fields(Settings)]
    if unknown := sorted(set(stated) - set(known)):
        raise RunError(f"there is no section {', '.join(unknown)} in the settings; known are {', '.join(known)}")
    try:
        checked = check_tree(Settings, stated)
        given = options.get("train", {})
        budget = checked.get("train", {}) | given
        if budget.get("minutes") is None and budget.get("steps") is None:
            options = options | {"train": given | {"minutes": NEWCOMERS_MINUTES}}
        return build(Settings, FROM_SCRATCH if scratch else ON_A_CPU if on_cpu else {}, checked, options)
    except ConfigError as error:
        raise RunError(str(error)) from error


def read_sections(path: Path | None) -> Sections:
    """The sections of a settings file; none without a file. Raises RunError for a file that is no such thing."""
    if path is None:
        return {}
    try:
        stated = read_json(path)
    except (OSError, ValueError) as error:
        raise RunError(f"{path} cannot be read as JSON: {error}") from error
    if not isinstance(stated, dict) or not all(isinstance(section, dict) for section in stated.values()):
        raise RunError(f'{path} should be an object of sections, such as {{"train": {{"steps": 1000}}}}')
    return stated


def plain(settings: Settings) -> dict[str, Any]:
    """As JSON can hold it."""
    values: dict[str, Any] = json.loads(json.dumps(asdict(settings), default=str))
    return values
