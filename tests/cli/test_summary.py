"""The summary of a reconstruction says which intrinsics it used, and what was left out."""

from __future__ import annotations

from dataclasses import replace
from unittest.mock import Mock

import pytest
import torch

from ff3r_model.cli.summary import summary
from ff3r_model.core.text_space import TextSpace
from ff3r_model.core.types import Frame
from ff3r_model.frames.windows import WindowConfig
from ff3r_model.pipeline import Pipeline, PipelineConfig
from ff3r_model.slam.mapper import MapUpdate
from tests.support.fake_engine import DIM, FakeEngine, FakeText, noise

CONFIG = PipelineConfig(window=WindowConfig(views=4, long_side=56, min_motion=0.0), refine="tracks")
MATRIX = torch.tensor([[52.0, 0, 32], [0, 52, 24], [0, 0, 1]])


def line(pipeline: Pipeline, frame: Frame, stated: bool = False) -> str:
    pipeline.add(frame)
    return next(line for line in summary(pipeline, [], stated).splitlines() if "focal length" in line)


@pytest.fixture
def pipeline() -> Pipeline:
    return Pipeline(FakeEngine(), FakeText(), TextSpace(torch.eye(DIM)), CONFIG)


def test_why_windows_were_left_out(pipeline: Pipeline) -> None:
    given = [
        Mock(MapUpdate, accepted=not reason, trusted=True, reason=reason) for reason in ("", "torn", "far", "torn")
    ]
    assert "windows left out: 2 × torn; 1 × far" in summary(pipeline, given).splitlines()
    assert "windows left out" not in summary(pipeline, given[:1])


def test_which_intrinsics_were_used(pipeline: Pipeline) -> None:
    frames = [Frame(torch.from_numpy(noise(index)), index * 10**9) for index in range(4)]
    assert summary(pipeline, []).count("focal length") == 0, "there was no frame"
    assert "not known, and nothing could be estimated" in line(pipeline, frames[0])
    pipeline.refinement.tracks.belief.recall(0.75, 0.03)
    assert line(pipeline, frames[1]) == "focal length: 48 of 64x48 pixels, estimated within 3 %"
    given = replace(frames[2], intrinsics=MATRIX)
    assert line(pipeline, given) == "focal length: 52 of 64x48 pixels, from the recording"
    assert line(pipeline, replace(frames[3], intrinsics=MATRIX), stated=True).endswith("64x48 pixels, as stated")
