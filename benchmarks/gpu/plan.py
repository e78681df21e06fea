"""A TensorRT plan against torch: what it computes, and in what time."""

from __future__ import annotations

import importlib
import tempfile
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.common import interleaved_seconds, seconds
from benchmarks.gpu.network import Case, Figures, NotMeasured
from benchmarks.network.engine import engine_for, waiting, window


def against_torch(case: Case, views: int, device: torch.device) -> Figures:
    """Relative errors of depth and poses, times in turns, and the seconds that building took."""
    if device.type != "cuda":
        raise NotMeasured("TensorRT needs an NVIDIA GPU")
    choose = importlib.import_module("ff3r_model.engine.choose")  # here, because it needs more than torch
    use = choose.ExpectedWindow(views, max(case.height, case.width))
    eager, given = engine_for(case.network(device)), window(case.images(views))
    with tempfile.TemporaryDirectory() as folder:
        config = choose.EngineConfig(
            kind="tensorrt", image_size=(case.width, case.height), max_views=views, cache=Path(folder)
        )
        made: list[object] = []

        def build() -> None:
            made[:] = [choose._tensorrt(config, case.network(device), device, use)]

        took = seconds(build, repeats=1, warm_up=0)
        plan = made[0]
        assert callable(plan)
        ours, theirs = eager(given), plan(given)
        torch_s, plan_s = interleaved_seconds([waiting(partial(each, given), device) for each in (eager, plan)])

    def error(mine: Tensor, other: Tensor) -> float:
        return float((other.float() - mine.float()).norm() / mine.float().norm())

    return {
        "depth_error": error(ours.depth, theirs.depth),
        "pose_error": error(ours.cameras.camera_from_world, theirs.cameras.camera_from_world),
        "torch_ms": 1e3 * torch_s,
        "plan_ms": 1e3 * plan_s,
        "build_s": took,
    }
