"""The networks on a GPU: time, memory, share of the matmul rate, bf16's error, CUDA graphs and torch.compile."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from benchmarks.common import interleaved_seconds, seconds
from benchmarks.network.cost import build, flops, product
from benchmarks.network.engine import engine_for, peak, waiting, window
from benchmarks.network.standin_values import standin_tensor
from ff3r_model.engine.device import SideStream
from ff3r_model.engine.half_precision import fastest_attention, halve_weights
from ff3r_model.network import FF3R, FF3RConfig

Figures = dict[str, float]


class NotMeasured(Exception):
    """What this machine lacks."""


@dataclass(frozen=True)
class Case:
    """A network, at the size of images that it is measured with."""

    config: FF3RConfig
    height: int
    width: int

    def network(self, device: torch.device) -> FF3R:
        """With weights that mean nothing and make every output vary, the same every time."""
        with device:
            network = FF3R(self.config).eval().requires_grad_(False)
        for name, weights in network.named_parameters():
            weights.copy_(standin_tensor(name, tuple(weights.shape)))
        return network

    def images(self, views: int) -> Tensor:
        """Noise, the same every time."""
        return torch.rand(views, 3, self.height, self.width, generator=torch.Generator().manual_seed(views))


def speed(case: Case, views: int, device: torch.device, repeats: int = 5) -> Figures:
    """One window from images to Gaussians."""
    engine, given = engine_for(build(case.config, device)), window(case.images(views))
    run = waiting(lambda: engine(given), device)
    operations = flops(run)
    multiply, each = product(device, torch.bfloat16 if engine.half else torch.float32)
    elapsed, multiplied = interleaved_seconds([run, waiting(multiply, device)], repeats)
    return {
        "ms": 1e3 * elapsed,
        "peak_mib": peak(run, device) / 2**20,
        "gflop": operations / 1e9,
        "matmul_share": operations / elapsed / (each / multiplied),
    }


@torch.inference_mode()
def bf16_error(case: Case, views: int, device: torch.device) -> Figures:
    """‖bf16 - float32‖ / ‖float32‖ of what the network gives, the same weights in both."""
    network, images = case.network(device), case.images(views)[None].to(device)
    exact = network(images, semantics=False)
    halve_weights(network)
    with torch.autocast(device.type, torch.bfloat16), fastest_attention(device):
        rough = network(images, semantics=False)

    def error(name: str) -> float:
        reference = getattr(exact, name).double()
        return float((getattr(rough, name).double() - reference).norm() / reference.norm())

    return {name: error(name) for name in ("pose_encodings", "depth", "depth_confidence", "tokens")}


def compiled_gain(case: Case, views: int, device: torch.device) -> Figures:
    """torch.compile's fused blocks against the same network eager, in turns."""
    given = window(case.images(views))
    eager, fused = (engine_for(build(case.config, device), compiled=compiled) for compiled in (False, True))
    first = seconds(waiting(lambda: fused(given), device), repeats=1, warm_up=0)
    runs = [waiting(partial(engine, given), device) for engine in (eager, fused)]
    plain, faster = interleaved_seconds(runs, repeats=5)
    return {"eager_ms": 1e3 * plain, "compiled_ms": 1e3 * faster, "gain": plain / faster, "first_window_s": first}


@torch.inference_mode()
def graph_gain(case: Case, views: int, device: torch.device) -> Figures:
    """The same kernels replayed as one CUDA graph: what launching them one by one costs."""
    if device.type != "cuda":
        raise NotMeasured("CUDA graphs need an NVIDIA GPU")
    network, images = case.network(device), case.images(views)[None].to(device)
    halve_weights(network)
    kept: list[Any] = []

    def run() -> None:
        with torch.autocast(device.type, torch.bfloat16), fastest_attention(device):
            kept[:] = [network(images, semantics=False)]

    stream = SideStream(device)
    with stream.entered():
        run()
    torch.cuda.synchronize()
    replay: Callable[[], None] | None = stream.capture(run)
    assert replay is not None
    eager, replayed = interleaved_seconds([waiting(run, device), waiting(replay, device)], repeats=5)
    return {"eager_ms": 1e3 * eager, "graph_ms": 1e3 * replayed, "gain": eager / replayed}
