"""The network on the CPU: time and memory of a window, floating-point operations, share of the machine's matmul rate.

`nano` at 8 views of 112×112, and `full` in short: 2 views of 56×84, weights without meaning. For 64 views of 448×448
the memory of live tensors is computed, not measured: the very code runs on tensors that have shapes and no data.
"""

from __future__ import annotations

import json
import sys
import weakref
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.common import Report, fresh_process, interleaved_seconds, main, peak_bytes
from ff3r_model.gaussians import predict
from ff3r_model.network import FF3R, FF3RConfig

LIFTING = replace(FF3RConfig.full(), decode_gaussians=False)
CASES = {"nano": (FF3RConfig.nano(), (8, 112, 112)), "full": (LIFTING, (2, 56, 84))}
TARGET, SMALL = (64, 448, 448), (2, 56, 56)
"""Views, height and width."""
NEEDED = 14e9
"""Bytes: full's weights twice, because its memory is measured in a process of its own."""
MATMUL = 1024
PEAK = "--peak"
GIB = 2**30


class LiveBytes(TorchDispatchMode):
    """The most bytes of tensors that were alive at one time, made while it is active and no views of `before`."""

    def __init__(self, before: Iterable[Tensor]) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._known = {tensor.untyped_storage()._cdata for tensor in before}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                self._count(tensor)
        return result

    def _count(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key in self._known:
            return
        self._known.add(key)
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._gone, key, size)

    def _gone(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.now -= size


def build(config: FF3RConfig) -> FF3R:
    """The network with small random weights, made without the slow initialisation."""
    with torch.device("meta"):
        network = FF3R(config)
    network.to_empty(device="cpu").eval().requires_grad_(False)
    for name, tensor in network.state_dict().items():
        tensor.fill_(1) if "running_var" in name else tensor.zero_()
    network.aggregator.mean.fill_(0.5)
    network.aggregator.std.fill_(0.25)
    return network


def available_bytes() -> float:
    """Memory that could be had now (Linux; no limit known elsewhere)."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return float("inf")
    return next(1024.0 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable"))


def forward(network: FF3R, size: tuple[int, int, int]) -> Callable[[], Any]:
    """A call that runs the network as the engine does."""
    views, height, width = size
    images = torch.rand(1, views, 3, height, width)

    def run() -> Any:
        with torch.inference_mode():
            return network(images, semantics=False)

    return run


def flops(run: Callable[[], Any]) -> int:
    """Floating-point operations of a call, as torch counts them: products and convolutions."""
    with FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops()


def computed_bytes(config: FF3RConfig, size: tuple[int, int, int], bfloat16: bool) -> tuple[int, int]:
    """(weights, most bytes alive at once beside them) from images to Gaussians, by shapes alone."""
    views, height, width = size
    with torch.device("meta"):
        network = FF3R(config).eval().requires_grad_(False)
    with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad():
        network.to_empty(device="cpu")
        weights = list(network.state_dict().values())
        images = torch.rand(1, views, 3, height, width)
        with LiveBytes([*weights, images]) as live:
            with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
                output = network(images, semantics=False)
            predict(output, images=images[0])
    return sum(tensor.nbytes for tensor in weights), live.peak


def measure_one(name: str, quick: bool, report: Report) -> None:
    """Time, memory and operations of one network at one size."""
    config, size = CASES[name] if not quick else (CASES[name][0], SMALL)
    run = forward(build(config), size)
    count = flops(run)
    a, b = torch.randn(2, MATMUL, MATMUL)
    elapsed, product = interleaved_seconds([run, lambda: a @ b], repeats=5)
    rate = 2 * MATMUL**3 / product
    about = "{} views of {}×{}".format(*size)
    report.add(f"network_{name}_ms", 1e3 * elapsed, "ms", f"one window, {about}, float32")
    peak = fresh_process("benchmarks.network", PEAK, name, *map(str, size))["peak"]
    report.add(f"network_{name}_peak_mib", peak / 2**20, "MiB", "beside the weights, resident")
    report.add(f"network_{name}_gflop", count / 1e9, "GFLOP", "products and convolutions")
    report.add(f"network_{name}_matmul_gflops", rate / 1e9, "GFLOP/s", f"{torch.get_num_threads()} threads, in turns")
    report.add(f"network_{name}_matmul_share", count / elapsed / rate, "", "achieved rate over that of the product")


def measure(quick: bool, report: Report) -> None:
    """nano measured; full measured at a small size and computed at the paper's."""
    measure_one("nano", quick, report)
    if not quick and available_bytes() < NEEDED:
        print(f"network_full is left out: {available_bytes() / 1e9:.1f} GB are free of {NEEDED / 1e9:.0f} needed")
    elif not quick:
        measure_one("full", quick, report)
    size = SMALL if quick else TARGET
    for name, config in (("lifting", LIFTING), ("trained", FF3RConfig.full())):
        weights, peak = computed_bytes(config, size, bfloat16=True)
        report.add(f"network_{name}_weights_gib", weights / GIB, "GiB", "full size, float32")
        note = "computed, beside the weights: {} views of {}×{}, bf16".format(*size)
        report.add(f"network_{name}_computed_gib", peak / GIB, "GiB", note)


if __name__ == "__main__":
    if sys.argv[1:2] == [PEAK]:
        views, height, width = map(int, sys.argv[3:])
        alone = forward(build(CASES[sys.argv[2]][0]), (views, height, width))
        print(json.dumps({"peak": peak_bytes(alone)}))
    else:
        main("network", measure)
