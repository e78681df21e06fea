"""Which engine runs the network: TensorRT where it can, else torch, and a word about why."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from ff3r_model.checkpoint import Checkpoint
from ff3r_model.engine.base import Engine
from ff3r_model.engine.build import Report
from ff3r_model.engine.device import gpu_name, is_nvidia
from ff3r_model.engine.export import ExportConfig, export
from ff3r_model.engine.manifest import ExportError, weights_hash
from ff3r_model.engine.plan_runner import BadPlan
from ff3r_model.engine.plans import Plan, PlanError, PlanKey, default_cache, find, obtain
from ff3r_model.engine.precision import Precision
from ff3r_model.engine.tensorrt_engine import TensorRTEngine
from ff3r_model.engine.tensorrt_library import Library, TensorRTError, load_library
from ff3r_model.engine.torch_engine import TorchEngine
from ff3r_model.images import plan_crop
from ff3r_model.network import FF3R
from ff3r_model.types import MAX_VIEWS, Prediction, Window

log = logging.getLogger(__name__)

Kind = Literal["auto", "torch", "tensorrt"]
USABLE: tuple[type[Exception], ...] = (TensorRTError, ExportError, OSError)
"""What can go wrong with a plan without keeping torch from running."""


@dataclass(frozen=True)
class EngineConfig:
    """How to run the network. All defaults are ours; the paper runs PyTorch."""

    kind: Kind = "auto"
    """auto: TensorRT on an NVIDIA GPU that has it, else torch. tensorrt: the same, and a warning where it is torch."""
    build: bool = True
    """Build a missing plan when the engine is made, which can take long; False: run torch until somebody has."""
    image_size: tuple[int, int] = (480, 640)
    """Height and width of the camera's images, for whose shape a plan is made."""
    precision: Precision = "float16"
    """Of TensorRT's matrix products."""
    max_views: int = MAX_VIEWS
    """Largest window that the plan takes."""
    cache: Path | None = None
    """Folder of the plans; None: ~/.cache/ff3r/engines."""


@dataclass(frozen=True)
class Use:
    """What the windows will be like."""

    views: int
    overlap: int
    long_side: int
    """Of the network's images, pixels."""


class FallbackEngine:
    """TensorRT for as long as it works; from the first window that it fails on, torch, and a warning why."""

    def __init__(self, engine: TensorRTEngine, make_torch: Callable[[], Engine]) -> None:
        self.engine: Engine = engine
        self._make_torch = make_torch

    def __call__(self, window: Window) -> Prediction:
        """Of whichever engine it is."""
        if not isinstance(self.engine, TensorRTEngine):
            return self.engine(window)
        try:
            return self.engine(window)
        except (TensorRTError, ValueError) as error:
            log.warning("TensorRT is given up, torch runs the network from now on: %s", error)
        self.engine = self._make_torch()
        return self.engine(window)


def make_engine(
    config: EngineConfig, checkpoint: Checkpoint, device: torch.device, use: Use, report: Report | None = None
) -> Engine:
    """An engine that runs in any case: TensorRT where `config` and the machine allow, else torch on `device`."""

    def make_torch() -> Engine:
        return TorchEngine(checkpoint.network.to(device))

    if config.kind == "torch":
        return make_torch()
    if not is_nvidia(device):
        level = logging.WARNING if config.kind == "tensorrt" else logging.INFO
        log.log(level, "the device is %s, and TensorRT needs an NVIDIA GPU: torch runs the network", device)
        return make_torch()
    try:
        return FallbackEngine(_tensorrt(config, checkpoint.network, device, use, report), make_torch)
    except USABLE as error:
        log.warning("no TensorRT, torch runs the network: %s", error)
        return make_torch()


def plan_key(
    config: EngineConfig, network: FF3R, library: Library, gpu: str, use: Use, weights: str | None = None
) -> PlanKey:
    """What a plan for this network, machine and use depends on. `weights`: the network's hash, where known."""
    crop = plan_crop(*config.image_size, use.long_side, network.config.encoder.patch)
    return PlanKey(
        weights=weights or weights_hash(network),
        network=network.config.name,
        height=crop.height,
        width=crop.width,
        precision=config.precision,
        attention="fused" if library.fuses_attention else "decomposed",
        views=use.views,
        max_views=max(config.max_views, use.views),
        tensorrt=str(library),
        gpu=gpu,
    )


def _tensorrt(
    config: EngineConfig, network: FF3R, device: torch.device, use: Use, report: Report | None
) -> TensorRTEngine:
    """Raises what USABLE lists."""
    library = load_library()
    key = plan_key(config, network, library, gpu_name(device), use)
    cache = config.cache or default_cache()

    def load(plan: Plan) -> TensorRTEngine:
        return TensorRTEngine(plan, library, network.config, device)

    if not config.build:
        return load(_found(cache, key))
    source = exporter(network, key)
    try:
        return load(obtain(cache, key, library, source, report))
    except BadPlan as error:
        return load(obtain(cache, key, library, source, report, anew=str(error)))


def _found(cache: Path, key: PlanKey) -> Plan:
    try:
        return find(cache, key)
    except PlanError as error:
        raise PlanError(f"{error}. Build it with `ff3r build-engine`, or allow it (build_engine)") from error


def exporter(network: FF3R, key: PlanKey) -> Callable[[Path], Path]:
    """What gives `obtain` the ONNX graphs for `key`."""

    def run(folder: Path) -> Path:
        config = ExportConfig(key.height, key.width, key.precision, key.attention)  # type: ignore[arg-type]
        export(network, config, folder / "graphs")
        return folder / "graphs"

    return run
