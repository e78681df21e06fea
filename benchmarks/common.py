"""What all benchmarks share: timing, peak memory, one table, and `--json FILE` with flat keys."""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

Measure = Callable[..., None]
"""Takes `quick`, the report, and the paths that were asked for by name."""


@dataclass
class Report:
    """The rows of a benchmark's table, and its figures under flat keys."""

    name: str
    figures: dict[str, float] = field(default_factory=dict)
    rows: list[tuple[str, str, str]] = field(default_factory=list)

    def add(self, key: str, value: float, unit: str = "", note: str = "") -> None:
        """One figure: kept under `key` in the JSON, shown as `value unit` with a note in the table."""
        self.figures[key] = float(value)
        self.rows.append((key, f"{value:,.3g} {unit}".strip() if abs(value) < 1000 else f"{value:,.0f} {unit}", note))

    def table(self) -> str:
        """The rows as aligned text."""
        widths = [max((len(row[column]) for row in self.rows), default=0) for column in range(2)]
        lines = [f"{key:<{widths[0]}}  {value:>{widths[1]}}  {note}".rstrip() for key, value, note in self.rows]
        return "\n".join([f"== {self.name}", *lines])


def seconds(function: Callable[[], object], repeats: int = 3, warm_up: int = 1) -> float:
    """Median wall-clock seconds of a call."""
    for _ in range(warm_up):
        function()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def interleaved_seconds(functions: list[Callable[[], object]], repeats: int = 3, warm_up: int = 1) -> list[float]:
    """Median seconds of each function, measured in turns so that a busy machine disturbs all alike."""
    times: list[list[float]] = [[] for _ in functions]
    for round_number in range(warm_up + repeats):
        for function, own in zip(functions, times, strict=True):
            elapsed = seconds(function, repeats=1, warm_up=0)
            if round_number >= warm_up:
                own.append(elapsed)
    return [statistics.median(own) for own in times]


def resident_bytes() -> int:
    """Memory that this process holds now (Linux)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("/proc/self/status has no VmRSS line")


def peak_bytes(function: Callable[[], object], interval: float = 0.002) -> int:
    """How far a call's resident memory rose above what was held before it, sampled every `interval` seconds."""
    before, highest, done = resident_bytes(), [0], threading.Event()

    def sample() -> None:
        while not done.is_set():
            highest[0] = max(highest[0], resident_bytes() - before)
            done.wait(interval)

    sampler = threading.Thread(target=sample)
    sampler.start()
    try:
        result = function()
        highest[0] = max(highest[0], resident_bytes() - before)
        del result
    finally:
        done.set()
        sampler.join()
    return highest[0]


def fresh_process(module: str, *arguments: str, path: Path | None = None) -> dict[str, float]:
    """Figures that `python -m module arguments` prints as JSON on its last line: for clean memory measurements.

    `path` is a folder of packages that the process finds besides ours.
    """
    command, root = [sys.executable, "-m", module, *arguments], Path(__file__).parents[1]
    environment = os.environ if path is None else os.environ | {"PYTHONPATH": f"{root}{os.pathsep}{path.resolve()}"}
    output = subprocess.run(command, check=True, capture_output=True, text=True, cwd=root, env=environment).stdout
    return json.loads(output.strip().splitlines()[-1])


def main(name: str, measure: Measure, **paths: str) -> None:
    """Command line of a benchmark: `--json FILE`, and `--quick` for small sizes that only prove that it runs.

    `paths`: further options that take a path, name → help; `measure` gets them by name, None where not given.
    """
    parser = argparse.ArgumentParser(description=name)
    parser.add_argument("--json", type=Path, help="write the figures to this file, under flat keys")
    parser.add_argument("--quick", action="store_true", help="small sizes, figures without meaning")
    for option, text in paths.items():
        parser.add_argument(f"--{option}", type=Path, help=text)
    arguments = parser.parse_args()
    report = Report(name)
    measure(arguments.quick, report, **{option: getattr(arguments, option) for option in paths})
    print(report.table())
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(report.figures, indent=1) + "\n")
