"""The trainer learns, resumes as if never interrupted, shares its work between processes, and stops at nonsense."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from ff3r_model.training.run_folder import AVERAGE, FAILED, LOG, STATE, RunError, RunFolder
from tests.support import training_run

HELPER = Path(__file__).parents[1] / "support" / "training_run.py"
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])}


def start(out: Path, *options: str, processes: int = 1) -> subprocess.Popen[str]:
    """A run of `training_run.py` in processes of its own."""
    torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"] if processes > 1 else []
    command = [sys.executable, *torchrun, str(HELPER), str(out), *options]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=ENVIRONMENT)


def here(out: Path, *options: str) -> None:
    """The same in this process, on one thread as there, so that sums add up alike."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        training_run.main([str(out), *options])
    finally:
        torch.set_num_threads(threads)


def finished(process: subprocess.Popen[str]) -> str:
    output, _ = process.communicate(timeout=200)
    assert process.returncode == 0, output
    return output


def losses(out: Path) -> dict[int, float]:
    lines = [json.loads(line) for line in (out / LOG).read_text().splitlines()]
    return {line["step"]: line["total"] for line in lines}


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 150
    while not condition():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline, "the run does not come to what is waited for"
        time.sleep(0.02)


def test_a_killed_run_goes_on_as_if_never_interrupted(tmp_path: Path) -> None:
    unbroken, broken = tmp_path / "unbroken", tmp_path / "broken"
    killed = start(broken, "--steps", "8", "--pause", "0.5")
    wait_for(lambda: (broken / STATE).exists() and len((broken / LOG).read_text().splitlines()) >= 3, killed)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    here(unbroken, "--steps", "8")
    assert 3 <= len(losses(broken)) < 8, "the kill came in the middle"
    here(broken, "--steps", "8", "--resume")
    assert losses(broken) == losses(unbroken) and sorted(losses(broken)) == list(range(1, 9))
    first, second = (torch.load(out / AVERAGE, weights_only=True) for out in (unbroken, broken))
    assert all(torch.equal(first[name], second[name]) for name in first)
    values = list(losses(unbroken).values())
    assert len(set(values)) == len(values), "the losses tell the steps apart"


def test_two_processes_do_what_one_does_with_twice_the_batch(tmp_path: Path) -> None:
    pair = start(tmp_path / "two", "--steps", "3", "--windows", "2", processes=2)
    here(tmp_path / "one", "--steps", "3", "--windows", "4")
    finished(pair)
    one, two = (torch.load(tmp_path / name / STATE, weights_only=True)["network"] for name in ("one", "two"))
    start_weights = torch.load(tmp_path / "start.pt", weights_only=True)
    moved = max(float((one[name] - start_weights[name]).abs().max()) for name in one)
    apart = max(float((one[name] - two[name]).abs().max()) for name in one)
    assert moved > 1e-3 and apart < 1e-3 * moved


def test_a_loss_that_is_no_number_stops_the_run_and_names_the_images(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no number at step 2"):
        here(tmp_path / "run", "--steps", "4", "--nan-at", "2")
    failed = json.loads((tmp_path / "run" / FAILED).read_text())
    assert failed["step"] == 2 and len(failed["ids"]) == 4 and all(Path(name).is_file() for name in failed["ids"])


def test_a_damaged_state_is_refused_by_name(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    with pytest.raises(RunError, match=r"not there.*without --resume"):
        folder.load(STATE)
    (tmp_path / STATE).write_bytes(b"half a file")
    with pytest.raises(RunError, match=r"state\.pt cannot be read"):
        folder.load(STATE)


def test_the_log_forgets_steps_that_are_taken_again(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    for step in range(1, 6):
        folder.write(step, {"total": float(step)})
    with (tmp_path / LOG).open("a") as file:
        file.write('{"step": 6, "tot')
    folder.forget_after(3)
    assert losses(tmp_path) == {1: 1.0, 2: 2.0, 3: 3.0}
    assert folder.course()["total"] == (1.0, 3.0)
