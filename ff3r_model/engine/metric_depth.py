"""Learned metric scale: now and then one keyframe goes through a network that sees metres in a single image."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch

from ff3r_model.core.ranges import AT_LEAST_ONE, check_range
from ff3r_model.core.types import Prediction, Window
from ff3r_model.network.da3_metric import DA3Metric, metres
from ff3r_model.network.public_weights.da3 import load_da3_metric
from ff3r_model.network.public_weights.read_weights import read_tensors

LEAST_PIXELS = 0.1
"""Share of the image that must show something nearer than the sky."""


@dataclass(frozen=True)
class MetricDepthConfig:
    """Metres from single images, for maps that nothing else gives a scale."""

    weights: Path | None = None
    """DA3METRIC-LARGE's model.safetensors (1.3 GB, mind its licence); None: lengths stay without a unit."""
    every: int = 4
    """Windows of which one is looked at, the first included."""

    def __post_init__(self) -> None:
        check_range(self, AT_LEAST_ONE, "every")


class MetricDepth:
    """Says of every n-th window how many metres its unit has, by its newest view. Not thread safe."""

    def __init__(self, network: DA3Metric, every: int) -> None:
        self.network = network.eval().requires_grad_(False)
        self.every = every
        self._windows = 0

    @classmethod
    def from_config(cls, config: MetricDepthConfig, device: torch.device | str) -> MetricDepth | None:
        """With the weights that the configuration names; None without. Raises CheckpointError for another file."""
        if config.weights is None:
            return None
        with torch.device("meta"):
            network = DA3Metric()
        load_da3_metric(network, read_tensors(config.weights), str(config.weights))
        return cls(network.to(device), config.every)

    @torch.inference_mode()
    def __call__(self, window: Window, prediction: Prediction) -> Prediction:
        """The prediction, with `metres_per_unit` where it is this window's turn and its newest view shows enough."""
        self._windows += 1
        if (self._windows - 1) % self.every:
            return prediction
        device = next(self.network.parameters()).device
        image = window.images[-1:].to(device)
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type != "cpu"):
            output = self.network(image)
        true = metres(output, prediction.cameras.intrinsics[-1:].to(device))[0]
        depth, confidence = (each[-1].to(device) for each in (prediction.depth, prediction.depth_confidence))
        # The surer half of the pixels that show no sky
        shown = (true > 0) & (depth > 0) & (confidence >= confidence.median())
        if shown.float().mean() < LEAST_PIXELS:
            return prediction
        return replace(prediction, metres_per_unit=float((true[shown] / depth[shown]).median()))
