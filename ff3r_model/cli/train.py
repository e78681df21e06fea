"""`ff3r train`: from options to a run, in one process or as one of torchrun's."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from tyro.conf import arg

if TYPE_CHECKING:
    from ff3r_model.training.settings import DataSources, Sections, Settings
    from ff3r_model.training.trainer import Trainer


SHOWN = 3
"""Images that were left out of training, which the summary names."""


@dataclass(frozen=True)
class Train:
    """Train a network on footage of your own, on public data sets, or on synthetic rooms.

    From images alone, without poses, depth or labels: what the network renders should look like the images, and a
    teacher, by default the network's own starting weights, keeps cameras, depth and words from drifting. Writes
    pictures/, log.jsonl, tensorboard/, a resumable state and checkpoint.safetensors into the output folder.
    """

    output: Annotated[Path, arg(aliases=["-o"])]
    """Folder of the run, new or empty; with --resume that of the run."""
    images: tuple[Path, ...] = ()
    """Folders of images, videos, or folders of such folders."""
    dl3dv: Path | None = None
    """Folder of DL3DV-10K scenes (images_4/ and transforms.json)."""
    scannet: Path | None = None
    """Folder of ScanNet scans, exported (color/*.jpg)."""
    rooms: Path | None = None
    """Folder of rendered synthetic rooms, with whose exact truth the network is taught instead."""
    minutes: float | None = None
    """Budget in minutes; 10 if neither it nor steps is given."""
    steps: int | None = None
    """Budget in steps."""
    weights: str | None = None
    """Checkpoint to start from: a name of `ff3r weights list`, or a file; nano if not given."""
    teacher: str | None = None
    """Checkpoint, by name or file, to learn cameras, depth and features from; the one to start from if not given."""
    fresh: bool = False
    """Start from random weights in the shape of those to start from."""
    text_targets: Path | None = None
    """Embeddings of the rooms' words; the text tower's own if not given."""
    part: Literal["all", "geometry", "words"] | None = None
    """What of the network rooms teach: all of it, or faster by itself geometry or words."""
    cache: Path | None = None
    """Folder for what the teacher said; in the output folder if not given."""
    cache_gigabytes: float = 50.0
    """How much of it is kept."""
    config: Path | None = None
    """JSON file with all other values, as config.json of an earlier run."""
    views: tuple[int, ...] = ()
    """Views of a window, drawn from these."""
    total_views: int | None = None
    """Views per step and process."""
    long_side: int | None = None
    """Pixels of the images along their long side."""
    learning_rate: float | None = None
    """Highest learning rate."""
    seed: int | None = None
    """Of every random choice."""
    workers: int | None = None
    """Processes that read images ahead."""
    device: str = "auto"
    """Where to train: auto, cpu, or another of torch's names."""
    resume: bool = False
    """Go on with the run in the output folder, where Ctrl-C, a failure or the end of its budget left it."""

    def __call__(self) -> str:
        """Run it; returns the summary, of the first process alone."""
        from ff3r_model.engine.device import device_named
        from ff3r_model.training.distributed import joined
        from ff3r_model.training.recipe import build
        from ff3r_model.training.run_folder import RunFolder

        sources, wanted = self.sources(), device_named(self.device)
        settings = self.settings(on_cpu=wanted.type == "cpu")
        logging.getLogger("ff3r_model.training").setLevel(logging.INFO)
        with joined(wanted) as (share, device):
            found = share.rank == 0 and RunFolder(self.output).begin(self.resume)
            goes_on = bool(share.agreed(float(found)))  # the others wait until the folder is the run's
            trainer = build(sources, settings, self.output, device, share)
            if goes_on:
                trainer.resume()
            done = trainer.run()
            told = _finish(trainer, sources, settings) if share.rank == 0 else ""
        if not done:
            print(f"stopped early; {told}\n  go on with --resume" if trainer.step else "stopped before the first step")
            raise KeyboardInterrupt
        return told

    def sources(self) -> DataSources:
        """What the run learns from and starts with. Raises RunError where there is nothing to learn from."""
        from ff3r_model.training.settings import DataSources

        return DataSources(
            images=self.images,
            dl3dv=self.dl3dv,
            scannet=self.scannet,
            rooms=self.rooms,
            weights=self.weights,
            teacher=self.teacher,
            fresh=self.fresh,
            text_targets=self.text_targets,
            cache=self.cache,
            cache_gigabytes=self.cache_gigabytes,
        )

    def settings(self, *, on_cpu: bool) -> Settings:
        """The options over the config file over what suits the kind of run. Raises RunError."""
        from ff3r_model.training.settings import read_sections, settings_for

        return settings_for(self.sources(), read_sections(self.config), self._sections(), on_cpu=on_cpu)

    def _sections(self) -> Sections:
        """The options that were given, by section."""
        views = {"views": self.views or None, "total_views": self.total_views}
        train = {"learning_rate": self.learning_rate, "seed": self.seed, "workers": self.workers}
        sections: dict[str, dict[str, Any]] = {
            "train": train,
            "sampling": views | {"long_side": self.long_side},
            "rooms": views,
            "supervised": {"part": self.part},
        }
        given = {
            name: {key: value for key, value in values.items() if value is not None}
            for name, values in sections.items()
        }
        if self.minutes is not None or self.steps is not None:  # takes the place of a file's budget
            given["train"] |= {"minutes": self.minutes, "steps": self.steps}
        return given


def _finish(trainer: Trainer, sources: DataSources, settings: Settings) -> str:
    """Write the checkpoint where its text tower is known, and say how the loss and the pictures went."""
    from ff3r_model.training.recipe import save_result
    from ff3r_model.training.run_folder import LOG, PICTURES

    if not trainer.step:
        return ""
    figures = trainer.folder.course()
    changes = [f"{name} {first:.3f} → {last:.3f}" for name, (first, last) in figures.items()]
    folder = trainer.folder.path
    lines = [f"{trainer.step} steps in {trainer.elapsed / 60:.1f} minutes; " + ", ".join(changes)]
    if bad := trainer.left_out:
        lines.append(f"  {len(bad)} images left out: {'; '.join(bad[:SHOWN])}{' …' if len(bad) > SHOWN else ''}")
    lines += [f"  {folder / PICTURES}: pictures along the way", f"  {folder / LOG}: losses"]
    if sources.text_targets is not None:  # the tower that goes with them is not known here
        return "\n".join(
            [*lines, f"  make a checkpoint of it: python -m ff3r_model.training.ship {folder} --text TOWER"]
        )
    path = save_result(trainer, sources, settings, figures)
    return "\n".join([*lines, f"  {path}: use it with `ff3r reconstruct --weights {path}`"])
