"""Public backbones side by side: parameters, operations and memory by shapes alone, and the time of two views here.

    python -m benchmarks.network.backbones [--json FILE] [--quick]

Windows of 448×336 in lifting mode, weights without meaning. The baseline of all ratios is VGGT-1B with LSeg.
"""

from __future__ import annotations

from functools import partial

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from benchmarks.common import Report, interleaved_seconds, main
from benchmarks.gpu.__main__ import CASES
from benchmarks.network.cost import Size, build, computed_bytes, flops
from benchmarks.network.engine import engine_for, window
from ff3r_model.network import FF3R, FF3RConfig

NAMES = ("full", "da3-base-tipsv2-b14", "da3-small-tipsv2-b14")
"""The baseline first."""
VIEWS = (2, 8, 16, 64)
SIZE = (336, 448)
QUICK = (56, 84)


def computed_flops(config: FF3RConfig, size: Size) -> int:
    """Floating-point operations of one window from images to depth and features, by shapes alone."""
    views, height, width = size
    with torch.device("meta"):
        network = FF3R(config).eval().requires_grad_(False)
    with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad():
        network.to_empty(device="cpu")
        images = torch.rand(1, views, 3, height, width)
        return flops(lambda: network(images, semantics=False))


def measure(quick: bool, report: Report) -> None:
    """All networks at all numbers of views."""
    size = QUICK if quick else SIZE
    for views in VIEWS[:1] if quick else VIEWS:
        first: dict[str, float] = {}
        for name in NAMES:
            config, window_size = CASES[name].config, (views, *size)
            weights, live = computed_bytes(config, window_size, bfloat16=True)
            figures = {"gflop": computed_flops(config, window_size) / 1e9, "peak_mib": live / 2**20}
            if views == VIEWS[0]:
                figures["parameters_m"] = weights / 4e6
            for key, value in figures.items():
                ratio = value / first.setdefault(key, value)
                report.add(f"{name}_{key}_{views}", value, "", f"{views} views: {ratio:.3f} of {NAMES[0]}'s")
    images = window(torch.rand(2, 3, *size))
    runs = [partial(engine_for(build(CASES[name].config)), images) for name in NAMES]
    times = interleaved_seconds(runs, repeats=1 if quick else 3)
    for name, elapsed in zip(NAMES, times, strict=True):
        ratio = f"{elapsed / times[0]:.3f} of {NAMES[0]}'s, in turns, float32 on this CPU"
        report.add(f"{name}_ms_2", 1e3 * elapsed, "ms", ratio)


if __name__ == "__main__":
    main("backbones", measure)
