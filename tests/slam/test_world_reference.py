"""The world reference of a submap: metric while its windows agree, corrected by more of them, withdrawn by better."""

from __future__ import annotations

from unittest.mock import Mock

import pytest
import torch

from ff3r_model.core.types import Prediction, Similarity, Window
from ff3r_model.slam.reference.floor import Floor, FloorEstimate
from ff3r_model.slam.reference.scale import DEPTH, HEIGHT, ScaleConfig
from ff3r_model.slam.reference.world_reference import WorldReference
from ff3r_model.voxel_map.config import ScaleInfo

STATED = 1.4
UP = torch.tensor([0.0, 0.0, 1.0])
NOTHING = torch.zeros(0, 3)
WINDOW, PREDICTION = Mock(spec=Window), Mock(spec=Prediction)


@pytest.fixture
def reference(monkeypatch: pytest.MonkeyPatch) -> WorldReference:
    """One whose windows say what the tests put into its ladder."""
    found = WorldReference(ScaleConfig(), STATED, 0.5)
    monkeypatch.setattr(found.ladder, "observe", lambda *_: None)
    return found


def told(reference: WorldReference, scale: ScaleInfo, points: torch.Tensor = NOTHING) -> ScaleInfo | None:
    return reference.observe_scale(WINDOW, PREDICTION, Similarity(), scale, points)


def see(reference: WorldReference, below: float, windows: int = 1) -> None:
    """Windows that see a plane `below` units under the camera, which is the map's origin."""
    for _ in range(windows):
        reference.ladder.floors.add(FloorEstimate(STATED / below, 0.9, UP, torch.zeros(3)))


def test_a_metric_map_is_corrected_once_more_windows_have_measured(reference: WorldReference) -> None:
    see(reference, 1.0, 3)
    first = told(reference, ScaleInfo())
    assert first is not None and first.metric and first.factor == pytest.approx(STATED)
    reference.transform(Similarity(first.factor))
    assert told(reference, first) is None, "nothing new"
    see(reference, 1.4 * 0.93, 5)
    assert told(reference, first) is None, "too soon"
    second = told(reference, first)
    assert second is not None and second.metric and second.factor == pytest.approx(1 / 0.93, rel=0.01)
    assert second.confidence > first.confidence


def test_a_table_is_withdrawn_when_the_floor_comes_into_view(
    reference: WorldReference, caplog: pytest.LogCaptureFixture
) -> None:
    see(reference, 0.65, 3)
    metric = told(reference, ScaleInfo())
    assert metric is not None and metric.metric
    reference.floor = Floor(UP, 0.0)
    ground = torch.rand(1000, 3) * torch.tensor([2.0, 2.0, 0.0]) + torch.tensor([0.0, 0.0, -1.4])
    withdrawn = told(reference, metric, ground)
    assert withdrawn is not None and not withdrawn.metric and reference.floor is None
    assert "100% of what was seen lies under" in caplog.text and "not metric any more" in caplog.text
    see(reference, 1.4, 9)
    again = told(reference, withdrawn, ground)
    assert again is not None and again.metric and again.factor == pytest.approx(1.0, rel=0.01)


def test_a_height_that_depth_images_contradict_is_said_and_not_stood_on(
    reference: WorldReference, caplog: pytest.LogCaptureFixture
) -> None:
    see(reference, 1.0, 3)
    reference.ladder._seen[DEPTH].extend([3.0] * 4)
    found = told(reference, ScaleInfo())
    assert found is not None and found.source == DEPTH and found.factor == 3.0
    reference.anchor_floor(torch.zeros(4, 3))
    assert reference.floor is None
    assert "the camera is 3.00 m above the floor by depth images, not 1.4 m" in caplog.text


def test_a_scale_from_before_the_file_stays(reference: WorldReference) -> None:
    """Old files say that they are metric, and not why."""
    assert told(reference, ScaleInfo(True, HEIGHT, 1.2, 0.8)) is None
    assert told(reference, ScaleInfo(True, "a person", 1.2, 0.8)) is None
