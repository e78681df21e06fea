"""Everything that only a GPU can show: speed, memory, bf16, CUDA graphs, compilation, gsplat, TensorRT.

    python -m benchmarks.gpu [--json gpu.json] [--minutes 8] [--device cuda]

Needs torch, numpy, safetensors and jaxtyping, and no network; what needs more (gsplat, TensorRT) is said to be not
measured where that is missing. Figures are written after every measurement, to the JSON file and to a table beside it
(.md); a run that is cut off, by its own deadline or otherwise, is taken up where it was by the same command. Exits 0
where nothing is left to do on this machine, 1 where another run would go on.
"""

from __future__ import annotations

import argparse
import os
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch

from benchmarks.gpu import network, plan, rasterizer
from benchmarks.gpu.network import Case, Figures, NotMeasured
from benchmarks.gpu.results import CUT_OFF, NO_TIME, Machine, Results
from ff3r_model.network import FF3RConfig
from ff3r_model.network.config import TIPSv2Config

SIZE = (336, 448)


def lifting(geometry: FF3RConfig, words: TIPSv2Config | None = None) -> FF3RConfig:
    """As converted public weights run: no Gaussian head; words by LSeg, or by a TIPSv2."""
    if words is not None:
        geometry = replace(geometry, lseg=None, tipsv2=words, text_width=words.vit.width)
    return replace(geometry, decode_gaussians=False)


CASES = {
    "full": Case(lifting(FF3RConfig.full()), *SIZE),
    "da3-base-tipsv2-b14": Case(lifting(FF3RConfig.da3_base(), TIPSv2Config.b14()), *SIZE),
    "da3-small-tipsv2-b14": Case(lifting(FF3RConfig.da3_small(), TIPSv2Config.b14()), *SIZE),
    "nano": Case(FF3RConfig.nano(), 84, 112),
    "da3-large-tipsv2-l14": Case(lifting(FF3RConfig.da3_large(), TIPSv2Config.l14()), *SIZE),
    "full-trained": Case(FF3RConfig.full(), *SIZE),
}
"""`full-trained` with fusion and Gaussian head, which nobody has published weights of."""
VIEWS = (8, 64, 16, 32, 2, 4)
"""The likeliest first, in case time ends."""
QUICK = {"nano": Case(FF3RConfig.nano(), 56, 56)}
GUESS = 15.0
"""Seconds that a measurement is expected to take, before one of its kind has been made."""


@dataclass(frozen=True)
class Measurement:
    """One row of the table."""

    name: str
    kind: str
    """Of those that take alike long."""
    run: Callable[[torch.device], Figures]


def measurements(cases: dict[str, Case], views: tuple[int, ...], quick: bool) -> list[Measurement]:
    """All, in the order of their worth."""
    first = next(iter(cases))
    some = views[0]
    found = [
        Measurement(f"speed, {name}, {count} views", f"speed {name}", partial(network.speed, case, count))
        for count in views
        for name, case in cases.items()
    ]
    precise = [
        Measurement(f"bf16 error, {name}, {some} views", f"bf16 {name}", partial(network.bf16_error, case, some))
        for name, case in cases.items()
    ]
    graphs = [
        Measurement(f"CUDA graph, {name}, {some} views", f"graph {name}", partial(network.graph_gain, case, some))
        for name, case in cases.items()
    ]
    size = (200, 24, 32) if quick else (20_000, 240, 320)
    rest = [
        Measurement("gsplat against the CPU renderer", "gsplat", partial(rasterizer.agreement, *size)),
        Measurement(f"torch.compile, {first}, {some} views", "compile", partial(compiled, cases[first], some)),
        *(
            Measurement(
                f"TensorRT against torch, {name}, {some} views", "plan", partial(plan.against_torch, case, some)
            )
            for name, case in reversed(cases.items())
        ),
    ]
    return [*found[: len(cases)], *precise, *found[len(cases) :], *graphs, *rest]


def compiled(case: Case, views: int, device: torch.device) -> Figures:
    """On a GPU alone: compiling for a CPU takes longer than it is worth to know."""
    if device.type == "cpu":
        raise NotMeasured("there is no GPU")
    return network.compiled_gain(case, views, device)


def measure(results: Results, device: torch.device, deadline: float, todo: list[Measurement]) -> None:
    """All that is not in `results` yet and fits before the deadline (time.monotonic)."""
    took: dict[str, float] = {}
    for each in todo:
        if each.name in results.figures:
            continue
        if time.monotonic() + took.get(each.kind, GUESS) > deadline:
            results.miss(each.name, NO_TIME)
            continue
        print(f"{each.name} …", flush=True)
        start = time.monotonic()
        with cut_off_at(deadline, results, each.name):
            attempt(results, each, device)
        took[each.kind] = time.monotonic() - start


def attempt(results: Results, each: Measurement, device: torch.device) -> None:
    """One measurement; whatever it raises becomes the reason why there is no figure."""
    try:
        results.add(each.name, each.run(device))
    except torch.OutOfMemoryError as error:
        results.miss(each.name, f"out of GPU memory: {str(error)[:120]}")
    except Exception as error:  # one that fails must not take the others along
        text = f"{error}" if isinstance(error, NotMeasured) else f"{type(error).__name__}: {error}"
        results.miss(each.name, text[:300])
    if device.type == "cuda":
        torch.cuda.empty_cache()


class cut_off_at:
    """Ends the process at the deadline, with everything saved, should a measurement hang."""

    def __init__(self, deadline: float, results: Results, name: str) -> None:
        self._timer = threading.Timer(max(deadline - time.monotonic(), 0.1), self._end, (results, name))
        self._timer.daemon = True

    def __enter__(self) -> None:
        self._timer.start()

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()

    @staticmethod
    def _end(results: Results, name: str) -> None:
        results.miss(name, CUT_OFF)
        print(f"{name}: {CUT_OFF}; run the same command again to go on", flush=True)
        os._exit(1)


def main() -> int:
    """Measure, print the table, and say by the exit status whether all was done."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, default=Path("gpu.json"), help="figures; the table goes beside it, as .md")
    parser.add_argument("--minutes", type=float, default=8.0, help="deadline for the whole run")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="cuda, cuda:1 or cpu")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, figures without meaning")
    options = parser.parse_args()
    device = torch.device(options.device)
    results = Results.resume(options.json, Machine.here(device))
    if device.type == "cpu" and not options.quick:
        for each in measurements(CASES, VIEWS, False):
            results.miss(each.name, "this machine has no GPU that torch can use")
    else:
        todo = measurements(QUICK, (2,), True) if options.quick else measurements(CASES, VIEWS, False)
        measure(results, device, time.monotonic() + 60 * options.minutes, todo)
    print(results.markdown())
    if not results.complete:
        print("not finished: run the same command again to go on")
    return 0 if results.complete else 1


if __name__ == "__main__":
    sys.exit(main())
