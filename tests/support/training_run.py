"""A tiny run for `test_trainer.py`, in a process of its own: `training_run.py OUT --steps N [--resume] …`."""

from __future__ import annotations

import argparse
import signal
import time
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from ff3r_model.network.config import (
    AggregatorConfig,
    CameraHeadConfig,
    DPTConfig,
    FF3RConfig,
    FusionConfig,
    LSegConfig,
    ViTConfig,
)
from ff3r_model.network.model import FF3R
from ff3r_model.training.config import TrainConfig
from ff3r_model.training.datasets.batches import TrainingBatch
from ff3r_model.training.datasets.footage import open_footage
from ff3r_model.training.datasets.scene_windows import SamplingConfig, SceneWindows
from ff3r_model.training.distributed import joined
from ff3r_model.training.run_folder import STATE
from ff3r_model.training.trainer import Trainer


def tiny_config() -> FF3RConfig:
    """A network of a few thousand weights with everything that the large one has."""
    dpt = DPTConfig(channels=(8, 8, 8, 8), features=8, hidden=(8, 8))
    vit = ViTConfig(width=32, depth=4, heads=2, grid=2, registers=0)
    return FF3RConfig(
        name="tiny",
        encoder=vit,
        aggregator=AggregatorConfig(depth=4, heads=2, registers=1, layers=(0, 1, 2, 3)),
        camera=CameraHeadConfig(depth=1, heads=2),
        depth=dpt,
        gaussian=dpt,
        lseg=LSegConfig(ViTConfig(width=32, depth=4, heads=2, patch=16, grid=2, registers=0), (0, 1, 2, 3),
                        channels=(8, 8, 8, 8), features=8, batch_norm=False),
        fusion=FusionConfig(heads=2, width=32),
        text_width=8,
        feature_channels=4,
    )  # fmt: skip


class Simple(nn.Module):
    """Mean errors over the batch, with a random part that a resumed run must repeat."""

    def __init__(self, options: argparse.Namespace, noise: float) -> None:
        super().__init__()
        self.pause, self.nan_at, self.noise, self.calls = options.pause, options.nan_at, noise, 0
        self.signal = options.signal
        self.signal_at = options.at
        self.probe = nn.Linear(3, 3)

    def forward(self, network: FF3R, batch: TrainingBatch) -> dict[str, Tensor]:
        """How far depth, colour and cameras are from simple functions of the images."""
        time.sleep(self.pause)
        output = network(batch.images)
        assert output.gaussians is not None
        means = batch.images.mean((3, 4))
        colors = self.probe(means) + self.noise * torch.rand(3)
        terms = {
            "depth": (output.depth - batch.images.mean(2)).abs().mean(),
            "color": (output.gaussians.harmonics[:, :, :3].mean((3, 4)) - colors).square().mean(),
            "camera": (output.pose_encodings[-1, ..., :3] - means).abs().mean(),
        }
        if self.calls == self.nan_at:
            terms["depth"] = terms["depth"] * torch.nan
        if self.signal is not None and self.calls == self.signal_at:
            signal.raise_signal(self.signal)
        self.calls += 1
        return terms | {"total": torch.stack(list(terms.values())).sum()}


def make_images(folder: Path) -> Path:
    """Twelve small pictures, each its own."""
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(12):
        picture = cv2.resize(rng.integers(0, 255, (4, 4, 3), dtype=np.uint8), (40, 30), interpolation=cv2.INTER_CUBIC)
        if not (folder / f"{index}.png").exists():
            cv2.imwrite(str(folder / f"{index}.png"), picture)
    return folder


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--windows", type=int, default=2)
    parser.add_argument("--pause", type=float, default=0.0)
    parser.add_argument("--nan-at", type=int)
    parser.add_argument("--signal", type=int, help="a signal to raise within a step, the one --at")
    parser.add_argument("--at", type=int, default=0)
    parser.add_argument("--resume", action="store_true")
    options = parser.parse_args(arguments)
    with joined(torch.device("cpu")) as (share, device):
        torch.manual_seed(share.rank)  # processes must come to the same weights by themselves
        network = FF3R(tiny_config())
        images = make_images(options.out.parent / f"images_{options.out.name}_{share.rank}")
        sampling = SamplingConfig(views=(2,), total_views=2 * options.windows, long_side=28)
        windows = SceneWindows(open_footage([images], options.out / "frames"), 1, 14, sampling)
        objective = Simple(options, noise=0.0 if share.world > 1 or options.windows > 2 else 1.0)
        config = TrainConfig(options.steps, learning_rate=1e-3, bfloat16=False, log_steps=1, checkpoint_minutes=0.0)
        trainer = Trainer(network, objective, windows, config, options.out, device=device, share=share)
        if options.resume:
            trainer.resume()
        elif share.rank == 0:
            torch.save(network.state_dict(), options.out.with_name("start.pt"))
        trainer.run()
        assert (options.out / STATE).exists() or share.rank


if __name__ == "__main__":
    main()
