"""`python -m benchmarks.gpu` on a bare machine: what it imports, its deadline, and going on where it was cut off."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from benchmarks.gpu import __main__ as gpu
from benchmarks.gpu.network import Figures, NotMeasured
from benchmarks.gpu.results import CUT_OFF, NO_TIME, Machine, OtherMachine, Results

ROOT = Path(__file__).parents[2]
BARE = """
import importlib.machinery, runpy, socket, sys
THERE = sys.stdlib_module_names | {
    "torch", "torchgen", "functorch", "numpy", "safetensors", "jaxtyping",
    "wadler_lindig", "typing_extensions", "sympy", "mpmath", "networkx", "jinja2", "markupsafe", "fsspec", "filelock",
    "triton", "nvidia", "setuptools", "packaging", "ff3r_model", "benchmarks",
}
class OnlyThere(importlib.machinery.PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        top = name.partition(".")[0]
        there = top in THERE or top.startswith("_sysconfigdata")
        return super().find_spec(name, path, target) if there else None
def unplugged(*_):
    raise OSError("there is no network")
socket.socket.connect = unplugged
sys.meta_path[:] = [importlib.machinery.BuiltinImporter, importlib.machinery.FrozenImporter, OnlyThere]
sys.argv = ["gpu", *sys.argv[1:]]
runpy.run_module("benchmarks.gpu", run_name="__main__", alter_sys=True)
"""
CPU = torch.device("cpu")


def on_bare_machine(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", BARE, *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)


def test_it_runs_with_torch_numpy_safetensors_and_jaxtyping_alone(tmp_path: Path) -> None:
    file = tmp_path / "gpu.json"
    ended = on_bare_machine("--quick", "--device", "cpu", "--json", str(file))
    assert ended.returncode == 0, ended.stderr
    held = json.loads(file.read_text())
    assert held["figures"]["speed, nano, 2 views"]["gflop"] > 0.5
    assert 1e-5 < held["figures"]["bf16 error, nano, 2 views"]["depth"] < 0.1
    assert "need an NVIDIA GPU" in held["not_measured"]["CUDA graph, nano, 2 views"]
    table = file.with_suffix(".md").read_text()
    assert all(f"| {name} | not measured: " in table for name in held["not_measured"])


def test_without_a_gpu_everything_is_said_to_be_not_measured(tmp_path: Path) -> None:
    ended = on_bare_machine("--device", "cpu", "--json", str(tmp_path / "gpu.json"))
    held = json.loads((tmp_path / "gpu.json").read_text())
    assert ended.returncode == 0 and not held["figures"]
    assert {"speed, full, 64 views", "gsplat against the CPU renderer"} <= set(held["not_measured"])


def results(path: Path) -> Results:
    return Results.resume(path / "gpu.json", Machine.here(CPU))


def never(device: torch.device) -> Figures:
    raise AssertionError("measured again")


def one(device: torch.device) -> Figures:
    return {"ms": 1.0}


def test_a_second_run_measures_what_the_first_did_not(tmp_path: Path) -> None:
    gpu.measure(results(tmp_path), CPU, time.monotonic() + 60, [gpu.Measurement("a", "a", one)])
    todo = [gpu.Measurement("a", "a", never), gpu.Measurement("b", "b", one)]
    gpu.measure(results(tmp_path), CPU, time.monotonic() + 60, todo)
    assert results(tmp_path).figures == {"a": {"ms": 1.0}, "b": {"ms": 1.0}}


def test_what_does_not_fit_before_the_deadline_is_left_for_the_next_run(tmp_path: Path) -> None:
    held = results(tmp_path)
    gpu.measure(held, CPU, time.monotonic() + gpu.GUESS / 2, [gpu.Measurement("a", "a", never)])
    assert held.not_measured == {"a": NO_TIME} and not held.complete
    gpu.measure(held, CPU, time.monotonic() + 60, [gpu.Measurement("a", "a", one)])
    assert held.complete and not held.not_measured


HANGS = """
import sys, time, torch
from pathlib import Path
from benchmarks.gpu import __main__ as gpu
from benchmarks.gpu.results import Machine, Results
gpu.GUESS = 0.0
results = Results.resume(Path(sys.argv[1]), Machine.here(torch.device("cpu")))
hang = gpu.Measurement("hangs", "hangs", lambda device: time.sleep(60))
gpu.measure(results, torch.device("cpu"), time.monotonic() + 0.5, [hang])
"""


def test_a_measurement_that_hangs_is_cut_off_at_the_deadline(tmp_path: Path) -> None:
    file = tmp_path / "gpu.json"
    ended = subprocess.run([sys.executable, "-c", HANGS, str(file)], cwd=ROOT, timeout=60, check=False)
    assert ended.returncode == 1 and json.loads(file.read_text())["not_measured"] == {"hangs": CUT_OFF}


def test_one_that_fails_does_not_take_the_others_along(tmp_path: Path) -> None:
    def lacks(device: torch.device) -> Figures:
        raise NotMeasured("gsplat is missing")

    def breaks(device: torch.device) -> Figures:
        raise RuntimeError("CUDA error:\nmisaligned")

    held = results(tmp_path)
    todo = [gpu.Measurement(name, name, run) for name, run in (("x", lacks), ("y", breaks), ("z", one))]
    gpu.measure(held, CPU, time.monotonic() + 60, todo)
    assert held.not_measured == {"x": "gsplat is missing", "y": "RuntimeError: CUDA error: misaligned"}
    assert held.figures == {"z": {"ms": 1.0}} and held.complete


def test_results_of_another_machine_are_not_overwritten(tmp_path: Path) -> None:
    file = tmp_path / "gpu.json"
    Results(file, Machine("NVIDIA H100", 80, "2.7", "12.8")).add("a", {"ms": 1.0})
    before = file.read_bytes()
    with pytest.raises(OtherMachine, match="NVIDIA H100"):
        results(tmp_path)
    assert file.read_bytes() == before
