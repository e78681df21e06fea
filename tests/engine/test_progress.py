"""What a plan's build tells of itself: lines of the log, or bars."""

from __future__ import annotations

import logging

import pytest

from ff3r_model.engine.tensorrt.progress import Progress


def test_the_log_hears_of_every_tenth_of_each_phase_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "ff3r_model")
    with Progress() as report:
        for phase in ("frames: Building", "window: Building"):
            for percent in range(101):
                report(phase, percent / 100)
    wanted = [
        f"TensorRT plan, {graph}: Building: {10 * tenth} %" for graph in ("frames", "window") for tenth in range(11)
    ]
    assert caplog.messages == wanted


def test_bars_are_one_per_phase(capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "ff3r_model")
    with Progress(bars=True) as report:
        report("frames: Building", 0.25)
        report("frames: Building", 1.0)
        report("window: Building", 0.5)
    shown = capsys.readouterr().err
    assert all(text in shown for text in ("frames: Building  25%", "frames: Building 100%", "window: Building  50%"))
    assert shown.count("\n") == 2 and not caplog.messages
