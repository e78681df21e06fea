"""Choice of the engine that runs the network: TensorRT where it can, else torch, with the reason logged."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch

from ff3r_model.core.ranges import Range, check_range
from ff3r_model.core.types import MAX_VIEWS, MIN_VIEWS, Predict, Prediction, Window
from ff3r_model.engine.device import driver_version, gpu_name, is_nvidia
from ff3r_model.engine.metric_depth import MetricDepthConfig
from ff3r_model.engine.onnx.export import Attention, ExportConfig, export
from ff3r_model.engine.onnx.manifest import ExportError, weights_hash
from ff3r_model.engine.onnx.precision import Precision
from ff3r_model.engine.tensorrt.engine import TensorRTEngine
from ff3r_model.engine.tensorrt.library import TensorRTError, TensorRTLibrary, load_library
from ff3r_model.engine.tensorrt.plan_cache import CachedPlan, PlanError, PlanKey, default_cache, find, obtain
from ff3r_model.engine.tensorrt.plan_check import check_plan
from ff3r_model.engine.tensorrt.plan_runner import BadPlan
from ff3r_model.engine.tensorrt.progress import Progress
from ff3r_model.engine.torch_engine import TorchConfig, TorchEngine
from ff3r_model.frames.prepare import ImageError, plan_crop
from ff3r_model.network import FF3R

log = logging.getLogger(__name__)

Kind = Literal["auto", "torch", "tensorrt"]
RECOVERABLE: tuple[type[Exception], ...] = (TensorRTError, ExportError, ImageError, OSError)
"""What can go wrong with a plan without keeping torch from running."""


@dataclass(frozen=True)
class EngineConfig:
    """How to run the network. The paper runs PyTorch; so does the default."""

    kind: Kind = "torch"
    """auto: TensorRT on an NVIDIA GPU that has it, else torch. tensorrt: the same, and a warning where it is torch."""
    build: bool = True
    """Build a missing plan when the engine is made, which can take long; False: run torch until somebody has."""
    image_size: tuple[int, int] = (640, 480)
    """Width and height of the camera's images, for whose shape a plan is made."""
    precision: Precision = "float16"
    """Of TensorRT's matrix products."""
    max_views: int = MAX_VIEWS
    """Largest window that the plan takes."""
    cache: Path | None = None
    """Folder of the plans; None: ~/.cache/ff3r/engines."""
    torch: TorchConfig = field(default_factory=TorchConfig)
    """For where torch runs the network; its cache of frames also holds for TensorRT."""
    metric: MetricDepthConfig = field(default_factory=MetricDepthConfig)

    def __post_init__(self) -> None:
        check_range(self, Range(MIN_VIEWS, MAX_VIEWS), "max_views")
        if min(self.image_size) < 1:
            raise ValueError(f"image_size must be a width and a height of at least 1, not {list(self.image_size)}")


@dataclass(frozen=True)
class ExpectedWindow:
    """What the windows will be like."""

    views: int
    long_side: int
    """Of the network's images, pixels."""


class FallbackEngine:
    """TensorRT for as long as it works; from the first window that it fails on, torch, with a warning."""

    def __init__(self, engine: TensorRTEngine, make_torch: Callable[[str], Predict]) -> None:
        self.engine: Predict = engine
        self._make_torch = make_torch

    def __call__(self, window: Window) -> Prediction:
        """Of whichever engine it is."""
        if not isinstance(self.engine, TensorRTEngine):
            return self.engine(window)
        try:
            return self.engine(window)
        except (TensorRTError, ValueError) as error:
            log.warning("TensorRT is given up, torch runs the network from now on: %s", error)
            reason = str(error)
        self.engine = self._make_torch(reason)
        return self.engine(window)


def make_engine(
    config: EngineConfig,
    network: FF3R,
    device: torch.device,
    use: ExpectedWindow,
    reload_network: Callable[[], FF3R],
) -> Predict:
    """An engine that runs in any case: TensorRT where `config` and the machine allow, else torch on `device`.

    `network` may be given up once a plan runs; `reload_network` loads it again should the plan fail later.
    """
    if config.kind == "torch":
        return TorchEngine(network.to(device), config.torch)
    if not is_nvidia(device):
        level = logging.WARNING if config.kind == "tensorrt" else logging.INFO
        reason = f"the device is {device}, and TensorRT needs an NVIDIA GPU"
        log.log(level, "%s: torch runs the network", reason)
        return TorchEngine(network.to(device), config.torch, reason if config.kind == "tensorrt" else "")
    try:
        engine = _tensorrt(config, network, device, use)
    except RECOVERABLE as error:
        log.warning("no TensorRT, torch runs the network: %s", error)
        return TorchEngine(network.to(device), config.torch, str(error))
    return FallbackEngine(engine, lambda because: TorchEngine(reload_network().to(device), config.torch, because))


def in_words(engine: Predict) -> str:
    """What runs the network, and why it is torch where TensorRT was wanted."""
    if isinstance(engine, FallbackEngine):
        return in_words(engine.engine)
    if isinstance(engine, TorchEngine):
        return f"torch on {engine.device}" + (f", not TensorRT: {engine.because}" if engine.because else "")
    return f"TensorRT on {engine.device}" if isinstance(engine, TensorRTEngine) else type(engine).__name__


def network_size(image_size: tuple[int, int], long_side: int, patch: int) -> tuple[int, int]:
    """Height and width of the network's images for a camera's width and height, as windows prepare them."""
    width, height = image_size
    crop = plan_crop(height, width, long_side, patch)
    return crop.height, crop.width


def plan_key(config: EngineConfig, network: FF3R, library: TensorRTLibrary, gpu: str, use: ExpectedWindow) -> PlanKey:
    """What a plan for this network, machine and use depends on."""
    height, width = network_size(config.image_size, use.long_side, network.config.encoder.patch)
    return PlanKey(
        weights=weights_hash(network),
        network=network.config.name,
        height=height,
        width=width,
        precision=config.precision,
        views=use.views,
        max_views=max(config.max_views, use.views),
        tensorrt=str(library),
        gpu=gpu,
    )


def _tensorrt(config: EngineConfig, network: FF3R, device: torch.device, use: ExpectedWindow) -> TensorRTEngine:
    """Raises what RECOVERABLE lists."""
    library = load_library()
    network.cpu()  # the plan holds weights of its own
    key = plan_key(config, network, library, gpu_name(device), use)
    cache = config.cache or default_cache()

    def load(plan: CachedPlan) -> TensorRTEngine:
        engine = TensorRTEngine(plan, library, network.config, device, cache=config.torch.cache)
        half = key.precision != "float32" or device.type != "cpu"
        check_plan(
            plan, circumstances(key), use.views, lambda seen: TorchEngine(network.to(device))(seen), engine, half
        )
        engine.forget()
        network.cpu()
        return engine

    if not config.build:
        return load(_found(cache, key))

    def graphs(folder: Path) -> Path:
        attention: Attention = "fused" if library.fuses_attention else "decomposed"
        export(network, ExportConfig(key.height, key.width, config.precision, attention), folder / "graphs")
        return folder / "graphs"

    try:
        return load(obtain(cache, key, library, graphs, Progress()))
    except BadPlan as error:
        return load(obtain(cache, key, library, graphs, Progress(), rebuild_because=str(error)))


def circumstances(key: PlanKey) -> str:
    """The software that runs a plan, on which its verdict depends; the plan itself depends on the rest of its key."""
    return ", ".join(filter(None, (key.tensorrt, key.gpu, f"torch {torch.__version__}", driver_version())))


def _found(cache: Path, key: PlanKey) -> CachedPlan:
    try:
        return find(cache, key)
    except PlanError as error:
        raise PlanError(f"{error}. Build it with `ff3r build-engine`, or allow it (build_engine)") from error
