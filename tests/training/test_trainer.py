"""The trainer learns, resumes as if never interrupted, shares its work between processes, and stops at nonsense."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from ff3r_model.core.errors import UserError
from ff3r_model.training.run_folder import AVERAGE, CHECKPOINT, FAILED, LOG, STATE, RunError, RunFolder
from ff3r_model.training.stop_signals import stop_requests
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
    assert torch.load(tmp_path / "run" / STATE, weights_only=True)["step"] == 2, "what was learned before is kept"
    failed = json.loads((tmp_path / "run" / FAILED).read_text())
    assert failed["step"] == 2 and len(failed["ids"]) == 4 and all(Path(name).is_file() for name in failed["ids"])


def test_a_damaged_state_is_refused_by_name(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    torch.save([1], tmp_path / STATE)
    with pytest.raises(RunError, match="it holds a list"):
        folder.load(STATE)
    (tmp_path / STATE).write_bytes(b"half a file")
    with pytest.raises(RunError, match=r"state\.pt cannot be read.*another folder"):
        folder.load(STATE)


def test_a_state_of_another_run_is_refused_in_one_line(tmp_path: Path) -> None:
    here(tmp_path / "run", "--steps", "1")
    state = torch.load(tmp_path / "run" / STATE, weights_only=True)
    for wrong in ({"step": 1}, state | {"network": {}}, state | {"average": 7}, state | {"step": "x"}):
        torch.save(wrong, tmp_path / "run" / STATE)
        with pytest.raises(RunError, match=r"state\.pt does not fit this run.*resume with the options") as refusal:
            here(tmp_path / "run", "--steps", "2", "--resume")
        assert "\n" not in str(refusal.value) and len(str(refusal.value)) < 500


def test_a_signal_ends_the_run_after_its_step_and_all_of_it_is_kept(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGTERM)
    here(tmp_path / "run", "--steps", "8", "--signal", str(int(signal.SIGTERM)), "--at", "2")
    assert torch.load(tmp_path / "run" / STATE, weights_only=True)["step"] == 3
    assert sorted(losses(tmp_path / "run")) == [1, 2, 3] and signal.getsignal(signal.SIGTERM) == before


def test_a_second_signal_does_not_wait() -> None:
    with pytest.raises(KeyboardInterrupt), stop_requests() as stop:
        signal.raise_signal(signal.SIGINT)
        assert stop.made
        signal.raise_signal(signal.SIGINT)
    with stop_requests(patient=True) as stop:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGTERM)
    assert stop.made


@pytest.mark.long
def test_all_processes_stop_at_the_same_step(tmp_path: Path) -> None:
    pair = start(tmp_path / "two", "--steps", "500", "--pause", "0.05", processes=2)
    wait_for(lambda: (tmp_path / "two" / AVERAGE).exists(), pair)
    pair.send_signal(signal.SIGINT)
    pair.communicate(timeout=200)
    state = torch.load(tmp_path / "two" / STATE, weights_only=True)
    assert 1 <= state["step"] == max(losses(tmp_path / "two")) < 500


def test_a_full_disk_keeps_the_state_of_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(state: object, path: Path) -> None:
        if STATE not in path.name:
            return save(state, path)
        path.write_bytes(b"half")
        raise RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 64 vs 0\nand a stack")

    save = torch.save
    here(tmp_path / "run", "--steps", "2")
    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(RunError, match=r"state\.pt could not be written .*Is the disk full") as refusal:
        here(tmp_path / "run", "--steps", "4", "--resume")
    assert "\n" not in str(refusal.value)
    with pytest.raises(RunError, match=r"state\.pt could not be written"):
        here(tmp_path / "fresh", "--steps", "400")  # at the first step, not minutes later
    monkeypatch.undo()
    assert torch.load(tmp_path / "run" / STATE, weights_only=True)["step"] == 2
    assert not list((tmp_path / "run").glob("*.part")) and not list((tmp_path / "run").glob(".*.part"))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1000))
    with pytest.raises(RunError, match=r"has 0 MB left, and each save of state.pt needs \d+ beside the one before"):
        here(tmp_path / "next", "--steps", "4")


def test_neither_a_fresh_start_nor_a_resumption_sends_the_user_round_in_a_circle(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(RunError, match=r"there is no run in .*: start it without --resume"):
        RunFolder(tmp_path / "run").begin(resume=True)
    assert not (tmp_path / "run").exists()
    folder = RunFolder(tmp_path / "run")
    assert not folder.begin(resume=False)
    folder.write(1, {"total": 1.0})  # the run ends before it saves
    for resume in (True, False):
        assert not RunFolder(tmp_path / "run").begin(resume=resume)
    assert "no step was finished" in caplog.text and not losses(tmp_path / "run")
    folder.save(STATE, {})
    with pytest.raises(RunError, match="holds a run already: go on with --resume"):
        RunFolder(tmp_path / "run").begin(resume=False)
    assert RunFolder(tmp_path / "run").begin(resume=True)
    shutil.copytree(tmp_path / "run", tmp_path / "copy", ignore=shutil.ignore_patterns(".*"))
    assert RunFolder(tmp_path / "copy").begin(resume=True), "cp run/* leaves out the list"
    (tmp_path / "run" / STATE).rename(tmp_path / "run" / CHECKPOINT)
    for resume in (True, False):
        with pytest.raises(RunError, match=r"holds weights of a run, but no state.pt.*another output folder"):
            RunFolder(tmp_path / "run").begin(resume=resume)


def test_the_users_files_are_no_place_for_a_run(tmp_path: Path) -> None:
    (tmp_path / "frames").mkdir()
    for resume in (True, False):
        with pytest.raises(UserError, match=r"holds frames, which `ff3r train` has not written|there is no run"):
            RunFolder(tmp_path).begin(resume=resume)


def test_the_log_forgets_steps_that_are_taken_again(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    for step in range(1, 6):
        folder.write(step, {"total": float(step)})
    with (tmp_path / LOG).open("a") as file:
        file.write('{"step": 6, "tot')
    folder.forget_after(3)
    assert losses(tmp_path) == {1: 1.0, 2: 2.0, 3: 3.0}
    assert folder.course()["total"] == (1.0, 3.0)
