"""The worker's thread: order, thinning, survival. No DDS."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from ff3r_model.core.types import Frame
from ff3r_model.pipeline import Pipeline
from ff3r_ros.perception.parameters import NodeParameters
from ff3r_ros.perception.worker import MAX_COMMANDS, Worker
from tests.support.fake_engine import FakeEngine, noise
from tests.support.ros import wait_until
from tests.support.ros_fakes import fake_pipeline

SETTINGS = NodeParameters(views=4, overlap=2, long_side=56, voxel_size=0.1)


def frame(index: int) -> Frame:
    return Frame(torch.from_numpy(noise(index)), (index + 1) * 1_000_000_000)


class Published:
    """Counts what the worker publishes, and on which thread."""

    def __init__(self) -> None:
        self.updates: list[Any] = []
        self.threads: set[str] = set()

    def __call__(self, pipeline: Pipeline, update: Any) -> None:
        self.updates.append(update)
        self.threads.add(threading.current_thread().name)


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine()


@pytest.fixture
def published() -> Published:
    return Published()


@pytest.fixture
def worker(engine: FakeEngine, published: Published) -> Iterator[Worker]:
    worker = Worker(fake_pipeline(engine, SETTINGS), published, inbox_frames=8)
    worker.start()
    yield worker
    engine.gate.set()
    assert worker.stop()


def test_frames_become_windows(worker: Worker, published: Published) -> None:
    for index in range(4):
        worker.offer(frame(index), time.monotonic())
    wait_until(lambda: worker.status.windows == 1, "a window")
    status = worker.status
    assert status.voxels > 0 and status.map_bytes > 0 and 0 < status.latency < 60 and "network" in status.seconds
    assert [update.accepted for update in published.updates] == [True] and published.threads == {"ff3r worker"}


def test_status_is_a_snapshot(worker: Worker) -> None:
    before = worker.status
    worker.submit(lambda pipeline: pipeline.queries.add("door"))
    wait_until(lambda: worker.status.queries == 1, "the query")
    assert before.queries == 0
    with pytest.raises(TypeError):
        before.dropped["x"] = 1  # type: ignore[index]


def test_commands_run_in_order_before_one_publication(worker: Worker, engine: FakeEngine, published: Published) -> None:
    engine.gate.clear()
    for index in range(4):
        worker.offer(frame(index), 0.0)
    wait_until(engine.running.is_set, "the network")
    seen: list[int] = []
    for number in range(20):
        assert worker.submit(lambda pipeline, number=number: seen.append(number))
    engine.gate.set()
    wait_until(lambda: len(published.updates) == 2, "the window and one more publication")
    assert seen == list(range(20)) and published.updates[1] is None


def test_a_full_inbox_keeps_the_newest_and_an_even_choice_of_the_rest(
    worker: Worker, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine.gate.clear()
    for index in range(4):
        worker.offer(frame(index), 0.0)
    wait_until(engine.running.is_set, "the network")
    added: list[int] = []
    original: Callable[[Frame], None] = worker._pipeline.add
    monkeypatch.setattr(worker._pipeline, "add", lambda f: added.append(f.stamp // 10**9 - 1) or original(f))
    for index in range(4, 32):
        worker.offer(frame(index), 0.0)
    engine.gate.set()
    wait_until(lambda: worker.status.windows == 2, "the second window")
    assert added[-1] == 31 and len(added) <= 8 and added == sorted(added)
    assert added[0] < 20  # old ones are thinned, not cut off
    assert worker.status.dropped["backlog"] >= 28 - len(added)


def test_far_too_many_commands_are_refused(worker: Worker, engine: FakeEngine) -> None:
    engine.gate.clear()
    for index in range(4):
        worker.offer(frame(index), 0.0)
    wait_until(engine.running.is_set, "the network")
    accepted = [worker.submit(lambda pipeline: None) for _ in range(MAX_COMMANDS + 1)]
    assert accepted == [True] * MAX_COMMANDS + [False]


def test_an_exception_is_kept_and_work_goes_on(worker: Worker, engine: FakeEngine) -> None:
    engine.fail = [ValueError("broken")]
    for index in range(4):
        worker.offer(frame(index), 0.0)
    wait_until(lambda: worker.status.failures == 1, "the failure")
    assert "broken" in worker.status.error
    for index in range(4, 8):
        worker.offer(frame(index), 0.0)
    wait_until(lambda: worker.status.windows == 1, "a window")
    assert worker.status.error == "" and "broken" in worker.status.last_error


def test_a_failing_command_tells_who_asked(worker: Worker) -> None:
    answers: list[BaseException | None] = []

    def broken(pipeline: Pipeline) -> None:
        raise OSError("no space left on device")

    worker.submit(broken, answers.append)
    worker.submit(lambda pipeline: None, answers.append)
    wait_until(lambda: len(answers) == 2, "both answers")
    assert isinstance(answers[0], OSError) and answers[1] is None
    assert worker.status.failures == 0 and "no space left" in worker.status.last_error


def test_stop_answers_what_waits(engine: FakeEngine, published: Published) -> None:
    worker = Worker(fake_pipeline(engine, SETTINGS), published)
    worker.start()
    engine.gate.clear()
    for index in range(4):
        worker.offer(frame(index), 0.0)
    wait_until(engine.running.is_set, "the network")
    answers: list[BaseException | None] = []
    worker.submit(lambda pipeline: None, answers.append)
    assert not worker.stop(timeout=0.05)  # still in its window
    engine.gate.set()
    assert worker.stop() and isinstance(answers[0], RuntimeError)
    assert not worker.submit(lambda pipeline: None)
