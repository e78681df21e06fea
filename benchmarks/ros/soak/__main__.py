"""`make soak HOURS=1`: camera, perception node and viewer run on, through queries, services, drop-outs and restarts.

Samples and events are written as they come; Ctrl-C ends the soak with what there is. The exit status is 0 where memory
was flat and every error was accounted for, 1 where not, 2 where the soak could not run, 130 where it was cut short.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.signals import SignalHandlerOptions

from benchmarks.ros.soak.chart import draw
from benchmarks.ros.soak.events import EventFailed, Events
from benchmarks.ros.soak.monitor import SoakMonitor
from benchmarks.ros.soak.record import Record, read_events, read_samples
from benchmarks.ros.soak.stage import Stage
from benchmarks.ros.soak.verdict import WARM_UP, Verdict, judge
from ff3r_ros.demo.dds_domain import free_domain, isolated_environment
from ff3r_ros.demo.processes import ChildDied
from ff3r_ros.lifecycle import LifecycleClient, LifecycleError

RARE = 4
"""Rounds of events between two resets of the map, so that it can fill up in between."""
STARTUP_SECONDS = 180.0
EXIT_INTERRUPTED = 130


def main() -> int:
    """Run the soak and judge it."""
    options = _parse()
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    for number in (signal.SIGINT, signal.SIGTERM):  # SIGINT too: shells start background jobs with it ignored
        signal.signal(number, _interrupt)
    options.output.mkdir(parents=True, exist_ok=True)
    domain = options.domain if options.domain is not None else free_domain()
    os.environ.update(isolated_environment(domain))
    print(f"{options.output}: samples.csv, events.jsonl, the processes' logs", flush=True)
    errors: list[str] = []
    ending = _run(options, errors)
    return _report(options.output, errors, ending, options.warm_up)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ros.soak", description=__doc__)
    parser.add_argument("--hours", type=float, default=1.0)
    parser.add_argument("--output", type=Path, help="folder (default: a new one in the temporary folder)")
    parser.add_argument("--every", type=float, default=20.0, help="seconds between events (default 20)")
    parser.add_argument("--sample", type=float, default=5.0, help="seconds between samples (default 5)")
    parser.add_argument("--rate", type=float, default=10.0, help="images per second (default 10)")
    parser.add_argument("--map-megabytes", type=int, default=16, help="cap of the map (default 16)")
    parser.add_argument("--warm-up", type=float, default=WARM_UP, help=f"seconds until flat (default {WARM_UP:g})")
    parser.add_argument("--domain", type=int, help="ROS domain (default: a free one)")
    options = parser.parse_args()
    if options.output is None:
        options.output = Path(tempfile.mkdtemp(prefix=time.strftime("ff3r-soak-%H%M%S-")))
    return options


def _run(options: argparse.Namespace, errors: list[str]) -> int:
    """The soak itself; 0, or the exit status of an end before its time. Appends the errors that were heard."""
    stage, record = Stage(options.output, options.rate, options.map_megabytes), Record(options.output)
    try:
        with _monitoring() as (monitor, lifecycle):
            try:
                _activate(stage, lifecycle)
                _soak(options, stage, record, Events(stage, monitor, lifecycle, RARE), monitor)
            finally:
                errors.extend(text for _, text in monitor.errors)
    except KeyboardInterrupt:
        print("\ncut short", flush=True)
        return EXIT_INTERRUPTED
    except (ChildDied, LifecycleError) as error:
        record.event("end", str(error), failed=True)
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # an impatient second Ctrl-C must not leave children behind
        stage.stop()
        record.close()
    return 0


@contextmanager
def _monitoring() -> Iterator[tuple[SoakMonitor, LifecycleClient]]:
    """The soak's node, spun by a thread, and the client that drives the perception node."""
    rclpy.init(args=[], signal_handler_options=SignalHandlerOptions.NO)
    monitor, executor = SoakMonitor(), SingleThreadedExecutor()
    executor.add_node(monitor)
    thread = threading.Thread(target=executor.spin, name="monitor", daemon=True)
    thread.start()
    lifecycle = LifecycleClient("/ff3r")
    try:
        yield monitor, lifecycle
    finally:
        lifecycle.close()
        executor.shutdown()
        thread.join(timeout=5)
        monitor.destroy_node()
        rclpy.shutdown()


def _activate(stage: Stage, lifecycle: LifecycleClient) -> None:
    end = time.monotonic() + STARTUP_SECONDS
    while True:
        stage.check()
        try:
            lifecycle.state(timeout=3.0)
            break
        except LifecycleError:
            if time.monotonic() > end:
                raise
    lifecycle.drive("active", timeout=STARTUP_SECONDS)


def _soak(options: argparse.Namespace, stage: Stage, record: Record, events: Events, monitor: SoakMonitor) -> None:
    """Events in turns on this thread, samples on another."""
    ended = threading.Event()
    sampler = threading.Thread(target=_sample, args=(stage, record, monitor, options.sample, ended), name="sampler")
    sampler.start()
    end = time.monotonic() + 3600 * options.hours
    try:
        while time.monotonic() + options.every < end:
            time.sleep(options.every)
            stage.check()
            _do(events, record)
        time.sleep(max(0.0, end - time.monotonic()))
        stage.check()
    finally:
        ended.set()
        sampler.join()


def _sample(stage: Stage, record: Record, monitor: SoakMonitor, period: float, ended: threading.Event) -> None:
    while not ended.wait(period):
        fresh = time.monotonic() - monitor.heard < 3 * period
        record.sample(stage.usage(), monitor.status if fresh else {})


def _do(events: Events, record: Record) -> None:
    """One event; that it fails is on record and ends nothing."""
    event, began = events.next(), record.seconds
    try:
        outcome, failed = event.run(), False
    except (EventFailed, LifecycleError) as error:
        outcome, failed = str(error), True
    record.event(event.name, outcome, failed, began)
    print(f"{began:7.0f} s  {event.name}: {outcome}", flush=True)


def _report(folder: Path, errors: list[str], ending: int, warm_up: float) -> int:
    """Write summary and chart of what there is; the exit status."""
    rows, events = read_samples(folder), read_events(folder)
    verdict: Verdict = judge(rows, events, errors, warm_up)
    (folder / "summary.json").write_text(
        json.dumps({"figures": verdict.figures, "failures": verdict.failures, "errors": errors}, indent=1) + "\n"
    )
    draw(rows, events, folder / "soak.png")
    print("\n".join([*verdict.lines, *(f"FAILED: {text}" for text in verdict.failures)]))
    print(f"soak: {'FAILED' if verdict.failures else 'passed'}; {folder / 'soak.png'}", flush=True)
    return ending or (1 if verdict.failures else 0)


def _interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
