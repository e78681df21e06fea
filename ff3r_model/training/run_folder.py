"""Files of a training run: log, pictures, TensorBoard, resumable state, averaged weights, the checkpoint."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import torch
from jaxtyping import UInt8
from numpy import ndarray

from ff3r_model.core.errors import UserError
from ff3r_model.core.files import regular_file, remove_leftovers, replaced
from ff3r_model.visualization.pictures import save_picture

log = logging.getLogger(__name__)

STATE, AVERAGE, LOG, CHECKPOINT = "state.pt", "average.pt", "log.jsonl", "checkpoint.safetensors"
PICTURES, TENSORBOARD, FAILED = "pictures", "tensorboard", "failed_batch.json"


class RunFolder:
    """The files of one run, written by one process."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir(parents=True, exist_ok=True)
        self._board: Any = None

    def open_board(self, step: int) -> None:
        """Start TensorBoard's files at `step`; without the package the run goes on and the log says so."""
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            log.warning(
                "no TensorBoard (pip install tensorboard): see %s and %s", self.path / LOG, self.path / PICTURES
            )
            return
        self._board = SummaryWriter(str(self.path / TENSORBOARD), purge_step=step)

    def write(self, step: int, values: dict[str, float]) -> None:
        """One line of the log, and TensorBoard's scalars."""
        with (self.path / LOG).open("a") as file:
            file.write(json.dumps({"step": step, **values}) + "\n")
        if self._board is not None:
            for name, value in values.items():
                self._board.add_scalar(name, value, step)

    def forget_after(self, step: int) -> None:
        """Drop the log's lines of steps that a resumed run is going to take again."""
        path = self.path / LOG
        if path.exists():
            lines = [line for line in path.read_text().splitlines() if _step(line) <= step]
            with replaced(path) as temporary:
                temporary.write_text("".join(line + "\n" for line in lines))

    def holds_a_run(self) -> bool:
        """Whether another run was here."""
        return any((self.path / name).exists() for name in (STATE, LOG))

    def course(self) -> dict[str, tuple[float, float]]:
        """Means of the first and of the last tenth of the log: `total`, and `psnr` where there were pictures."""
        path = self.path / LOG
        lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
        values = {name: [line[name] for line in lines if name in line] for name in ("total", "psnr")}
        values = {name: found for name, found in values.items() if found}
        counts = {name: max(1, len(found) // 10) if name == "total" else 1 for name, found in values.items()}
        return {name: (_mean(found[: counts[name]]), _mean(found[-counts[name] :])) for name, found in values.items()}

    def picture(self, name: str, step: int, picture: UInt8[ndarray, "h w 3"]) -> Path:
        """Save a picture as PNG and in TensorBoard; returns the PNG's path."""
        folder = self.path / PICTURES
        folder.mkdir(exist_ok=True)
        path = folder / f"{name}_{step:07d}.png"
        save_picture(path, picture)
        if self._board is not None:
            self._board.add_image(name, picture, step, dataformats="HWC")
        return path

    def save(self, name: str, state: dict[str, Any]) -> None:
        """A torch file that is whole or the one before, whenever the power fails."""
        path = self.path / name
        remove_leftovers(path)
        with replaced(path) as temporary:
            torch.save(state, temporary)

    def load(self, name: str) -> dict[str, Any]:
        """What `save` wrote. Raises RunError where it is missing or damaged."""
        path = self.path / name
        try:
            with regular_file(path) as file:
                state: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
        except FileNotFoundError as error:
            raise RunError(f"{self.path} cannot be resumed: {name} is not there. Start it without --resume.") from error
        except Exception as error:  # torch raises whatever its archive reader trips over
            raise RunError(f"{path} cannot be read ({error}): restore it, or start anew without --resume") from error
        return state

    def save_failure(self, batch: dict[str, Any]) -> Path:
        """Who was in the batch whose loss is no number."""
        path = self.path / FAILED
        with replaced(path) as temporary:
            temporary.write_text(json.dumps(batch, indent=1))
        return path

    def close(self) -> None:
        """Flush TensorBoard."""
        if self._board is not None:
            self._board.close()


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


def _step(line: str) -> int:
    try:
        return int(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):  # the last line of a run that was killed
        return 2**62


class RunError(UserError):
    """A run that cannot start, go on, or continue."""
