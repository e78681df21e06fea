"""What commands say, on any terminal and to any reader; signals and full disks lose nothing that was done."""

from __future__ import annotations

import io
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from evo.tools import file_interface
from hypothesis import given
from hypothesis import strategies as st
from tyro.conf import Positional

from ff3r_model import __version__
from ff3r_model.cli import COMMANDS, main, map_files, stop_signals, terminal
from ff3r_model.cli.reconstruct import Reconstruct
from ff3r_model.core.errors import UserError
from ff3r_model.core.types import Frame
from ff3r_model.frames.image_folder import FolderSource
from ff3r_model.voxel_map.voxel_map import VoxelMap

Run = Callable[..., tuple[int, str, str]]
QUICK = ["--device", "cpu", "--min-motion", "0", "--views", "4", "--long-side", "56"]


@dataclass(frozen=True)
class Speak:
    """A command that says what it is told."""

    text: Positional[str]
    error: bool = False

    def __call__(self) -> str:
        if self.error:
            raise UserError(self.text)
        return self.text


@pytest.mark.parametrize("asked", ["--version", "-V", "version"])
def test_version(asked: str, run: Run) -> None:
    assert run(asked) == (0, f"ff3r {__version__}\n", "")


@pytest.mark.parametrize(("asked", "said"), [("--help", "--version"), ("help", "--version"), ("help query", "TEXT")])
def test_help(asked: str, said: str, run: Run, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        run(*asked.split())
    assert stop.value.code == 0 and said in capfd.readouterr().out


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_any_text_fits_any_terminal(encoding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding=encoding) for _ in range(2))
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)

    monkeypatch.setitem(COMMANDS, "speak", Speak)
    assert main(["speak", "Tür 马桶 🚽"]) == 0
    assert main(["speak", "Tür 马桶 🚽 \udc80", "--error"]) == 2
    said = out.buffer.getvalue().decode(encoding), err.buffer.getvalue().decode(encoding)  # type: ignore[attr-defined]
    expected = "Tür 马桶 🚽".encode(encoding, "backslashreplace").decode(encoding)
    assert expected in said[0] and expected in said[1] and "\\udc80" in said[1]


@pytest.mark.fuzz
@given(st.text(st.characters(), max_size=200) | st.binary(max_size=200).map(os.fsdecode))
def test_an_error_is_one_line_whatever_names_hold(text: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii", errors="backslashreplace")
        patch.setattr(sys, "stderr", stream)
        terminal.complain(text)
        line = stream.buffer.getvalue().decode("ascii")  # type: ignore[attr-defined]
    assert line.count("\n") == 1 and line.startswith("ff3r: ") and "\x1b" not in line and "\r" not in line


def test_closed_streams_are_no_error(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    assert main(["query", "no/such/map", "chair", "--top", "-1"]) == 2
    assert capfd.readouterr().out == ""
    monkeypatch.setattr(sys, "stdout", None)
    assert main(["--version"]) == 0


def test_a_very_long_error_is_cut(capfd: pytest.CaptureFixture[str]) -> None:
    terminal.complain("x" * 100_000)
    assert len(capfd.readouterr().err) < terminal.MAX_LINE + 20


@pytest.mark.parametrize("arguments", [["--version"], ["--help"], ["nonsense"]])
def test_a_closed_pipe_is_no_error(arguments: list[str]) -> None:
    """Neither end of the program, nor the interpreter's, says anything where nobody listens."""
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "ff3r_model.cli", *arguments]
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    assert done.returncode == (2 if arguments == ["nonsense"] else 0)
    assert "Broken pipe" not in done.stderr and "Traceback" not in done.stderr


def test_a_full_disk_under_the_answer_is_one_line() -> None:
    with Path("/dev/full").open("w") as full:
        command = [sys.executable, "-m", "ff3r_model.cli", "--version"]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 2
    assert done.stderr == "ff3r: standard output cannot be written: No space left on device\n"


def test_a_signal_leaves_what_was_mapped(
    frames: Path, weights: Path, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(self: FolderSource) -> Iterator[Frame]:
        yield from islice(whole(self), 8)
        os.kill(os.getpid(), number)
        yield from islice(whole(self), 8, None)

    whole, number = FolderSource.__iter__, signal.SIGTERM
    monkeypatch.setattr(FolderSource, "__iter__", interrupted)
    status, out, err = run("reconstruct", frames, "-o", tmp_path / "out", "--weights", weights, *QUICK)
    assert status == 128 + number and "stopped early" in out and "ff3r: interrupted" in err
    assert len(VoxelMap.load(tmp_path / "out" / map_files.MAP)) > 0


@pytest.mark.parametrize("number", stop_signals.STOPPING)
def test_each_signal_is_an_interrupt_and_ignored_ones_stay_so(number: signal.Signals) -> None:
    before = signal.signal(number, signal.SIG_DFL)
    try:
        with pytest.raises(KeyboardInterrupt) as stop, stop_signals.as_interrupts():
            os.kill(os.getpid(), number)
            time.sleep(0.01)
        assert isinstance(stop.value, stop_signals.Stopped) and stop.value.exit_status == 128 + number
        assert signal.getsignal(number) == signal.SIG_DFL
        signal.signal(number, signal.SIG_IGN)
        with stop_signals.as_interrupts():
            os.kill(os.getpid(), number)
    finally:
        signal.signal(number, before)


def test_a_signal_waits_for_the_end_of_a_window() -> None:
    done: list[str] = []
    with pytest.raises(stop_signals.Stopped, match="SIGTERM"), stop_signals.as_interrupts():
        with stop_signals.held_back():
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.01)
            done.append("window")
        done.append("another")
    assert done == ["window"]
    with pytest.raises(stop_signals.Stopped, match="SIGINT"), stop_signals.held_back():
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.01)
        done.append("never")
    assert done == ["window"]


def test_signals_are_left_alone_outside_the_main_thread() -> None:
    statuses: list[int] = []
    thread = threading.Thread(target=lambda: statuses.append(main(["--version"])))
    thread.start()
    thread.join()
    assert statuses == [0]


def test_least_motion_of_0_keeps_frames_of_any_rate(tmp_path: Path) -> None:
    (tmp_path / "slow.yaml").write_text("window: {max_keyframe_rate: 5, overlap: null}")
    for least, rate in ((0.0, float("inf")), (0.1, 5.0), (None, 5.0)):
        command = Reconstruct((tmp_path,), tmp_path, views=4, min_motion=least, config=tmp_path / "slow.yaml")
        window = command._config().window
        assert (window.max_keyframe_rate, window.shared) == (rate, 2)


def test_a_file_that_cannot_be_written_costs_no_other(
    frames: Path, weights: Path, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, *_: Any) -> None:
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(map_files, "write_ply", full)
    options = ["--weights", weights, *QUICK, "--stride", 4]
    status, out, err = run("reconstruct", frames, "-o", tmp_path / "out", *options)
    assert status == 2 and "lacks" in err and "cloud.ply: No space left on device" in err and err.count("\n") == 1
    assert "traj_tum.txt" in out and "cloud.ply\n" not in out
    left = {path.name for path in (tmp_path / "out").iterdir()}
    assert {map_files.MAP, map_files.TRAJECTORY, map_files.PICTURE} <= left and map_files.CLOUD not in left
    assert len(VoxelMap.load(tmp_path / "out" / map_files.MAP)) > 0


def test_a_map_that_does_not_fit_leaves_the_trajectory(frames: Path, weights: Path, tmp_path: Path, run: Run) -> None:
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limit[1]))
    try:
        options = ["--weights", weights, *QUICK, "--stride", 4]
        status, out, err = run("reconstruct", frames, "-o", tmp_path / "out", *options)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert status == 2 and f"{map_files.MAP}: cannot save the map" in err and "File too large" in err
    assert file_interface.read_tum_trajectory_file(str(tmp_path / "out" / map_files.TRAJECTORY)).num_poses > 0
    assert map_files.TRAJECTORY in out and not (tmp_path / "out" / map_files.MAP).exists()
