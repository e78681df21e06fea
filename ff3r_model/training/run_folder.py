"""Files of a training run: log, pictures, TensorBoard, resumable state, averaged weights, the checkpoint."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from jaxtyping import UInt8
from numpy import ndarray

from ff3r_model.core.errors import UserError
from ff3r_model.core.files import regular_file, remove_leftovers, replaced
from ff3r_model.core.output_folder import LIST, OutputFolder
from ff3r_model.visualization.pictures import save_picture

log = logging.getLogger(__name__)

STATE, AVERAGE, LOG, CHECKPOINT = "state.pt", "average.pt", "log.jsonl", "checkpoint.safetensors"
PICTURES, TENSORBOARD, FAILED, SETTINGS = "pictures", "tensorboard", "failed_batch.json", "config.json"
FRAMES, TEACHER = "frames", "teacher"
"""Folders of a run's videos' frames and of what its teacher said."""
FILES = (STATE, AVERAGE, LOG, CHECKPOINT, PICTURES, TENSORBOARD, FAILED, SETTINGS, FRAMES, TEACHER)


class RunFolder:
    """The files of one run, written by one process; others may read them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._output: OutputFolder | None = None
        self._board: Any = None

    def begin(self, resume: bool) -> bool:
        """Make the folder this run's; returns whether a state is there to go on from.

        Raises RunError for a fresh run where another was, and for a resumed one where none was, each with the way out;
        OutputError for a folder with files of others.
        """
        has_state = (self.path / STATE).is_file()
        if has_state and not resume:
            raise RunError(f"{self.path} holds a run already: go on with --resume, or choose another output folder")
        if not has_state and any((self.path / name).exists() for name in (AVERAGE, CHECKPOINT)):
            raise RunError(
                f"{self.path} holds weights of a run, but no {STATE} to go on from: choose another output folder; "
                f"--weights {self.path / CHECKPOINT} starts from what was learned"
            )
        if resume and not has_state and not (self.path / LIST).is_file():
            raise RunError(f"there is no run in {self.path}: start it without --resume")
        self._output = OutputFolder(self.path, "train", FILES if has_state else ())
        for name in (FRAMES, TEACHER):
            self.file(name)
        if not has_state and (self.path / LOG).exists():
            log.warning("no step was finished in %s: starting anew", self.path)
            self.forget_after(0)
        return has_state

    def file(self, name: str) -> Path:
        """Where to write a file of the run's. Raises OutputError for a folder with files of others."""
        if self._output is None:
            self._output = OutputFolder(self.path, "train")
        return self._output.file(name)

    def open_board(self, step: int) -> None:
        """Start TensorBoard's files at `step`; without the package the run goes on and the log says so."""
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            log.warning(
                "no TensorBoard (pip install tensorboard): see %s and %s", self.path / LOG, self.path / PICTURES
            )
            return
        with self._writing(TENSORBOARD) as path:
            self._board = SummaryWriter(str(path), purge_step=step)

    def write(self, step: int, values: dict[str, float]) -> None:
        """One line of the log, and TensorBoard's scalars. Raises RunError."""
        with self._writing(LOG) as path, path.open("a") as file:
            file.write(json.dumps({"step": step, **values}) + "\n")
        if self._board is not None:
            with self._writing(TENSORBOARD):
                for name, value in values.items():
                    self._board.add_scalar(name, value, step)

    def forget_after(self, step: int) -> None:
        """Drop the log's lines of steps that a resumed run is going to take again."""
        path = self.path / LOG
        if path.exists():
            lines = [line for line in path.read_text().splitlines() if _step(line) <= step]
            with replaced(path) as temporary:
                temporary.write_text("".join(line + "\n" for line in lines))

    def course(self) -> dict[str, tuple[float, float]]:
        """Means of the first and of the last tenth of the log: `total`, and `psnr` where there were pictures."""
        path = self.path / LOG
        lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
        values = {name: [line[name] for line in lines if name in line] for name in ("total", "psnr")}
        values = {name: found for name, found in values.items() if found}
        counts = {name: max(1, len(found) // 10) if name == "total" else 1 for name, found in values.items()}
        return {name: (_mean(found[: counts[name]]), _mean(found[-counts[name] :])) for name, found in values.items()}

    def picture(self, name: str, step: int, picture: UInt8[ndarray, "h w 3"]) -> Path:
        """Save a picture as PNG and in TensorBoard; returns the PNG's path. Raises RunError."""
        with self._writing(PICTURES) as folder:
            folder.mkdir(exist_ok=True)
            path = folder / f"{name}_{step:07d}.png"
            save_picture(path, picture)
            if self._board is not None:
                self._board.add_image(name, picture, step, dataformats="HWC")
        return path

    def save(self, name: str, state: dict[str, Any]) -> None:
        """A torch file: whole, or the one before where power fails or the disk is full. Raises RunError."""
        with self._writing(name) as path:
            remove_leftovers(path)
            with replaced(path) as temporary:
                torch.save(state, temporary)

    def check_room(self, name: str) -> None:
        """Raise RunError where the file could not be saved once more: a new one is written beside the old."""
        needed, free = (self.path / name).stat().st_size, shutil.disk_usage(self.path).free
        if free < needed:
            raise RunError(
                f"{self.path} has {free / 1e6:,.0f} MB left, and each save of {name} needs {needed / 1e6:,.0f} beside "
                "the one before: free some space, then go on with --resume"
            )

    def load(self, name: str) -> dict[str, Any]:
        """What `save` wrote. Raises RunError where it is missing or damaged."""
        path = self.path / name
        try:
            with regular_file(path) as file:
                state: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
            if not isinstance(state, dict):
                raise TypeError(f"it holds a {type(state).__name__}")
        except Exception as error:  # torch raises whatever its archive reader trips over
            unreadable = isinstance(error, UnpicklingError)  # torch's own words advise to run what is in the file
            reason = "no state of a run" if unreadable else str(error).strip().partition("\n")[0][:200]
            raise RunError(
                f"{path} cannot be read ({reason}): restore it, or start a new run in another folder"
            ) from error
        return state

    def save_failure(self, batch: dict[str, Any]) -> Path:
        """Who was in the batch whose loss is no number."""
        with self._writing(FAILED) as path, replaced(path) as temporary:
            temporary.write_text(json.dumps(batch, indent=1))
        return path

    def close(self) -> None:
        """Flush TensorBoard. Raises RunError."""
        if self._board is not None:
            with self._writing(TENSORBOARD):
                self._board.close()

    @contextmanager
    def _writing(self, name: str) -> Iterator[Path]:
        """The path of a file of the run's; what goes wrong with it is one RunError."""
        path = self.path / name
        try:
            yield self.file(name)
        except (OSError, RuntimeError) as error:  # torch's writer raises the latter, TensorBoard's either
            reason = str(error.strerror if isinstance(error, OSError) and error.strerror else error)
            raise RunError(
                f"{path} could not be written ({reason.strip().partition(chr(10))[0][:120]}). Is the disk full? What "
                "was saved before is whole: free some space, then go on with --resume"
            ) from error


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


def _step(line: str) -> int:
    try:
        return int(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):  # the last line of a run that was killed
        return 2**62


class RunError(UserError):
    """A run that cannot start, go on, or continue."""
