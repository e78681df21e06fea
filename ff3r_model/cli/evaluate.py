"""`ff3r eval`: figures of a checkpoint on held-out rooms and on recordings with ground truth, and reports of them."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from tyro import MISSING
from tyro.conf import Positional, arg, subcommand

from ff3r_model.core.errors import UserError
from ff3r_model.core.files import replaced
from ff3r_model.core.output_folder import check_output_file
from ff3r_model.evaluation.errors import EvaluationError

if TYPE_CHECKING:
    from ff3r_model.evaluation.manifests import Split
    from ff3r_model.evaluation.subject import CheckpointUnderTest
    from ff3r_model.training.datasets.base import Scene


@dataclass(frozen=True)
class Options:
    """What all measurements can be told."""

    json: Path
    """File to write the figures to, pictures go into a folder beside it; - for standard output, without pictures."""
    weights: str | None = None
    """Checkpoint: a name of `ff3r weights list`, or a file (./NAME where it has such a name); nano if not given."""
    lpips: Path | None = None
    """VGG-16's weights (torchvision's file); without them LPIPS is not measured."""
    pictures: int = 2
    """Windows that get a picture, per number of views."""
    device: str = "auto"
    """Where the network runs: auto, cpu, or another of torch's names."""
    config: Path | None = None
    """YAML file of the pipeline's configuration, of which `engine.torch`, `refine`, `depth` and `flow` count here;
    `ff3r config` prints one."""

    @property
    def picture_folder(self) -> Path | None:
        """Beside the figures, under their name; None where these go to a stream."""
        if is_stream(self.json):
            return None
        return self.json.with_suffix("") if self.json.suffix else self.json.with_name(f"{self.json.name}_pictures")

    def check_outputs(self) -> None:
        """Find out before the work whether figures and pictures can be written. Raises UserError."""
        if self.pictures < 0:
            raise EvaluationError(f"--pictures must be at least 0, not {self.pictures}")
        if not is_stream(self.json):
            check_output_file(self.json)
        folder = self.picture_folder
        if folder is not None and folder.exists() and not folder.is_dir():
            raise EvaluationError(f"pictures would go to {folder}, which is a file: give --json another name")


@dataclass(frozen=True)
class Synthetic(Options):
    """Measure a checkpoint on held-out procedural rooms.

    With several numbers of views the figures lie under one key per number.
    """

    views: tuple[int, ...] = (8,)
    """Views per window, 2 to 64."""
    seeds: str = "0:100"
    """Rooms A to B - 1, as A:B. Training draws from 100,000 on."""

    def __call__(self) -> str:
        from ff3r_model.evaluation.held_out_rooms import windows
        from ff3r_model.evaluation.vocabulary import of_rooms

        seeds, views = seed_range(self.seeds), view_counts(self.views)
        self.check_outputs()
        subject, figures = _subject(self), FiguresFile(self.json)
        with figures.kept():
            for count in views:
                about = {"benchmark": "synthetic", "views": count, "seeds": self.seeds}
                folder = None if self.picture_folder is None else self.picture_folder / f"{count}_views"
                for found in subject.measure(windows(count, seeds), of_rooms(), folder, self.pictures):
                    figures.write(str(count), about | found)
        return figures.told()


@dataclass(frozen=True)
class WindowOptions:
    """Which frames of a recording a network sees, and which are held out."""

    views: int = 8
    """Views per window that the network sees, 2 to 64."""
    windows: int = 8
    """Windows per recording, spread evenly."""
    stride: int = 2
    """Frames from one view to the next; held-out views lie between, so 1 holds none out."""
    targets: int = 2
    """Views held out per window."""
    by_number: bool = False
    """Let the stride count the numbers in the pictures' file names, which jump where frames were left out."""

    def splits(self, scenes: Sequence[Scene]) -> list[Split]:
        """The windows of all scenes. Raises EvaluationError."""
        from ff3r_model.evaluation.manifests import make_splits
        from ff3r_model.evaluation.recordings import frame_numbers

        view_counts((self.views,))
        if min(self.windows, self.stride) < 1 or self.targets < 0:
            raise EvaluationError("--windows and --stride must be at least 1, --targets at least 0")
        found = []
        for scene in scenes:
            numbers = frame_numbers(scene) if self.by_number else range(len(scene))
            found += make_splits(scene.name, numbers, self.views, self.windows, self.stride, self.targets)
        return found


@dataclass(frozen=True)
class Frames(WindowOptions, Options):
    """Measure a checkpoint on recordings with ground truth, in the windows of a manifest or in evenly spread ones."""

    data: Positional[Path] = MISSING
    """Folder of a 7-Scenes or TUM RGB-D sequence, of pictures with NAME.pose.txt and camera-intrinsics.txt, of several
    of these, or of ScanNet scans."""
    split: Path | None = None
    """The manifest (`ff3r eval split`), in place of --views, --windows, --stride, --targets and --by-number."""
    benchmark: str | None = None
    """What the report calls it; the data's folder if not given."""
    intrinsics: str | None = None
    """The camera's fx,fy,cx,cy in pixels of the pictures, or a file of them, in place of the data's own."""
    depth_unit: float | None = None
    """Metres per step of the depth images (0.001: millimetres); what the layout has if not given."""

    def __call__(self) -> str:
        from ff3r_model.evaluation.manifests import read_manifest
        from ff3r_model.evaluation.recordings import StatedScene, open_scenes, samples, vocabularies
        from ff3r_model.frames.intrinsics import stated_camera

        self.check_outputs()
        given = [field.name for field in fields(WindowOptions) if getattr(self, field.name) != field.default]
        if self.split is not None and given:
            raise EvaluationError(f"--split says which windows: give it without --{given[0].replace('_', '-')}")
        scenes = open_scenes(self.data, self.depth_unit)
        splits = self.splits(scenes) if self.split is None else read_manifest(self.split)
        if (camera := stated_camera(self.intrinsics, None)) is not None:
            scenes = [StatedScene(scene, camera) for scene in scenes]
        subject = _subject(self)
        views = sorted({len(split.context) for split in splits})
        about = {"benchmark": self.benchmark or self.data.name, "views": "–".join(map(str, views))}
        windows = samples(scenes, splits, subject.image_side, subject.patch)
        figures = FiguresFile(self.json)
        with figures.kept():
            for found in subject.measure(windows, vocabularies(), self.picture_folder, self.pictures):
                figures.write("", about | found)
        return figures.told()


@dataclass(frozen=True)
class Manifest(WindowOptions):
    """Write a manifest of windows: which frames of which recording a network sees, and which are held out."""

    data: Positional[Path] = MISSING
    """As for `ff3r eval frames`."""
    output: Annotated[Path, arg(aliases=["-o"])] = MISSING
    """JSON file to write."""
    depth_unit: float | None = None
    """As for `ff3r eval frames`."""

    def __call__(self) -> str:
        from ff3r_model.evaluation.manifests import write_manifest
        from ff3r_model.evaluation.recordings import open_scenes

        check_output_file(self.output)
        splits = self.splits(open_scenes(self.data, self.depth_unit))
        write_manifest(self.output, splits)
        return f"{self.output}: {len(splits)} windows"


@dataclass(frozen=True)
class Report:
    """Make the Markdown table and a page of pictures from results."""

    results: Positional[tuple[Path, ...]]
    """JSON files that `ff3r eval synthetic` and `ff3r eval frames` wrote."""
    out: Annotated[Path, arg(aliases=["-o"])]
    """Folder for report.md and its pictures."""

    def __call__(self) -> str:
        from ff3r_model.evaluation.report import write_report

        return str(write_report(self.results, self.out))


def _subject(options: Options) -> CheckpointUnderTest:
    try:
        from ff3r_model.evaluation.subject import CheckpointUnderTest
        from ff3r_model.pipeline import PipelineConfig
        from ff3r_model.training.objectives.perceptual import LPIPS
    except ModuleNotFoundError as error:
        raise EvaluationError(f"{error.name} is missing: pip install 'ff3r_ros[eval]'") from error
    config = PipelineConfig.from_yaml(options.config)
    trunk = None if options.lpips is None else LPIPS(options.lpips)
    return CheckpointUnderTest(options.weights, options.device, trunk, config)


class FiguresFile:
    """The figures of some runs as JSON, flat where there is one run.

    Written after every window, so that an evaluation that is interrupted leaves the figures of what it saw; to a stream
    only once, when all is done or the evaluation is interrupted.
    """

    SHOWN = ("depth_rel", "auc30", "auc30_refined", "miou", "miou_attributes", "psnr")
    """Figures that the user is told."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._runs: dict[str, dict[str, Any]] = {}

    def write(self, name: str, figures: dict[str, Any]) -> None:
        """Take the figures of a run so far. Raises OSError."""
        here = self.path.parent
        pictures = [str(Path(picture).relative_to(here)) for picture in figures["pictures"]]
        self._runs[name] = figures | {"pictures": pictures}
        if not is_stream(self.path):
            with replaced(self.path.resolve()) as temporary:
                temporary.write_text(self._text())

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Whatever ends the body, the figures of the windows done are written; of a failure, how many they are."""
        try:
            yield
        except (KeyboardInterrupt, UserError, OSError):
            if self._runs:
                done = sum(run["windows"] for run in self._runs.values())
                self._say(f"stopped early, after {done} windows; {self.told()}")
            raise

    def told(self) -> str:
        """What to tell the user; where the figures go to standard output, these."""
        lines = [
            f"{name}: " + ", ".join(f"{key} {run[key]:.3f}" for key in self.SHOWN if run.get(key) is not None)
            for name, run in self._runs.items()
        ]
        if not is_stream(self.path):
            return "\n".join([*lines, f"{self.path}: all figures"])
        self._say("\n".join(lines))
        if is_standard_output(self.path):
            sys.stdout.write(self._text())
        else:
            self.path.write_text(self._text())
        return ""

    def _say(self, text: str) -> None:
        """Tell the user, beside the figures where these go to standard output."""
        print(text, file=sys.stderr if is_standard_output(self.path) else sys.stdout)

    def _text(self) -> str:
        found = next(iter(self._runs.values())) if len(self._runs) == 1 else self._runs
        return json.dumps(found, indent=1) + "\n"


def is_standard_output(path: Path) -> bool:
    """Whether a path is one of the names of standard output."""
    return str(path) in {"-", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"}


def is_stream(path: Path) -> bool:
    """Whether what is written to a path goes on, as to standard output, a pipe or a device."""
    return is_standard_output(path) or (path.exists() and not path.is_file() and not path.is_dir())


def view_counts(views: tuple[int, ...]) -> tuple[int, ...]:
    """The counts, once each. Raises EvaluationError for one that no window has."""
    for count in views:
        if not 2 <= count <= 64:
            raise EvaluationError(f"--views must be 2 to 64, not {count}")
    if not views:
        raise EvaluationError("--views must be one number or more, 2 to 64 each")
    return tuple(dict.fromkeys(views))


def seed_range(text: str) -> range:
    """A:B as range(A, B). Raises EvaluationError."""
    first, colon, last = text.partition(":")
    numbers = all(part.isdecimal() and part.isascii() and len(part) < 10 for part in (first, last))
    if not (colon and numbers and int(first) < int(last)):
        raise EvaluationError(f"--seeds must be A:B with A < B, such as 0:100, not {text[:80]!r}")
    return range(int(first), int(last))


@dataclass(frozen=True)
class Evaluate:
    """Measure a checkpoint against ground truth: figures, tables, pictures."""

    command: Annotated[
        Annotated[Synthetic, subcommand("synthetic")]
        | Annotated[Frames, subcommand("frames")]
        | Annotated[Manifest, subcommand("split")]
        | Annotated[Report, subcommand("report")],
        arg(name=""),
    ]

    def __call__(self) -> str:
        return self.command()
