"""The soak's verdict: memory flat after the warm-up, nothing leaked, no error that nobody caused."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from benchmarks.ros.soak.events import PROVOKED
from benchmarks.ros.soak.record import column
from benchmarks.ros.soak.stage import MODULES

WARM_UP = 600.0
"""Seconds after which memory must be flat."""
FLAT = 0.05
"""Growth of the resident set size that still counts as flat."""
PIECES = 5
"""Of the time after the warm-up; the medians of the first and the last are compared, and the highest is shown."""
SPARE = {"threads": 1.0, "descriptors": 3.0}
"""Growth of these that still counts as flat: a service or a timer at the moment of the sample."""


@dataclass(frozen=True)
class Verdict:
    """Figures in words, flat figures, and what is wrong, if anything."""

    lines: list[str] = field(default_factory=list)
    figures: dict[str, float] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)


def judge(
    rows: list[dict[str, str]], events: list[dict[str, Any]], errors: Sequence[str], warm_up: float = WARM_UP
) -> Verdict:
    """Of the samples, the events and the texts of all errors that were heard."""
    verdict = Verdict()
    seconds = column(rows, "seconds")
    _add(verdict, "hours", (seconds[-1] / 3600) if seconds else 0.0, f"{len(rows)} samples, {len(events)} events")
    _judge_work(rows, verdict)
    _judge_errors(events, errors, verdict)
    late = [row for row, at in zip(rows, seconds, strict=True) if at >= warm_up]
    if len(late) < 2 * PIECES or seconds[-1] < 2 * warm_up:
        verdict.lines.append(f"memory is not judged: that takes {2 * warm_up / 60:g} minutes")
        return verdict
    for name in MODULES:
        _judge_memory(name, late, verdict)
    for measure, spare in SPARE.items():
        _judge_count(measure, spare, late, verdict)
    return verdict


def piece_medians(values: Sequence[float], pieces: int = PIECES) -> list[float]:
    """Medians of equal pieces, in order; what is not known is left out."""
    known = [value for value in values if not math.isnan(value)]
    edges = [round(index * len(known) / pieces) for index in range(pieces + 1)]
    return [statistics.median(known[low:high]) for low, high in itertools.pairwise(edges) if high > low]


def total(counts: Sequence[float]) -> float:
    """What a counter has counted that may have started over."""
    known = [value for value in counts if not math.isnan(value)]
    steps = (after - before if after >= before else after for before, after in itertools.pairwise(known))
    return sum(steps, start=known[0] if known else 0.0)


def _judge_work(rows: list[dict[str, str]], verdict: Verdict) -> None:
    windows = total(column(rows, "windows"))
    latencies = sorted(value for value in column(rows, "latency") if value > 0)
    _add(verdict, "windows", windows, f"{total(column(rows, 'windows not used')):,.0f} of them not used")
    if not latencies:
        verdict.failures.append("no window was ever mapped")
        return
    _add(verdict, "latency_median_s", statistics.median(latencies))
    _add(verdict, "latency_p95_s", latencies[int(0.95 * (len(latencies) - 1))])
    _add(verdict, "voxels_most", max(value for value in column(rows, "voxels") if not math.isnan(value)))
    _add(verdict, "map_mb_most", max(value for value in column(rows, "map bytes") if not math.isnan(value)) / 1e6)


def _judge_errors(events: list[dict[str, Any]], errors: Sequence[str], verdict: Verdict) -> None:
    unaccounted = [text for text in errors if not any(known.search(text) for known in PROVOKED)]
    failed = [event for event in events if event["failed"]]
    _add(verdict, "errors", len(errors), f"{len(errors) - len(unaccounted)} of them caused on purpose")
    _add(verdict, "events_failed", len(failed), f"of {len(events)}")
    verdict.failures.extend(f"error: {text}" for text in dict.fromkeys(unaccounted))
    verdict.failures.extend(f"{event['event']} at {event['seconds']:.0f} s: {event['outcome']}" for event in failed)


def _judge_memory(name: str, late: list[dict[str, str]], verdict: Verdict) -> None:
    medians = piece_medians(column(late, f"{name} rss_mb"))
    growth = medians[-1] / medians[0] - 1
    text = ", ".join(f"{value:,.0f}" for value in medians)
    _add(verdict, f"{name}_rss_growth", growth, f"medians of {PIECES} equal pieces after the warm-up: {text} MB")
    if growth > FLAT:
        verdict.failures.append(f"the memory of {name} grows by {growth:.1%}; {FLAT:.0%} is the limit")


def _judge_count(measure: str, spare: float, late: list[dict[str, str]], verdict: Verdict) -> None:
    medians = piece_medians(column(late, f"perception {measure}"))
    growth = medians[-1] - medians[0]
    _add(verdict, f"perception_{measure}_growth", growth, f"from {medians[0]:g} to {medians[-1]:g}")
    if growth > spare:
        verdict.failures.append(f"the perception node has {growth:g} more {measure} at the end")


def _add(verdict: Verdict, key: str, value: float, note: str = "") -> None:
    verdict.figures[key] = float(value)
    verdict.lines.append(f"{key:<28} {value:>10,.3f}  {note}".rstrip())
