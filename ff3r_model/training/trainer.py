"""The training loop, one for `nano` on rooms and the paper's objective on images: batches in, better weights out."""

from __future__ import annotations

import logging
import math
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from tqdm import tqdm

from ff3r_model.core.errors import UserError
from ff3r_model.network.model import FF3R
from ff3r_model.training.config import TrainConfig
from ff3r_model.training.datasets.base import Share, Windows, stream
from ff3r_model.training.datasets.batches import TrainingBatch
from ff3r_model.training.distributed import shared
from ff3r_model.training.optimization import (
    freeze,
    freeze_statistics,
    optimizer,
    rate_share,
    recompute_activations,
    set_rate,
    update_average,
)
from ff3r_model.training.run_folder import AVERAGE, SETTINGS, STATE, RunError, RunFolder
from ff3r_model.training.snapshots import Snapshots
from ff3r_model.training.stop_signals import StopRequest, stop_requests
from ff3r_model.training.teachers import Teacher

log = logging.getLogger(__name__)


class Task(nn.Module):
    """Network and objective as one module, whose gradients several processes can average."""

    def __init__(self, network: FF3R, objective: nn.Module) -> None:
        super().__init__()
        self.network, self.objective = network, objective

    def forward(self, batch: TrainingBatch) -> dict[str, Tensor]:
        """Named loss terms, their weighted sum as `total`."""
        terms: dict[str, Tensor] = self.objective(self.network, batch)
        return terms


@dataclass
class Recent:
    """What happened since the last pictures."""

    since: float = field(default_factory=time.monotonic)
    images: int = 0
    losses: list[float] = field(default_factory=list)

    def add(self, images: int, loss: float) -> None:
        """Count a step."""
        self.images += images
        self.losses.append(loss)

    def rate(self) -> float:
        """Images per second."""
        return self.images / max(time.monotonic() - self.since, 1e-9)

    def loss(self) -> float | None:
        """The mean; None before the first step."""
        return sum(self.losses) / len(self.losses) if self.losses else None


class Trainer:
    """Trains `network` in place; what is kept is the average of its weights over the last steps."""

    def __init__(
        self,
        network: FF3R,
        objective: nn.Module,
        windows: Windows,
        config: TrainConfig,
        out: Path,
        *,
        teacher: Teacher | None = None,
        snapshots: Snapshots | None = None,
        device: torch.device | str = "cpu",
        share: Share | None = None,
    ) -> None:
        """`objective(network, batch)` gives loss terms; `teacher`, where there is one, fills in the batch's targets.

        Raises RunError where the configuration freezes what is not there.
        """
        self.config, self.windows, self.teacher, self.snapshots = config, windows, teacher, snapshots
        self.device, self.share = torch.device(device), share or Share()
        self.network, self.objective = network.to(self.device).train(), objective.to(self.device).train()
        freeze_statistics(network)
        freeze(network, config.frozen)
        if config.recompute:
            recompute_activations(network)
        self.optimizer = optimizer(network, objective, config)
        self.task = shared(Task(self.network, self.objective), self.share, self.device)
        self.average = {name: value.detach().clone() for name, value in network.state_dict().items()}
        self.folder = RunFolder(out)
        self.step = 0
        self.elapsed = 0.0
        """Seconds of the budget that are spent, earlier runs included."""
        self.left_out: list[str] = []
        """Images that were drawn and cannot be used, each with the reason."""
        self._recent = Recent()

    def run(self) -> bool:
        """Train until the budget is spent, and save; False if a signal has asked to stop before.

        What was done is saved whatever ends the run. Raises RunError for a loss that is no number and files that cannot
        be written, DataError for too few images that can be used.
        """
        began = self.step
        with stop_requests(patient=self.share.world > 1) as stop:  # torchrun repeats what it hears
            try:
                done = self._train(stop)
            except (UserError, OSError):
                if self.step > began:
                    with suppress(UserError, OSError):
                        self.save()
                raise
            if self.step > began or done:
                self.save()
            self.folder.close()
        return done

    def _train(self, stop: StopRequest) -> bool:
        """Steps until the budget is spent (True) or a request to stop."""
        # Time goes on from where an earlier run stopped; so do the batches.
        start, began = time.monotonic() - self.elapsed, self.step
        saved = drawn = time.monotonic()
        batches = stream(self.windows, self.step, self.share, self.config.workers)
        self._open()
        with tqdm(desc="training", unit="img", unit_scale=True, disable=None if self._first else True) as bar:
            while (progress := self.share.agreed(math.inf if stop.made else self._progress(start))) < 1:
                # Pictures of how far it is, from time to time.
                if self._pictures_due(drawn):
                    self._draw(bar)
                    drawn = time.monotonic()
                # One step of gradient descent.
                batch = next(batches)
                terms = self._step(batch, progress)
                self._report(bar, batch, terms, progress)
                # What is needed to resume: at once, to find out whether it can be written, and from time to time.
                self.elapsed = time.monotonic() - start
                if self.step == began + 1 or time.monotonic() - saved >= 60 * self.config.checkpoint_minutes:
                    self.save()
                    saved = time.monotonic()
                if self.step == began + 1 and self._first:
                    self.folder.check_room(STATE)
            if progress < math.inf:
                self._draw(bar)
        return progress < math.inf

    def save(self) -> None:
        """Write the resumable state and the averaged weights, each atomically; the first process' work.

        Raises RunError where they cannot be written.
        """
        if self._first:
            self.folder.save(STATE, self._state())
            self.folder.save(AVERAGE, self.average)

    def resume(self) -> None:
        """Go on from the run folder's state, as if nothing had happened. Raises RunError where none fits."""
        state = self.folder.load(STATE)
        try:
            self.network.load_state_dict(state["network"])
            self.objective.load_state_dict(state["objective"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.average = {name: value.to(self.device) for name, value in state["average"].items()}
            self.step, self.elapsed = int(state["step"]), float(state["elapsed"])
        except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
            reason = " ".join(str(error).split())[:200]
            raise RunError(
                f"{self.folder.path / STATE} does not fit this run ({reason}): resume with the options that it was "
                f"started with; {SETTINGS} beside it has them"
            ) from error
        if self._first:
            self.folder.forget_after(self.step)

    @property
    def _first(self) -> bool:
        return self.share.rank == 0

    def _state(self) -> dict[str, Any]:
        return {
            "network": self.network.state_dict(),
            "objective": self.objective.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "average": self.average,
            "step": self.step,
            "elapsed": self.elapsed,
            "config": asdict(self.config),
        }

    def _progress(self, start: float) -> float:
        if self.config.steps is not None:
            return self.step / self.config.steps
        assert self.config.minutes is not None
        return (time.monotonic() - start) / (60 * self.config.minutes)

    def _step(self, batch: TrainingBatch, progress: float) -> dict[str, float]:
        """One step of gradient descent; the loss terms."""
        # Randomness and learning rate follow from the step, so that a resumed run repeats an unbroken one.
        seed_everything(self.config.seed, self.step, self.share.rank)
        set_rate(self.optimizer, self.config.learning_rate * rate_share(progress, self.config.warmup))
        # Loss: the teacher's targets, then the objective.
        batch = self._taught(batch.to(self.device))
        with self._precision():
            terms = self.task(batch)
        self._refuse_nonsense(terms["total"], terms, batch)
        # Gradient, clipped.
        self.optimizer.zero_grad(set_to_none=True)
        terms["total"].backward()
        norm = torch.nn.utils.clip_grad_norm_(self.network.parameters(), self.config.clip)
        self._refuse_nonsense(norm, terms, batch)
        # Update, and the moving average of the weights.
        self.optimizer.step()
        self.step += 1
        update_average(self.average, self.network, self.config.ema, self.step)
        return {name: float(value.detach()) for name, value in terms.items()}

    def _taught(self, batch: TrainingBatch) -> TrainingBatch:
        if self.teacher is None:
            return batch
        return replace(batch, targets=self.teacher(batch.images, batch.ids, batch.truth))

    @contextmanager
    def _precision(self) -> Iterator[None]:
        """bf16 where asked for."""
        kind = self.device.type
        # On a CPU the plain kernel is several times faster than the fused one in bf16, backward above all.
        kernel = sdpa_kernel(SDPBackend.MATH) if kind == "cpu" else nullcontext()
        with kernel, torch.autocast(kind, torch.bfloat16, enabled=self.config.bfloat16):
            yield

    def _refuse_nonsense(self, value: Tensor, terms: dict[str, Tensor], batch: TrainingBatch) -> None:
        if torch.isfinite(value.detach()):
            return
        found = {name: float(term.detach()) for name, term in terms.items()}
        who = {"step": self.step, "rank": self.share.rank, "seed": self.config.seed}
        path = self.folder.save_failure(who | {"terms": found, "ids": batch.ids})
        raise RunError(
            f"the loss or its gradient is no number at step {self.step}: {found}. The batch's images are listed in "
            f"{path}; what was learned before is in {self.folder.path / STATE}. Look at those images, or lower the "
            "learning rate and resume."
        )

    def _open(self) -> None:
        if self._first:
            self.folder.open_board(self.step)

    def _report(self, bar: tqdm, batch: TrainingBatch, terms: dict[str, float], progress: float) -> None:
        """Progress bar and log; in each, the losses of this process' batch and the images of all processes."""
        for reason in batch.left_out:
            if reason not in self.left_out:
                self.left_out.append(reason)
                log.warning("left out: %s", reason)
        if not self._first:
            return
        bar.update(len(batch.ids) * self.share.world)
        self._recent.add(len(batch.ids) * self.share.world, terms["total"])
        if self.step % self.config.log_steps == 0 or self.step == 1:
            shown = sorted(terms.items(), key=lambda item: item[0] != "total")[:5]
            bar.set_postfix({"step": self.step} | {name: f"{value:.3f}" for name, value in shown}, refresh=False)
            state = {"progress": round(progress, 4), "images_per_second": round(self._recent.rate(), 2)}
            self.folder.write(self.step, state | {"learning_rate": self.optimizer.param_groups[0]["lr"]} | terms)

    def _pictures_due(self, drawn: float) -> bool:
        due = self.config.picture_minutes and time.monotonic() - drawn >= 60 * self.config.picture_minutes
        return bool(due) or self.step == 0

    def _draw(self, bar: tqdm) -> None:
        """A sheet of pictures of the same windows each time, by the network as it is now."""
        if not self._first or self.snapshots is None or not self.config.picture_minutes:
            return
        with self._precision():
            picture, figures = self.snapshots(self.network, self.device)
        path = self.folder.picture("windows", self.step, picture)
        self.folder.write(self.step, figures)
        loss = self._recent.loss()
        said = [] if loss is None else [f"loss {loss:.3f}"]
        said += [f"{name} {value:.2f}" for name, value in figures.items()]
        bar.write(f"step {self.step}: {', '.join(said)}; {path}")
        self._recent = Recent()


def seed_everything(seed: int, step: int, rank: int) -> None:
    """Make all random numbers a function of the run's seed, the step and the process: so a resumed run repeats them."""
    state = int(np.random.SeedSequence([seed, step, rank]).generate_state(1)[0])
    random.seed(state)
    np.random.seed(state)
    torch.manual_seed(state)
