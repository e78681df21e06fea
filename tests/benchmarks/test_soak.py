"""The soak: its verdict on records known by heart, its figures of a process, its chart, and two minutes of it all."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs a ROS: native, or its wheels")

from benchmarks.ros.soak.chart import PANEL, PANELS, WIDTH, draw
from benchmarks.ros.soak.events import Event, Events
from benchmarks.ros.soak.process_table import usage
from benchmarks.ros.soak.record import COLUMNS, Record, read_events, read_samples
from benchmarks.ros.soak.verdict import judge, piece_medians, total

ROOT = Path(__file__).resolve().parents[2]
ERROR = "log of ff3r: FileNotFoundError: [Errno 2] No such file or directory: 'map'"


def rows(count: int = 200, **columns: Any) -> list[dict[str, str]]:
    """Samples of half a minute each; columns are constants, or functions of the share of the time that has passed."""
    given = {f"{name} rss_mb": 1000 for name in ("camera", "viewer", "perception")}
    given |= {"perception threads": 19, "perception descriptors": 23, "windows": lambda share: 1000 * share}
    given |= {"windows not used": 0, "latency": 0.5, "voxels": 900, "map bytes": 4e6}
    given |= {key.replace("_", " ", 1): value for key, value in columns.items()}
    made = []
    for index in range(count):
        share = index / (count - 1)
        values = {key: str(value(share) if callable(value) else value) for key, value in given.items()}
        made.append(dict.fromkeys(COLUMNS, "") | values | {"seconds": str(30.0 * index)})
    return made


def event(name: str = "save", failed: bool = False) -> dict[str, Any]:
    return {"seconds": 60.0, "event": name, "outcome": "done", "failed": failed}


def test_flat_memory_passes() -> None:
    verdict = judge(rows(), [event()], [])
    assert verdict.failures == [] and verdict.figures["perception_rss_growth"] == 0
    assert verdict.figures["windows"] == pytest.approx(1000) and verdict.figures["hours"] == pytest.approx(
        1.66, abs=0.01
    )


def test_memory_that_grows_after_the_warm_up_fails() -> None:
    verdict = judge(rows(perception_rss_mb=lambda share: 1000 + 120 * share), [event()], [])
    assert [text for text in verdict.failures if "the memory of perception grows by" in text]
    early = judge(rows(perception_rss_mb=lambda share: 1000 if share > 0.09 else 300), [event()], [])
    assert early.failures == []


@pytest.mark.parametrize("measure", ["threads", "descriptors"])
def test_threads_and_descriptors_that_pile_up_fail(measure: str) -> None:
    grown = judge(rows(**{f"perception_{measure}": lambda share: 20 + round(10 * share)}), [], [])
    assert any(measure in text for text in grown.failures)


def test_a_short_soak_judges_no_memory() -> None:
    verdict = judge(rows(20, perception_rss_mb=lambda share: 1000 * (1 + share)), [event()], [])
    assert verdict.failures == [] and any("memory is not judged" in line for line in verdict.lines)


def test_errors_are_accounted_for_or_fail() -> None:
    verdict = judge(rows(), [event()], [ERROR, "diagnostics: RuntimeError: boom", "diagnostics: RuntimeError: boom"])
    assert verdict.failures == ["error: diagnostics: RuntimeError: boom"] and verdict.figures["errors"] == 3


def test_an_event_that_failed_and_a_node_that_maps_nothing_fail() -> None:
    assert judge(rows(), [event("reset", failed=True)], []).failures == ["reset at 60 s: done"]
    assert "no window was ever mapped" in judge(rows(latency=0), [], []).failures
    assert "no window was ever mapped" in judge([], [], []).failures


def test_a_counter_that_starts_over_is_summed() -> None:
    assert total([2, 5, 9, 1, 4]) == 9 + 4
    assert total([float("nan"), 3, float("nan"), 4]) == 4
    assert total([]) == 0


def test_medians_of_pieces() -> None:
    assert piece_medians([1, 1, 9, 5, 5, 6, 7, 7, 7], 3) == [1, 5, 7]
    assert piece_medians([float("nan"), 2.0], 5) == [2.0]


def test_usage_of_this_process_and_of_none() -> None:
    held = usage(os.getpid())
    assert held is not None and held.rss >= held.anonymous > 2**20 and held.threads >= 1
    with open(os.devnull) as _:
        more = usage(os.getpid())
    assert more is not None and more.descriptors == held.descriptors + 1 and more.cpu >= held.cpu > 0
    ended = subprocess.Popen([sys.executable, "-c", ""])
    time.sleep(0.5)
    assert usage(ended.pid) is None or ended.poll() is None  # a zombie until it is waited for
    ended.wait()
    assert usage(ended.pid) is None


def test_what_is_recorded_is_on_disk_at_once(tmp_path: Path) -> None:
    record = Record(tmp_path)
    own = usage(os.getpid())
    assert own is not None
    record.sample({"perception": own}, {"voxels": "7", "message": 'a "quoted", one', "unknown": "x"})
    record.sample({}, {})
    record.event("save", "done")
    first, second = read_samples(tmp_path)
    assert float(first["perception rss_mb"]) == pytest.approx(own.rss / 1e6, abs=0.1)
    assert (first["voxels"], first["message"], second["voxels"]) == ("7", 'a "quoted", one', "")
    assert read_events(tmp_path)[0]["outcome"] == "done"
    record.close()


def test_the_chart_shows_its_curves(tmp_path: Path) -> None:
    made = rows(latency=lambda share: 2 * share)
    made[100]["perception rss_mb"] = ""
    draw(made, [event("reset")], tmp_path / "chart.png")
    picture = cv2.imread(str(tmp_path / "chart.png"))
    assert picture.shape == (PANEL * len(PANELS), WIDTH, 3)
    latency = picture[2 * PANEL + 40 : 3 * PANEL - 20, 100:-30]
    blue = np.argwhere(np.abs(latency.astype(int) - (220, 100, 30)).max(-1) < 60)
    assert np.corrcoef(blue[:, 1], blue[:, 0])[0, 1] < -0.99  # rising from left to right
    draw([], [], tmp_path / "empty.png")


def test_rare_events_come_in_every_so_manieth_round() -> None:
    events = Events.__new__(Events)
    events._turn = 0
    events.all = tuple(Event(name, str, every) for name, every in (("a", 1), ("b", 2), ("c", 4)))
    assert "".join(events.next().name for _ in range(14)) == "abcaabaabcaaba"


def start(*arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "benchmarks.ros.soak", *map(str, arguments)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


@pytest.mark.long
def test_two_minutes_of_everything(tmp_path: Path) -> None:
    with start("--hours", 1 / 30, "--every", 4, "--sample", 2, "--output", tmp_path) as process:
        output, _ = process.communicate(timeout=900)
    assert process.returncode == 0, output
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["failures"] == [] and summary["figures"]["windows"] > 3
    assert len(read_samples(tmp_path)) > 20 and (tmp_path / "soak.png").stat().st_size > 1000
    names = {event["event"] for event in read_events(tmp_path)}
    assert {"save", "load", "camera silent", "deactivate, activate", "camera restarted"} <= names


@pytest.mark.long
def test_ctrl_c_keeps_what_there_is(tmp_path: Path) -> None:
    with start("--hours", 1, "--every", 4, "--sample", 2, "--output", tmp_path) as process:
        end = time.monotonic() + 300
        while (time.monotonic() < end and not (tmp_path / "events.jsonl").exists()) or not read_events(tmp_path):
            time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=120)
    assert process.returncode == 130 and "Traceback" not in output, output
    assert json.loads((tmp_path / "summary.json").read_text())["figures"]["events_failed"] == 0
    assert (tmp_path / "soak.png").exists() and "cut short" in output
