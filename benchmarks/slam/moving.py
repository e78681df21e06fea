"""Somebody walks through rooms: pose errors with and without, what of the figure is mapped, what is left out falsely.

`python -m benchmarks.slam.moving [--data DIR] [--json FILE]`: two windows of each room, shipped weights,
intrinsics known. With --data the kitchen, too, in which nothing moves: `redkitchen_color_windows` in DIR.
Exits 1 where the median pose error is more than 1.2 times that of the empty rooms, or more than 2 % of the kitchen is
left out.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from benchmarks.common import Report
from benchmarks.slam.posed_pictures import VIEWS, open_posed
from benchmarks.slam.posed_rooms import FIRST_SEED, STEP, WIDTH, window_of
from benchmarks.slam.refinement import spread
from ff3r_model.core.types import Prediction
from ff3r_model.engine import EngineConfig, TorchEngine
from ff3r_model.evaluation.metrics import pair_errors
from ff3r_model.network.checkpoint import NANO_WEIGHTS, load_checkpoint
from ff3r_model.slam.config import MappingConfig
from ff3r_model.slam.refinement.track_refinement import TrackRefinement
from ff3r_model.synthetic import make_room, make_trajectory
from ff3r_model.synthetic.sequences import Sequence, room_sequence
from ff3r_model.synthetic.walker import Walker

DISTANCES, SPEEDS = (1.0, 1.4, 1.8, 2.2), (0.12, 0.2, 0.3, 0.45)
"""Metres ahead of the camera, and from frame to frame."""
LEAST_SEEN = 0.02
"""Share of the pixels that the figure must have for a window to count."""
WORSE, FALSE = 1.2, 0.02


def windows(rooms: int) -> Iterator[tuple[Sequence, Sequence]]:
    """Views of rooms, empty and with somebody who walks through."""
    for seed in range(FIRST_SEED, FIRST_SEED + rooms):
        room = make_room(seed)
        path = make_trajectory(room, seed, 3 * VIEWS, ("robot", "handheld")[seed % 2], STEP)
        for half in (0, 1):
            poses = path[half * 12 :][:VIEWS]
            walker = Walker.crossing(poses[VIEWS // 2], DISTANCES[(seed + half) % 4], SPEEDS[seed // 2 % 4], seed)
            walks = room_sequence(room, poses, WIDTH, walker=walker)
            assert walks.moving is not None
            if walks.moving.float().mean() >= LEAST_SEEN:
                yield room_sequence(room, poses, WIDTH), walks


def mapped(prediction: Prediction) -> torch.Tensor:
    """The pixels that reach the map."""
    confidence = prediction.depth_confidence
    return (confidence >= torch.quantile(confidence.flatten(), MappingConfig.drop_uncertain)) & (confidence > 0)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rooms", type=int, default=14, help="of two windows each")
    parser.add_argument("--data", type=Path, help="folder of the real sequences")
    parser.add_argument("--json", type=Path, help="write the figures to this file, under flat keys")
    parser.add_argument("--quick", action="store_true", help="one room, without limits")
    options = parser.parse_args()
    network = load_checkpoint(NANO_WEIGHTS).network
    engine, config = TorchEngine(network, EngineConfig().torch), network.config
    errors, pixels = [], np.zeros(2)
    for empty, walks in windows(1 if options.quick else options.rooms):
        for sequence in (empty, walks):
            window, truth = window_of(sequence, tuple(range(VIEWS)), config.image_side, config.encoder.patch)
            predicted = engine(window)
            refined = TrackRefinement()(predicted, window)
            errors.append(float(pair_errors(refined.cameras.camera_from_world.double(), truth.double()).mean()))
        assert walks.moving is not None
        step = walks.moving.shape[2] // refined.depth.shape[2]
        figure = walks.moving[:, step // 2 :: step, step // 2 :: step]
        pixels += [int((mapped(each) & figure).sum()) for each in (predicted, refined)]
    without, walking = np.median(errors[::2]), np.median(errors[1::2])
    report = Report("moving")
    report.add("pose_error_empty", without, "degrees", f"median of {len(errors) // 2} windows")
    report.add("pose_error_walking", walking, "degrees", "median of the same with somebody who walks through")
    report.add("pose_error_ratio", walking / without, "", f"at most {WORSE:g} is wanted")
    report.add("figure_mapped", pixels[1] / pixels[0], "", "of the figure's pixels that were mapped before")
    false = 0.0
    if options.data is not None:
        kitchen, left_out = open_posed(options.data)[0], []
        for numbers in spread(kitchen.windows(), 16):
            window, _ = kitchen.window(numbers, config.image_side, config.encoder.patch)
            left_out.append(float((TrackRefinement()(engine(window), window).depth_confidence == 0).float().mean()))
        false = float(np.mean(left_out))
        report.add("kitchen_left_out", false, "", f"mean of {len(left_out)} windows, {max(left_out):.3f} at most")
    print(report.table())
    if options.json is not None:
        options.json.write_text(json.dumps(report.figures, indent=1) + "\n")
    return int(not options.quick and (walking > WORSE * without or false > FALSE))


if __name__ == "__main__":
    sys.exit(main())
