"""`python -m ff3r_model.training.train`: teach `nano` the procedural rooms, from shards that may still be growing."""

from __future__ import annotations

import argparse
import json
import logging
import math
import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from tqdm import tqdm

from ff3r_model.network.config import FF3RConfig
from ff3r_model.network.model import FF3R
from ff3r_model.training.data import RoomPool
from ff3r_model.training.losses import LossWeights
from ff3r_model.training.objective import Objective, TextTargets
from ff3r_model.training.views import Views

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainConfig:
    """One training run on one machine."""

    minutes: float = 60.0
    """Wall-clock budget; the learning rate's cosine ends with it."""
    learning_rate: float = 1e-3
    warmup: float = 0.03
    """Share of the budget with a rising learning rate."""
    geometry_share: float = 0.3
    """Share of the budget, at its start, that trains matches and poses alone: nothing else teaches them, and steps
    without the dense heads take half the time."""
    weight_decay: float = 0.05
    clip: float = 1.0
    total_views: int = 16
    """Views per step, split over equal windows."""
    views: tuple[int, ...] = (2, 3, 4, 5, 8, 8)
    ema: float = 0.999
    bfloat16: bool = True
    seed: int = 0
    checkpoint_minutes: float = 5.0
    weights: LossWeights = field(default_factory=LossWeights)


class Trainer:
    """Network, optimizer, averaged weights and the shards they learn from."""

    def __init__(self, network: FF3R, objective: Objective, pool: RoomPool, config: TrainConfig, out: Path) -> None:
        self.network, self.objective, self.pool, self.config, self.out = network, objective, pool, config, out
        parameters = [*network.parameters(), *objective.parameters()]
        decay = [p for p in parameters if p.ndim > 1]
        plain = [p for p in parameters if p.ndim <= 1]
        groups = [{"params": decay, "weight_decay": config.weight_decay}, {"params": plain, "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW(groups, lr=config.learning_rate, betas=(0.9, 0.98))
        self.average = {name: value.detach().clone() for name, value in network.state_dict().items()}
        self.step = 0
        self.elapsed = 0.0
        """Seconds of the budget that are spent, earlier runs included."""

    def run(self) -> None:
        """Train until the budget is spent, with a progress bar; the averaged weights are saved along the way."""
        saved = time.monotonic()
        start = saved - self.elapsed
        if not self.pool.refresh():
            raise FileNotFoundError(f"{self.pool.folder} holds no shards: render some with ff3r_model.training.shards")
        batches: Iterator[Views] = self.pool.windows(self.config.total_views, self.config.views)
        with tqdm(unit="step", mininterval=10) as bar:
            while (progress := (time.monotonic() - start) / (60 * self.config.minutes)) < 1:
                if self.step % 100 == 0:
                    self.pool.refresh()
                terms = self._step(next(batches), progress)
                bar.update()
                if self.step % 20 == 0:
                    bar.set_postfix({name: f"{value:.3f}" for name, value in terms.items()}, refresh=False)
                if self.step % 50 == 0:
                    self._write_log(terms, progress)
                self.elapsed = time.monotonic() - start
                if time.monotonic() - saved > 60 * self.config.checkpoint_minutes:
                    saved = time.monotonic()
                    self.save()
        self.save()

    def save(self) -> None:
        """Write the averaged weights and the resumable state, each atomically."""
        for name, state in (("average.pt", self.average), ("state.pt", self._state())):
            torch.save(state, self.out / f".{name}")
            (self.out / f".{name}").rename(self.out / name)

    def resume(self) -> None:
        """Go on from `state.pt` in the output folder: weights, averaged weights, optimizer, step, time spent."""
        state = torch.load(self.out / "state.pt", weights_only=True)
        self.network.load_state_dict(state["network"])
        self.objective.load_state_dict(state["objective"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.average, self.step, self.elapsed = state["average"], state["step"], state["elapsed"]

    def _state(self) -> dict[str, object]:
        return {
            "network": self.network.state_dict(),
            "objective": self.objective.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "average": self.average,
            "step": self.step,
            "elapsed": self.elapsed,
        }

    def _step(self, batch: Views, progress: float) -> dict[str, float]:
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.learning_rate * self._schedule(progress)
        device = batch.images.device.type
        # On a CPU the plain kernel is several times faster than the fused one in bf16 (measured), backward above all.
        kernel = sdpa_kernel(SDPBackend.MATH) if device == "cpu" else nullcontext()
        with kernel, torch.autocast(device, torch.bfloat16, enabled=self.config.bfloat16):
            terms = self.objective(self.network, batch, dense=progress >= self.config.geometry_share)
        loss = terms["total"]
        if not torch.isfinite(loss):
            raise FloatingPointError(f"loss is {loss.item()} at step {self.step}: {terms}")
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), self.config.clip)
        self.optimizer.step()
        self.step += 1
        self._update_average()
        return {name: float(value.detach()) for name, value in terms.items()}

    def _schedule(self, progress: float) -> float:
        if progress < self.config.warmup:
            return max(progress / self.config.warmup, 0.01)
        return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * (progress - self.config.warmup) / (1 - self.config.warmup)))

    @torch.no_grad()
    def _update_average(self) -> None:
        rate = min(self.config.ema, (1 + self.step) / (10 + self.step))
        for name, value in self.network.state_dict().items():
            if value.is_floating_point():
                self.average[name].lerp_(value, 1 - rate)
            else:
                self.average[name].copy_(value)

    def _write_log(self, terms: dict[str, float], progress: float) -> None:
        with (self.out / "log.jsonl").open("a") as file:
            file.write(json.dumps({"step": self.step, "progress": round(progress, 4), **terms}) + "\n")


def load_targets(path: Path) -> TextTargets:
    """The phrases' fixed embeddings, as `training.text_space` writes them."""
    saved: dict[str, Tensor] = torch.load(path, weights_only=True)
    return TextTargets(saved["class_targets"].float(), saved["phrase_targets"].float())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shards", type=Path, required=True)
    parser.add_argument("--targets", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--initial", type=Path, help="weights to start from")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    config = TrainConfig(minutes=options.minutes, learning_rate=options.learning_rate)
    torch.manual_seed(config.seed)
    network = FF3R(FF3RConfig.nano())
    if options.initial:
        network.load_state_dict(torch.load(options.initial, weights_only=True))
    pool = RoomPool(options.shards, config.seed)
    objective = Objective(config.weights, load_targets(options.targets), network.config.width)
    trainer = Trainer(network, objective, pool, config, options.out)
    if options.resume:
        trainer.resume()
    (options.out / "config.json").write_text(json.dumps(asdict(config), indent=1))
    trainer.run()


if __name__ == "__main__":
    main()
