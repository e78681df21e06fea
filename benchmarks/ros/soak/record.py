"""The soak's record: one row of figures every few seconds and one line per event, on disk at once."""

from __future__ import annotations

import csv
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.ros.soak.process_table import Usage
from benchmarks.ros.soak.stage import MODULES

MEASURES = ("rss_mb", "anonymous_mb", "threads", "descriptors", "cpu_s")
FIGURES = (
    "frames in", "windows", "windows not used", "latency", "voxels", "submap", "map bytes", "queries", "failures",
)  # fmt: skip
TEXTS = ("state", "level", "message")
COLUMNS = ("seconds", *(f"{name} {measure}" for name in MODULES for measure in MEASURES), *FIGURES, *TEXTS)


class Record:
    """Writes samples.csv and events.jsonl into a folder, so that nothing is lost however the soak ends."""

    def __init__(self, folder: Path) -> None:
        self._began = time.monotonic()
        self._samples = (folder / "samples.csv").open("w", newline="")
        self._events = (folder / "events.jsonl").open("w")
        self._rows = csv.DictWriter(self._samples, COLUMNS)
        self._rows.writeheader()

    @property
    def seconds(self) -> float:
        """Since the beginning."""
        return time.monotonic() - self._began

    def sample(self, held: Mapping[str, Usage], status: Mapping[str, str]) -> None:
        """One row; what is not known stays empty."""
        row: dict[str, Any] = {"seconds": f"{self.seconds:.1f}"}
        for name, usage in held.items():
            values = (f"{usage.rss / 1e6:.1f}", f"{usage.anonymous / 1e6:.1f}", usage.threads, usage.descriptors)
            row |= {f"{name} {measure}": value for measure, value in zip(MEASURES, (*values, usage.cpu), strict=True)}
        row |= {key: status[key] for key in (*FIGURES, *TEXTS) if key in status}
        self._rows.writerow(row)
        self._samples.flush()

    def event(self, name: str, outcome: str, failed: bool = False, seconds: float | None = None) -> None:
        """One line; `seconds` is when it began, now by default."""
        began = self.seconds if seconds is None else seconds
        line = {"seconds": round(began, 1), "event": name, "outcome": outcome, "failed": failed}
        self._events.write(json.dumps(line) + "\n")
        self._events.flush()

    def close(self) -> None:
        """Close both files."""
        self._samples.close()
        self._events.close()


def read_samples(folder: Path) -> list[dict[str, str]]:
    """The rows of samples.csv."""
    with (folder / "samples.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def read_events(folder: Path) -> list[dict[str, Any]]:
    """The lines of events.jsonl."""
    return [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]


def column(rows: list[dict[str, str]], name: str) -> list[float]:
    """The numbers of a column; NaN where there is none."""
    return [float(row[name]) if row[name] else float("nan") for row in rows]
