"""A perception node in a process of its own, whose pipeline is the fake one and takes its time: for signals."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from ff3r_model.pipeline import Pipeline
from ff3r_ros.perception.node import PerceptionNode
from ff3r_ros.perception.parameters import NodeParameters
from ff3r_ros.run_node import run_node
from tests.support.fake_engine import FakeEngine
from tests.support.ros_fakes import fake_pipeline

SECONDS = 2.0
"""That loading weights, a map, and saving one take."""


def slow_pipeline(parameters: NodeParameters) -> Pipeline:
    """The fake pipeline, once its weights are loaded."""
    _announce("configuring")
    return fake_pipeline(FakeEngine(), parameters)


def slow_save(pipeline: Pipeline, path: Path) -> None:
    _announce("saving")
    save(pipeline, path)


def slow_load(pipeline: Pipeline, path: Path) -> None:
    _announce("loading")
    load(pipeline, path)


def _announce(what: str) -> None:
    print(what, flush=True)
    time.sleep(SECONDS)


save, load = Pipeline.save, Pipeline.load

if __name__ == "__main__":
    Pipeline.save, Pipeline.load = slow_save, slow_load  # type: ignore[method-assign]
    run_node(lambda: PerceptionNode(slow_pipeline), "ff3r", sys.argv[1:])
