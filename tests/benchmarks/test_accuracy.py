"""What the mapping benchmark calls errors, against errors that were put in."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.slam.accuracy import kidnapped, main
from benchmarks.slam.pictures import draw_paths
from benchmarks.slam.scores import drive, score, score_surfaces
from ff3r_model.slam.config import MappingConfig
from ff3r_model.synthetic.hall import hall_tour, make_hall
from ff3r_model.synthetic.oracle_engine import OracleEngine
from ff3r_model.synthetic.sequences import Sequence, room_sequence
from ff3r_model.voxel_map.config import MapConfig

CONFIG = MappingConfig(map=MapConfig(voxel_size=0.1))


@pytest.fixture(scope="module")
def hall() -> Sequence:
    return room_sequence(make_hall(0, 60.0), hall_tour(60.0, 0.5)[:20], width=28)


def test_surfaces_apart_by_a_known_distance() -> None:
    plane = np.stack([*np.meshgrid(np.linspace(0, 2, 60), np.linspace(0, 2, 60)), np.zeros((60, 60))], axis=-1)
    points = plane.reshape(-1, 3)
    accuracy, completeness = score_surfaces(points + np.array([0, 0, 0.05]), points)
    assert accuracy == pytest.approx(0.05)
    assert completeness == 1.0
    accuracy, completeness = score_surfaces(points[points[:, 0] < 1], points)
    assert accuracy == 0.0
    assert completeness == pytest.approx(0.55, abs=0.03), "half, and a rim of 0.1 m"


def test_exact_windows_have_no_error_and_a_wrong_truth_has_its_own(hall: Sequence) -> None:
    run = drive(OracleEngine(hall), 16, CONFIG, hall.windows(measured=True))
    found = score(run, hall)
    assert found.ate < 1e-4
    assert found.ate_se3 < 1e-3
    assert found.scale_error < 1e-3
    assert found.posed == 1.0
    assert found.completeness > 0.6
    assert found.nbytes == run.mapper.nbytes <= run.max_bytes
    poses = hall.world_from_camera.clone()
    poses[:, :3, 3] *= 1.25
    larger = score(run, replace(hall, world_from_camera=poses))
    assert larger.ate < 1e-4, "Sim(3) does not see a scale"
    assert larger.scale_error == pytest.approx(0.25, rel=0.01)
    spread = float((poses[:, :3, 3] - poses[:, :3, 3].mean(0)).square().sum(1).mean().sqrt())
    assert larger.ate_se3 == pytest.approx(0.2 * spread, rel=0.01)


def test_a_kidnapping_splits_the_windows(hall: Sequence) -> None:
    windows = kidnapped(hall, 10)
    assert {key for window in windows for key in window.keyframes} == set(range(20))
    assert not [window for window in windows if min(window.keyframes) < 10 <= max(window.keyframes)]


def test_missing_data_fails(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["mapping", "--data", str(tmp_path)])
    assert main() == 1
    assert "tum_fr3_cabinet" in capsys.readouterr().err


def test_a_picture_shows_both_paths(hall: Sequence, tmp_path: Path) -> None:
    import cv2

    true = list(zip(hall.stamps, hall.world_from_camera, strict=True))
    bent = [(stamp, pose @ torch.eye(4)) for stamp, pose in true]
    bent[10] = (bent[10][0], bent[10][1].clone())
    bent[10][1][0, 3] += 3.0
    draw_paths(tmp_path / "p" / "paths.png", hall, {"bent": bent})
    picture = cv2.imread(str(tmp_path / "p" / "paths.png"))
    assert picture.shape == (900, 900, 3)
    assert (picture == (40, 60, 220)).all(axis=-1).sum() > 100
    assert (picture == (40, 40, 40)).all(axis=-1).sum() > 100
