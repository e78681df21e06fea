"""From a checkpoint to ONNX, and from ONNX to a TensorRT plan."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from tqdm import tqdm

from ff3r_model.engine.choose import network_size
from ff3r_model.engine.device import device_named, gpu_name, is_nvidia
from ff3r_model.engine.onnx.export import Attention, ExportConfig, export
from ff3r_model.engine.onnx.manifest import Manifest
from ff3r_model.engine.onnx.precision import Precision
from ff3r_model.engine.tensorrt.build import Progress
from ff3r_model.engine.tensorrt.library import TensorRTError, load_library
from ff3r_model.engine.tensorrt.plan_cache import PlanKey, default_cache, obtain
from ff3r_model.network.checkpoint import load_checkpoint

BAR = "{desc} {percentage:3.0f}%|{bar}| {elapsed}"


@dataclass(frozen=True)
class ExportPlan:
    """What to export; the fields are the options of `ff3r export`."""

    checkpoint: Path
    output: Path
    image_size: tuple[int, int] = (640, 480)
    long_side: int | None = None
    precision: Precision = "float16"
    attention: Attention = "fused"


def run_export(plan: ExportPlan) -> str:
    """Write the graphs; returns the summary. Raises CheckpointError, ExportError, ImageError."""
    network = load_checkpoint(plan.checkpoint).network
    side = plan.long_side or network.config.image_side
    height, width = network_size(plan.image_size, side, network.config.encoder.patch)
    with _steps_shown("ff3r_model.engine.onnx.export"):
        manifest = export(network, ExportConfig(height, width, plan.precision, plan.attention), plan.output)
    size = sum(path.stat().st_size for path in plan.output.iterdir()) / 1e6
    return (
        f"{plan.output}: {manifest.network}, images of {width}x{height}, {manifest.precision}, opset {manifest.opset}, "
        f"{size:,.1f} MB"
    )


@dataclass(frozen=True)
class BuildPlan:
    """What to build; the fields are the options of `ff3r build-engine`."""

    exported: Path
    views: int = 8
    max_views: int = 64
    cache: Path | None = None
    device: str = "auto"


def run_build(plan: BuildPlan) -> str:
    """Build or find the plan; returns where it is. Raises ExportError, TensorRTError."""
    manifest = Manifest.read(plan.exported)
    library = load_library()
    key = PlanKey(
        weights=manifest.weights,
        network=manifest.network,
        height=manifest.height,
        width=manifest.width,
        precision=manifest.precision,
        views=plan.views,
        max_views=max(plan.max_views, plan.views),
        tensorrt=str(library),
        gpu=_gpu(device_named(plan.device)),
    )
    with _bars() as report:
        found = obtain(plan.cache or default_cache(), key, library, lambda scratch: plan.exported, report)
    size = sum(path.stat().st_size for path in found.folder.iterdir()) / 1e6
    return f"{found.folder}: {key.tensorrt} on {key.gpu}, {size:,.1f} MB"


def _gpu(device: torch.device) -> str:
    if not is_nvidia(device):
        raise TensorRTError(
            f"the device is {device}: a plan is made on the machine that runs it, with its NVIDIA GPU and a torch "
            "that sees it"
        )
    return gpu_name(device)


@contextmanager
def _bars() -> Iterator[Progress]:
    """A bar per graph and phase of the builder."""
    bar: tqdm | None = None
    shown = ""

    def report(phase: str, share: float) -> None:
        nonlocal bar, shown
        if bar is None or phase != shown:
            if bar is not None:
                bar.close()
            bar, shown = tqdm(total=1.0, desc=phase, bar_format=BAR), phase
        bar.n = share
        bar.refresh()

    try:
        yield report
    finally:
        if bar is not None:
            bar.close()


@contextmanager
def _steps_shown(name: str) -> Iterator[None]:
    """The steps, each of which can take minutes, are told while they happen."""
    logger = logging.getLogger(name)
    before = logger.level
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.setLevel(before)
