"""The shipped network end to end in the synthetic world: the same figures, and how right its masks are."""

from __future__ import annotations

import numpy as np
from numpy import ndarray
from scipy.spatial import cKDTree

from benchmarks.common import Report
from benchmarks.slam.scores import Run, score, trajectory
from ff3r_model.core.geometry import transform_points, unproject
from ff3r_model.frames.windows import FrameRejected
from ff3r_model.pipeline import Pipeline, PipelineConfig
from ff3r_model.slam.config import MappingConfig
from ff3r_model.synthetic import CLASSES, make_room, make_trajectory
from ff3r_model.synthetic.sequences import Sequence, room_sequence
from ff3r_model.voxel_map.config import MapConfig

SEED = 30
"""Of the room and the tour, as in the demo: wide."""
FRAMES, STEP = 240, 0.05
VOXEL = 0.1
TOLERANCE = 2 * VOXEL
"""Metres within which a mask's voxel may lie from what it names."""
MIN_SHARE = 0.005
"""Of the seen surface: classes that show less are not asked for."""


def measure_nano(report: Report, quick: bool) -> None:
    """Frames in, map and masks out. Reported, no limit."""
    room = make_room(SEED)
    poses = make_trajectory(room, SEED, 60 if quick else FRAMES, "robot", STEP)
    sequence = room_sequence(room, poses, width=112, name="nano")
    config = PipelineConfig(mapping=MappingConfig(map=MapConfig(voxel_size=VOXEL), camera_height=float(poses[0, 2, 3])))
    pipeline = Pipeline.from_checkpoint(config=config)
    run = _drive(pipeline, sequence)
    found = score(run, sequence)
    for key, unit in (
        ("ate", "m"), ("ate_se3", "m"), ("scale_error", ""), ("drift", "m/m"), ("accuracy", "m"), ("completeness", ""),
        ("posed", ""), ("nbytes", "B"),
    ):  # fmt: skip
        report.add(f"{key}_nano", getattr(found, key), unit, f"path {found.path:.1f} m" if key == "ate" else "")
    report.add("ms_per_window_nano", found.milliseconds, "ms", "network and map")
    precision, recall, blind, asked = score_masks(pipeline, run, sequence)
    report.add("mask_precision_nano", precision, "", f"mean over {asked} classes; masks of everything {blind:.2f}")
    report.add("mask_recall_nano", recall, "", f"within {TOLERANCE:g} m")


def _drive(pipeline: Pipeline, sequence: Sequence) -> Run:
    run = Run(pipeline.mapper)
    for frame in sequence.frames():
        try:
            pipeline.add(frame)
        except FrameRejected:
            continue
        while (update := pipeline.step()) is not None:
            run.updates.append(update)
            run.seconds.append(sum(update.seconds.values()))
            run.max_bytes = max(run.max_bytes, pipeline.mapper.nbytes)
    return run


def score_masks(pipeline: Pipeline, run: Run, sequence: Sequence) -> tuple[float, float, float, int]:
    """(precision, recall, precision of masks of everything, classes): means over the classes that are seen.

    Precision: share of a mask's voxels with a true surface of the class within TOLERANCE. Recall: share of the class's
    true surface with a voxel of the mask so near. The map is laid onto the truth by its path first.
    """
    truth = trajectory(zip(sequence.stamps, sequence.world_from_camera, strict=True))
    stamps = {stamp for stamp, _ in run.mapper.trajectory()}
    kept = [index for index, stamp in enumerate(sequence.stamps) if stamp in stamps]
    truth.reduce_to_ids(np.array(kept))
    estimated = trajectory(run.mapper.trajectory())
    rotation, translation, scale = estimated.align(truth, correct_scale=True)
    points, classes = _labelled(sequence)
    names = [name for index, name in enumerate(CLASSES) if (classes == index).mean() >= MIN_SHARE]
    for name in names:
        pipeline.queries.add(name)
    figures = []
    for name, mask in zip(names, pipeline.queries.masks(pipeline.map), strict=True):
        centres = (mask.origin + mask.voxel_size * (mask.indices + 0.5)).numpy()
        voxels = scale * centres @ rotation.T + translation
        true = points[classes == CLASSES.index(name)]
        figures.append((*_hits(voxels, true), _hits(points, true)[0]))
    precision, recall, blind = np.nanmean(np.array(figures), axis=0)
    return float(precision), float(recall), float(blind), len(names)


def _labelled(sequence: Sequence) -> tuple[ndarray, ndarray]:
    """Every surface point that is seen, thinned, with its class."""
    assert sequence.classes is not None
    local = unproject(sequence.depth, sequence.intrinsics[None])[:, ::4, ::4]
    points = transform_points(sequence.world_from_camera, local.flatten(1, 2)).reshape(-1, 3)
    return points.double().numpy(), sequence.classes[:, ::4, ::4].reshape(-1).numpy()


def _hits(found: ndarray, true: ndarray) -> tuple[float, float]:
    """(precision, recall) within TOLERANCE; a mask of nothing has no precision and no recall."""
    if not len(found):
        return float("nan"), 0.0
    precision = np.mean(cKDTree(true).query(found, distance_upper_bound=TOLERANCE)[0] < np.inf)
    recall = np.mean(cKDTree(found).query(true, distance_upper_bound=TOLERANCE)[0] < np.inf)
    return float(precision), float(recall)
