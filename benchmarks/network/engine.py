"""The torch engine on this machine: time, memory, operations and share of the matmul rate, for 2 to 64 views.

`nano` at 112×112; `full` (lifting mode, weights without meaning) at 448×448 on a GPU, and in short, 2 views of 56×84,
on a CPU. Then a window of 16 views that slides by 4, with and without the cache of per-frame features, against what
counting operations predicts. `--vggt CHECKOUT` adds the published VGGT code (which is not ours to ship): the same
images through what both networks share. For 64 views of 448×448 the memory of live tensors is computed, not measured:
the very code runs on tensors that have shapes and no data. A GPU adds the calls of a forward that wait for it.
"""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.profiler import profile

from benchmarks.common import Report, fresh_process, interleaved_seconds, main, peak_bytes
from benchmarks.network.cost import Size, available_bytes, build, computed_bytes, flops, product, tie
from ff3r_model.core.types import Window
from ff3r_model.engine.device import device_named
from ff3r_model.engine.frame_cache import CacheConfig
from ff3r_model.engine.torch_engine import TorchConfig, TorchEngine
from ff3r_model.network import FF3R, FF3RConfig

CONFIGS = {"nano": FF3RConfig.nano(), "full": replace(FF3RConfig.full(), decode_gaussians=False)}
VIEWS = (2, 4, 8, 16, 32, 64)
SIDE = {"nano": 112, "full": 448}
SHORT, TARGET, SMALL = (2, 56, 84), (64, 448, 448), (2, 56, 56)
"""Of `full` on a CPU, of the goal, and for `--quick`."""
NEEDED = 14e9
"""Bytes: full's weights twice, because its memory is measured in a process of its own."""
SLIDE, STEP = 16, 4
PEAK, VERSUS = "--peak", "--versus"
GIB = 2**30


def window(images: Tensor, first: int = 0) -> Window:
    """Images as keyframes numbered from `first`."""
    ids = tuple(range(first, first + len(images)))
    return Window(images, ids, ids)


def engine_for(network: FF3R, keyframes: int = 0, compiled: bool = False) -> TorchEngine:
    """The network as the node runs it, without optical flow; `keyframes`: how many the cache may keep."""
    return TorchEngine(network, config=TorchConfig(cache=CacheConfig(keyframes=keyframes), compiled=compiled))


def waiting(run: Callable[[], Any], device: torch.device) -> Callable[[], Any]:
    """The same call, over when the device is done."""

    def call() -> Any:
        result = run()
        if device.type != "cpu":
            torch.accelerator.synchronize()
        return result

    return call


def peak(run: Callable[[], Any], device: torch.device) -> float:
    """Most bytes that a call takes beside what was held before."""
    if device.type == "cpu":
        return peak_bytes(run)
    run()
    torch.accelerator.reset_peak_memory_stats()
    before = torch.accelerator.memory_allocated()
    run()
    torch.accelerator.synchronize()
    return torch.accelerator.max_memory_allocated() - before


def measure_size(name: str, size: Size, device: torch.device, report: Report, repeats: int = 5) -> None:
    """One row of the table: one network at one size."""
    views, height, width = size
    engine = engine_for(build(CONFIGS[name], device))
    given = window(torch.rand(views, 3, height, width))
    run = waiting(lambda: engine(given), device)
    count = flops(run)
    multiply, operations = product(device, torch.bfloat16 if engine.half else torch.float32)
    elapsed, multiplied = interleaved_seconds([run, waiting(multiply, device)], repeats)
    if device.type == "cpu":
        held = fresh_process("benchmarks.network.engine", PEAK, name, *map(str, size))["peak"]
    else:
        held = peak(run, device)
    share = count / elapsed / (operations / multiplied)
    key = f"engine_{name}_{{}}_{views}"
    report.add(key.format("ms"), 1e3 * elapsed, "ms", f"{views} views of {height}×{width}")
    report.add(key.format("peak_mib"), held / 2**20, "MiB", "beside the weights")
    report.add(key.format("gflop"), count / 1e9, "GFLOP", "products and convolutions")
    report.add(key.format("matmul_share"), share, "", f"of {operations / multiplied / 1e9:,.0f} GFLOP/s, in turns")


def measure_slide(quick: bool, report: Report) -> None:
    """A window that slides: what the cache saves, and what the operations say that it should."""
    views, step = (SLIDE, STEP) if not quick else (3, 1)
    network, device = build(CONFIGS["nano"], device_named("auto")), device_named("auto")
    images = torch.rand(views + 40 * step, 3, SIDE["nano"], SIDE["nano"])
    engines = {"plain": engine_for(network), "cached": engine_for(network, 2 * views)}
    at = dict.fromkeys(engines, 0)

    def slide(name: str) -> Callable[[], Any]:
        def run() -> Any:
            start = at[name] = at[name] + step
            return engines[name](window(images[start : start + views], start))

        return waiting(run, device)

    runs = [slide(name) for name in engines]
    for run in runs:
        run()
    counts = [flops(run) for run in runs]
    times = interleaved_seconds(runs, repeats=1 if quick else 15)
    counted, measured = counts[1] / counts[0], times[1] / times[0]
    report.add("engine_slide_plain_ms", 1e3 * times[0], "ms", f"nano, {views} views, {step} new: all encoded again")
    report.add("engine_slide_cached_ms", 1e3 * times[1], "ms", f"the {step} new ones encoded, the others kept")
    report.add("engine_slide_plain_gflop", counts[0] / 1e9, "GFLOP")
    report.add("engine_slide_cached_gflop", counts[1] / 1e9, "GFLOP")
    report.add("engine_slide_cost", measured, "x", "time with the cache over time without")
    report.add("engine_slide_cost_counted", counted, "x", "the same ratio of the operations")
    report.add("engine_slide_off_count", measured / counted - 1, "", "goal: within 0.1")


def measure_memory(quick: bool, report: Report) -> None:
    """64 views of 448×448, by shapes alone."""
    size = SMALL if quick else TARGET
    for name, config in (("lifting", CONFIGS["full"]), ("trained", FF3RConfig.full())):
        weights, live = computed_bytes(config, size, bfloat16=True)
        report.add(f"engine_{name}_weights_gib", weights / GIB, "GiB", "full size, float32")
        note = "computed, beside the weights: {} views of {}×{}, bf16".format(*size)
        report.add(f"engine_{name}_computed_gib", live / GIB, "GiB", note)


def measure_waits(report: Report) -> None:
    """Calls within a forward that make the host wait for the GPU; there must be none."""
    device = device_named("auto")
    if device.type == "cpu":
        print("engine_waits is left out: there is no GPU whose host could wait")
        return
    network = build(CONFIGS["nano"], device)
    engine = engine_for(network)
    images = torch.rand(1, 8, 3, SIDE["nano"], SIDE["nano"], device=device)

    def forward() -> None:
        with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=engine.half):
            network.decode_window(images, network.encode_frames(images))

    waiting(forward, device)()
    with profile() as seen:
        forward()
    waits = sum(event.count for event in seen.key_averages() if "Synchronize" in event.key)
    report.add("engine_waits", waits, "", "synchronising calls in a profiled forward, nano, 8 views")


class SharedPart(nn.Module):
    """What FF3R and VGGT have in common: aggregator, cameras, depth."""

    def __init__(self, network: FF3R) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Any:
        network, (batch, _, _, height, width) = self.network, images.shape
        seen = network.aggregator(images)
        layers = [layer[:, :, seen.special :].flatten(0, 1) for layer in seen.layers]
        grid = (height // network.config.encoder.patch, width // network.config.encoder.patch)
        assert batch == 1
        with torch.autocast(images.device.type, enabled=False):
            poses = network.camera_head(seen.camera.float())
            flat = images.flatten(0, 1)
            chunks = zip(flat.split(8), *(x.float().split(8) for x in layers), strict=True)
            return poses, [network.depth_head(tokens, grid, part) for part, *tokens in chunks]


class RatesOnCpu(TorchFunctionMode):
    """The published constructor reads its drop rates, a `linspace`, which no tensor without data could tell it."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return func(*args, **(kwargs or {}) | ({"device": "cpu"} if func is torch.linspace else {}))


def versus(size: Size) -> dict[str, float]:
    """Seconds of the shared part, ours and as published (found on the path), in turns; on a CPU with tied weights."""
    device, views = device_named("auto"), size[0]
    tied = device.type == "cpu"
    ours = SharedPart(build(CONFIGS["full"], device, tied))
    published = importlib.import_module("vggt.models.vggt").VGGT
    with torch.device("meta"), RatesOnCpu():
        theirs = published(enable_point=False, enable_track=False)
    if tied:
        tie(theirs)
    theirs = theirs.to_empty(device=device).eval().requires_grad_(False)
    for tensor in theirs.state_dict().values():
        tensor.zero_()
    for name, value in (("_resnet_mean", 0.5), ("_resnet_std", 0.25)):
        setattr(theirs.aggregator, name, torch.full((1, 1, 3, 1, 1), value, device=device))
    images = torch.rand(1, views, 3, *size[1:], device=device)

    def run(network: nn.Module) -> Callable[[], Any]:
        def call() -> Any:
            with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=device.type != "cpu"):
                return network(images)

        return waiting(call, device)

    mine, published_seconds = interleaved_seconds([run(ours), run(theirs)], repeats=3)
    return {"ours": mine, "published": published_seconds}


def measure_versus(checkout: Path | None, quick: bool, report: Report) -> None:
    """Our shared part against the published code's."""
    if checkout is None or quick:
        print("engine_vggt is left out: give the published VGGT code's checkout as --vggt CHECKOUT")
        return
    size = SHORT if device_named("auto").type == "cpu" else TARGET
    times = fresh_process("benchmarks.network.engine", VERSUS, *map(str, size), path=checkout)
    about = "{} views of {}×{}, aggregator, cameras and depth".format(*size)
    report.add("engine_shared_ms", 1e3 * times["ours"], "ms", about)
    report.add("engine_vggt_ms", 1e3 * times["published"], "ms", "the published code, in turns")
    report.add("engine_vggt_speedup", times["published"] / times["ours"], "x")


def measure(quick: bool, report: Report, vggt: Path | None = None) -> None:
    """Everything above."""
    device = device_named("auto")
    for views in VIEWS if not quick else VIEWS[:1]:
        measure_size("nano", (views, SIDE["nano"], SIDE["nano"]), device, report, repeats=5 if views < 32 else 3)
    if device.type != "cpu":
        for views in VIEWS:
            measure_size("full", (views, SIDE["full"], SIDE["full"]), device, report, repeats=3)
    elif not quick and available_bytes() < NEEDED:
        print(f"engine_full is left out: {available_bytes() / 1e9:.1f} GB are free of {NEEDED / 1e9:.0f} needed")
    elif not quick:
        measure_size("full", SHORT, device, report)
    measure_slide(quick, report)
    measure_versus(vggt, quick, report)
    measure_memory(quick, report)
    measure_waits(report)


if __name__ == "__main__":
    if sys.argv[1:2] == [PEAK]:
        name, views, height, width = sys.argv[2], *map(int, sys.argv[3:])
        alone = engine_for(build(CONFIGS[name]))
        given = window(torch.rand(views, 3, height, width))
        print(json.dumps({"peak": peak_bytes(lambda: alone(given))}))
    elif sys.argv[1:2] == [VERSUS]:
        views, height, width = map(int, sys.argv[2:])
        print(json.dumps(versus((views, height, width))))
    else:
        main("engine", measure, vggt="a checkout of the published VGGT code, to compare with")
