"""`python -m ff3r_ros.demo`: a camera, the perception node and the web viewer, as three processes over real DDS.

Runs until Ctrl-C, or for `--seconds`, after which the exit status says whether an independent subscriber received
what it should and whether that was right.
"""

from __future__ import annotations

import argparse
import logging
import os
import re
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import TextIOWrapper
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from ff3r_ros.demo.dds_domain import free_domain, isolated_environment
from ff3r_ros.demo.processes import Child, ChildDied, stop_all, tail

# Torch and ROS load inside functions: they take seconds, in which the children start already.
if TYPE_CHECKING:
    from rclpy.executors import SingleThreadedExecutor

    from ff3r_ros.demo.monitor import DemoMonitor
    from ff3r_ros.demo.verdict import Truth

DEMO_SEED = 30
"""Of the room and the camera's tour; this one is wide."""
VOXEL_SIZE = 0.1
"""Metres, in the synthetic room: nano's depth is no finer."""
FIELD_OF_VIEW = 70.0
"""Degrees, horizontal."""
RECORDED_WIDTH = 640
"""Pixels; what features are found in."""
QUERIES_FOR_RECORDINGS = ("floor", "wall", "chair", "table")
STARTUP_SECONDS = 120.0
"""The perception node must be active by then. Slow: a first start without caches on a small machine."""
EXIT_INTERRUPTED = 130


class DemoError(RuntimeError):
    """The demo cannot start or go on; the message gives the reason."""


@dataclass
class Options:
    """The command line."""

    seconds: float | None
    source: str | None
    viewer: bool
    port: int
    seed: int
    weights: str
    device: str
    camera_height: float | None
    intrinsics: str | None
    fov: float | None
    domain: int | None


def main(arguments: list[str] | None = None) -> int:
    """Run the demo; 0 when all went well, 1 when a check failed, 2 when it could not run, 130 when cut short."""
    options = parse(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)  # whoever pipes the demo sees its lines at once
    for number in (signal.SIGINT, signal.SIGTERM):  # SIGINT too: shells start background jobs with it ignored
        signal.signal(number, _as_keyboard_interrupt)
    try:
        _check_source(options)
        return _run(options)
    except KeyboardInterrupt:
        print("\nstopped" + (" before the verdict" if options.seconds is not None else ""))
        return 0 if options.seconds is None else EXIT_INTERRUPTED
    except (DemoError, ChildDied) as error:
        print(f"\ndemo: {error}", file=sys.stderr)
        return 2


def parse(arguments: list[str] | None) -> Options:
    """The options of a command line."""
    parser = argparse.ArgumentParser(prog="python -m ff3r_ros.demo", description=__doc__.split("\n")[0])
    parser.add_argument("--seconds", type=float, help="end by itself and judge; otherwise run until Ctrl-C")
    parser.add_argument("--source", help="video, folder of images, rosbag2 folder or .mcap instead of a synthetic room")
    parser.add_argument("--no-viewer", dest="viewer", action="store_false", help="leave the web viewer out")
    parser.add_argument("--port", type=int, default=8080, help="of the viewer (default 8080; taken: the next free one)")
    parser.add_argument("--seed", type=int, default=DEMO_SEED, help=f"which synthetic room (default {DEMO_SEED})")
    parser.add_argument(
        "--weights", default="", help="checkpoint instead of nano: a name of `ff3r weights list`, or a file"
    )
    parser.add_argument("--device", default="auto", help="where the network runs (default auto)")
    parser.add_argument("--camera-height", type=float, help="metres above the floor, to make a recording's map metric")
    parser.add_argument("--intrinsics", help="a recording's fx,fy,cx,cy, or a file of them or of a calibration")
    parser.add_argument("--fov", type=float, help="a recording's horizontal field of view, degrees")
    parser.add_argument("--domain", type=int, help="ROS domain (default: a free one)")
    return Options(**vars(parser.parse_args(arguments)))


def _check_source(options: Options) -> None:
    """Raises DemoError before anything starts when the recording cannot be read."""
    if options.source is None:
        if options.intrinsics is not None or options.fov is not None:
            raise DemoError("--intrinsics and --fov are of a recording: give --source, too")
        return
    from ff3r_model.frames.intrinsics import stated_camera
    from ff3r_model.frames.open_source import open_source
    from ff3r_model.frames.source import SourceError

    options.source = str(Path(options.source).expanduser().resolve())
    try:
        camera = stated_camera(options.intrinsics, options.fov)
        next(iter(open_source(options.source, camera=camera)), None)  # whether it fits the pictures, too
    except SourceError as error:
        raise DemoError(str(error)) from error


def _run(options: Options) -> int:
    logs = Path(tempfile.mkdtemp(prefix=time.strftime("ff3r-demo-%H%M%S-")))
    domain = options.domain if options.domain is not None else free_domain()
    os.environ.update(isolated_environment(domain))
    print(
        f"logs: {logs}\njoin from another shell: export ROS_DOMAIN_ID={domain} ROS_AUTOMATIC_DISCOVERY_RANGE=LOCALHOST"
    )
    children: list[Child] = []
    started = time.monotonic()
    print(f"starting the camera, {'the viewer, ' if options.viewer else ''}the perception node …")
    try:
        children.append(_start("camera", "ff3r_ros.camera.node", _camera_arguments(options), logs))
        if options.viewer:
            children.append(_start("viewer", "ff3r_ros.viewer.node", ["-p", f"port:={options.port}"], logs))
        truth = _truth(options)
        children.append(_start("perception", "ff3r_ros.perception.node", _perception_arguments(options, truth), logs))
        with _monitoring() as (monitor, executor):
            _activate(children)
            url = _viewer_url(children, logs) if options.viewer else "none"
            print(f"all up after {time.monotonic() - started:.1f} s\nviewer: {url}")
            queries = truth.queries if truth else list(QUERIES_FOR_RECORDINGS)
            _watch(options, children, monitor, executor, queries)
            return _judge(monitor, truth) if options.seconds is not None else 0
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # an impatient second Ctrl-C must not leave children behind
        stop_all(children)


def _start(name: str, module: str, ros_arguments: list[str], logs: Path) -> Child:
    arguments = ["--ros-args", *ros_arguments] if ros_arguments else []
    return Child(name, module, arguments, logs / f"{name}.log", os.environ)


def _camera_arguments(options: Options) -> list[str]:
    if options.source is not None:
        given = {"source": options.source, "intrinsics": options.intrinsics, "recorded_fov": options.fov}
        given["width"] = RECORDED_WIDTH
        return [word for name, value in given.items() if value for word in ("-p", f"{name}:={_ros_value(value)}")]
    return ["-p", f"seed:={options.seed}", "-p", f"field_of_view:={FIELD_OF_VIEW}"]


def _ros_value(value: object) -> str:
    """As ROS parses it: text that looks like numbers in quotes."""
    return "'" + value.replace("'", "''") + "'" if isinstance(value, str) else str(value)


def _perception_arguments(options: Options, truth: Truth | None) -> list[str]:
    height = options.camera_height if options.camera_height is not None else truth.camera_height if truth else None
    given: dict[str, object] = {"device": options.device, "weights": options.weights, "camera_height": height}
    if truth is not None:
        given["voxel_size"] = VOXEL_SIZE
    return [word for name, value in given.items() if value for word in ("-p", f"{name}:={value}")]


def _truth(options: Options) -> Truth | None:
    """Of the synthetic room; there is none of a recording."""
    if options.source is not None:
        return None
    from ff3r_ros.demo.verdict import truth_of

    return truth_of(options.seed, FIELD_OF_VIEW)


@contextmanager
def _monitoring() -> Iterator[tuple[DemoMonitor, SingleThreadedExecutor]]:
    """The independent subscriber, in this process."""
    import rclpy
    from rclpy.executors import SingleThreadedExecutor
    from rclpy.signals import SignalHandlerOptions

    from ff3r_ros.demo.monitor import DemoMonitor

    rclpy.init(args=[], signal_handler_options=SignalHandlerOptions.NO)
    monitor, executor = DemoMonitor(), SingleThreadedExecutor()
    executor.add_node(monitor)
    try:
        yield monitor, executor
    finally:
        executor.shutdown()
        monitor.destroy_node()
        rclpy.shutdown()


def _activate(children: list[Child]) -> None:
    """Drive the perception node to active, while watching that nothing dies."""
    from ff3r_ros.lifecycle import LifecycleClient, LifecycleError

    client = LifecycleClient("/ff3r")
    perception, end = children[-1], time.monotonic() + STARTUP_SECONDS
    try:
        while True:
            for child in children:
                child.check()
            try:
                client.state(timeout=1.0)
                break
            except LifecycleError as error:
                if time.monotonic() > end:
                    raise DemoError(f"{error}; the end of {perception.log}:\n{tail(perception.log)}") from error
        client.drive("active", timeout=STARTUP_SECONDS)
    except LifecycleError as error:
        raise DemoError(f"{error}; the end of {perception.log}:\n{tail(perception.log)}") from error
    finally:
        client.close()


def _viewer_url(children: list[Child], logs: Path) -> str:
    """The URL that the viewer has logged."""
    end = time.monotonic() + STARTUP_SECONDS
    while time.monotonic() < end:
        for child in children:
            child.check()
        text = (logs / "viewer.log").read_text(errors="replace")
        if found := re.search(r"viewer at (http://\S+)", text):
            taken = re.search(r"port \d+ is in use", text)
            return f"{found[1]} ({taken[0]})" if taken else found[1]
        time.sleep(0.1)
    raise DemoError(f"the viewer does not come up; the end of its log:\n{tail(logs / 'viewer.log')}")


def _watch(
    options: Options,
    children: list[Child],
    monitor: DemoMonitor,
    executor: SingleThreadedExecutor,
    queries: list[str],
) -> None:
    """Spin, ask the queries once somebody listens, show the status, until the time is over or Ctrl-C."""
    from ff3r_ros.demo.status import status_line

    show, next_status, asked = status_line(), 0.0, False
    end = time.monotonic() + options.seconds if options.seconds is not None else float("inf")
    while time.monotonic() < end:
        executor.spin_once(timeout_sec=0.1)
        if not asked and monitor.heard:
            asked = True
            print(f"queries: {', '.join(queries)}")
            for text in queries:
                monitor.ask(text)
        if time.monotonic() > next_status:
            next_status = time.monotonic() + 0.5
            for child in children:
                child.check()
            show(monitor)
    print()


def _judge(monitor: DemoMonitor, truth: Truth | None) -> int:
    from ff3r_ros.demo.verdict import verdict_of

    verdict = verdict_of(monitor, truth)
    print("\nwhat an independent subscriber received")
    for line in verdict.lines:
        print(f"  {line}")
    for failure in verdict.failures:
        print(f"  FAILED: {failure}")
    print("demo: " + ("FAILED" if verdict.failures else "passed"))
    return 1 if verdict.failures else 0


def _as_keyboard_interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    raise SystemExit(main())
