"""How far a map and its path are from the truth: errors of the path by evo, completeness and accuracy of surfaces."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from evo.core import metrics, sync
from evo.core.trajectory import PoseTrajectory3D
from jaxtyping import Float
from numpy import ndarray
from scipy.spatial import cKDTree
from torch import Tensor

from ff3r_model.core.geometry import nearest_rotation, rigid
from ff3r_model.core.types import Predict, Prediction, Window
from ff3r_model.slam.config import MappingConfig
from ff3r_model.slam.mapper import Mapper, MapUpdate
from ff3r_model.synthetic.sequences import Sequence

REACH = 0.1
"""Metres within which a true surface counts as mapped."""
METRE_TOLERANCE = 0.3
"""Share by which the stretches of path that drift is measured over may differ from a metre: frames come in steps."""
TRUTH_STRIDE = 2
"""Of the true surfaces' pixels."""
MAX_POINTS = 100_000
"""Of each side, thinned evenly."""


@dataclass(frozen=True)
class Scores:
    """A run's errors. Lengths in metres of the world, except where nothing says how long the map's unit is."""

    ate: float
    """Root mean square error of the positions after the best Sim(3)."""
    ate_se3: float
    """The same after the best SE(3): tells the truth of maps in metres alone."""
    scale_error: float
    """|metres per map unit − 1|: likewise."""
    drift: float
    """Root mean square error of the motion over one metre of path, after the best scale."""
    path: float
    """Length of the true path."""
    accuracy: float
    """Mean distance of the map's voxels to the nearest true surface point."""
    completeness: float
    """Share of the true surface points with a voxel within REACH."""
    posed: float
    """Share of the frames that have a pose."""
    nbytes: int
    milliseconds: float
    """Median per window, without what the oracle takes."""


@dataclass
class Run:
    """What happened while a mapper was driven."""

    mapper: Mapper
    seconds: list[float] = field(default_factory=list)
    max_bytes: int = 0
    updates: list[MapUpdate] = field(default_factory=list)
    submaps: list[int] = field(default_factory=list)
    """How many there are after each window."""


def drive(engine: Predict, channels: int, config: MappingConfig, windows: Iterable[Window]) -> Run:
    """Take windows through a mapper; loop closure may ask the engine for windows of its own."""
    spent = [0.0]

    def timed_engine(window: Window) -> Prediction:
        start = time.perf_counter()
        prediction = engine(window)
        spent[0] += time.perf_counter() - start
        return prediction

    run = Run(Mapper(timed_engine, channels, config))
    for window in windows:
        prediction = engine(window)
        start, spent[0] = time.perf_counter(), 0.0
        run.updates.append(run.mapper.place(window, prediction))
        run.seconds.append(time.perf_counter() - start - spent[0])
        run.max_bytes = max(run.max_bytes, run.mapper.nbytes)
        run.submaps.append(len(run.mapper.submaps))
    return run


def score(run: Run, sequence: Sequence) -> Scores:
    """Compare a run's path and surfaces with the sequence that it was made from."""
    truth = trajectory(zip(sequence.stamps, sequence.world_from_camera, strict=True))
    estimated = trajectory(run.mapper.trajectory())
    truth, estimated = sync.associate_trajectories(truth, estimated, max_diff=1e-4)
    similar = _copy(estimated)
    rotation, translation, scale = similar.align(truth, correct_scale=True)
    rigid = _copy(estimated)
    rigid.align(truth)
    points = run.mapper.map.gaussians().means.double().numpy()
    accuracy, completeness = score_surfaces(scale * points @ rotation.T + translation, true_points(sequence))
    return Scores(
        ate=_error(metrics.APE(metrics.PoseRelation.translation_part), truth, similar),
        ate_se3=_error(metrics.APE(metrics.PoseRelation.translation_part), truth, rigid),
        scale_error=abs(float(scale) - 1),
        drift=_drift(truth, similar),
        path=sequence.path_length,
        accuracy=accuracy,
        completeness=completeness,
        posed=len(estimated.timestamps) / len(sequence),
        nbytes=run.mapper.nbytes,
        milliseconds=1000 * float(np.median(run.seconds)),
    )


def trajectory(poses: Iterable[tuple[int, Float[Tensor, "4 4"]]]) -> PoseTrajectory3D:
    """evo's trajectory from (nanoseconds, pose), in order of time."""
    ordered = sorted(poses, key=lambda item: item[0])
    return PoseTrajectory3D(
        poses_se3=[_orthonormal(pose) for _, pose in ordered],
        timestamps=np.array([stamp / 1e9 for stamp, _ in ordered]),
    )


def score_surfaces(
    mapped: Float[ndarray, "n 3"], true: Float[ndarray, "m 3"], reach: float = REACH
) -> tuple[float, float]:
    """(accuracy, completeness) as in Scores, both clouds in the same frame."""
    mapped, true = (cloud[:: -(-len(cloud) // MAX_POINTS)] for cloud in (mapped, true))
    accuracy = float(cKDTree(true).query(mapped)[0].mean())
    missing = cKDTree(mapped).query(true, distance_upper_bound=reach)[0] == np.inf
    return accuracy, float(1 - missing.mean())


def true_points(sequence: Sequence) -> Float[ndarray, "m 3"]:
    """The surfaces that the sequence shows."""
    return sequence.points(TRUTH_STRIDE).double().numpy()


def _drift(truth: PoseTrajectory3D, estimated: PoseTrajectory3D) -> float:
    """evo's relative pose error over a metre of path; paths shorter than that have none."""
    if truth.path_length < 2.0:
        return float("nan")
    part = metrics.PoseRelation.translation_part
    metric = metrics.RPE(part, 1.0, metrics.Unit.meters, rel_delta_tol=METRE_TOLERANCE, all_pairs=True)
    return _error(metric, truth, estimated)


def _error(metric: metrics.PE, truth: PoseTrajectory3D, estimated: PoseTrajectory3D) -> float:
    metric.process_data((truth, estimated))
    return float(metric.get_statistic(metrics.StatisticsType.rmse))


def _copy(path: PoseTrajectory3D) -> PoseTrajectory3D:
    return PoseTrajectory3D(poses_se3=[pose.copy() for pose in path.poses_se3], timestamps=path.timestamps.copy())


def _orthonormal(pose: Float[Tensor, "4 4"]) -> Float[ndarray, "4 4"]:
    """In float64, and as orthonormal as that allows: evo checks."""
    matrix = pose.double()
    return rigid(nearest_rotation(matrix[:3, :3]), matrix[:3, 3]).numpy()


def top_down(path: Iterable[tuple[int, Tensor]], sequence: Sequence) -> ndarray:
    """Positions n×2 seen from above, after the best Sim(3) onto the truth, in the truth's order."""
    truth = trajectory(zip(sequence.stamps, sequence.world_from_camera, strict=True))
    truth, estimated = sync.associate_trajectories(truth, trajectory(path), max_diff=1e-4)
    estimated.align(truth, correct_scale=True)
    return level(sequence, estimated.positions_xyz)


def level(sequence: Sequence, positions: ndarray) -> ndarray:
    """The two coordinates across the world's up."""
    up = np.array([0.0, 0.0, 1.0]) if sequence.world_up is None else sequence.world_up.double().numpy()
    side = np.cross(up, np.eye(3)[int(np.abs(up).argmin())])
    side /= np.linalg.norm(side)
    return np.stack([positions @ side, positions @ np.cross(up, side)], axis=1)
