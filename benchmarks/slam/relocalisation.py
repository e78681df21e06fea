"""A lost camera on real footage, and what is never to be taken for a place seen before; exits 1 on a missed limit.

`python -m benchmarks.slam.relocalisation --data DIR [--json FILE]`: DIR holds `sevenscenes_redkitchen`, `tsdf_shelf`,
`strecha_fountain` and `tum_fr3_cabinet`. Without --data: FF3R_TEST_DATA, or `shared/data` beside the repository.
The shipped nano by RGB alone, intrinsics unknown. Returns: the kitchen without a fifth of its frames; the camera was
carried away unseen, or was shown something else meanwhile. Strangers: windows of rooms and of real places, each looked
for in an archive of all the places before it.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import torch
from evo.core import sync

from benchmarks.common import Report
from benchmarks.slam.accuracy import DATA
from benchmarks.slam.posed_pictures import VIEWS
from benchmarks.slam.posed_rooms import FRAMES, PosedRoom, open_rooms
from benchmarks.slam.scores import trajectory
from ff3r_model.core.types import Frame, Window
from ff3r_model.evaluation.metrics import position_rmse
from ff3r_model.frames.prepare import prepare, prepare_picture
from ff3r_model.frames.rgbd import RgbdSource
from ff3r_model.frames.windows import FrameRejected
from ff3r_model.pipeline import Pipeline, PipelineConfig
from ff3r_model.slam.config import MappingConfig
from ff3r_model.slam.mapper import MapUpdate
from ff3r_model.slam.relocalisation import Relocalisation

KITCHEN = "sevenscenes_redkitchen"
CUTS = (80, 100, 120)
"""Frames of the kitchen after which it is gone, of 200;"""
GONE = 40
"""for so many, a fifth."""
ROOMS = 8
STRANGERS = {"tsdf_shelf": ("*.jpg", 1), "strecha_fountain": ("*.jpg", 1), "tum_fr3_cabinet": ("raw_imgs/*.jpg", 3)}
"""Pictures of other places, and every how manieth is taken."""
STRIDE = 6
"""Pictures between the windows of a place."""
LIMIT = 0.08
"""Metres of ATE with a return, of a path of 5.5 m: the whole kitchen has 0.053."""


@dataclass(frozen=True)
class Returned:
    """How a run ended in which the camera was away."""

    parts: int
    ate: float
    """Of the part that is shown."""
    posed: float
    """Share of the keyframes that are in it."""
    updates: list[MapUpdate]


def frames_of(source: RgbdSource, index: Sequence[int]) -> Iterator[Frame]:
    """Some of the pictures, nothing else known of them."""
    for i in index:
        frame = source.read(source.entries[i])
        yield Frame(frame.image, frame.stamp)


def feed(pipeline: Pipeline, frames: Iterator[Frame]) -> list[MapUpdate]:
    """Offer frames; what the windows became."""
    updates = []
    for frame in frames:
        try:
            pipeline.add(frame)
        except FrameRejected:
            continue
        while (update := pipeline.step()) is not None:
            updates.append(update)
    return updates


def with_return(source: RgbdSource, cut: int, elsewhere: Sequence[Frame] = ()) -> Returned:
    """The kitchen until `cut` and from `GONE` frames later on. In between the camera sees nothing, and windows start
    over; or it sees `elsewhere`, and they do not."""
    pipeline = Pipeline.from_checkpoint()
    updates = feed(pipeline, frames_of(source, range(cut)))
    if elsewhere:
        first = source.entries[cut].stamp
        updates += feed(pipeline, (replace(frame, stamp=first + 120_000_000 * i) for i, frame in enumerate(elsewhere)))
    else:
        pipeline.windows.reset()
    updates += feed(pipeline, frames_of(source, range(cut + GONE, len(source.entries))))
    last = pipeline.step(flush=True)
    updates += [last] if last is not None else []
    estimated = trajectory(pipeline.mapper.trajectory())
    truth = trajectory((entry.stamp, entry.world_from_camera) for entry in source.entries)
    truth, known = sync.associate_trajectories(truth, estimated, max_diff=1e-4)
    known.align(truth, correct_scale=True)
    submaps = pipeline.mapper.submaps.values()
    total = sum(len(submap.keyframes) for submap in submaps)
    return Returned(len(submaps), position_rmse(truth, known), known.num_poses / total, updates)


def measure_returns(report: Report, data: Path, quick: bool) -> list[str]:
    """Parts and path of the kitchen with a stretch left out; which limits are missed."""
    source, missed = RgbdSource(data / KITCHEN), list[str]()
    elsewhere = [Frame(picture, 0) for picture in pictures_of(data / "tsdf_shelf", "*.jpg", 2)]
    trials: list[tuple[str, int, Sequence[Frame]]] = [("carried", cut, ()) for cut in CUTS[2 if quick else 0 :]]
    for name, cut, other in [*trials, ("shown_other", CUTS[-1], elsewhere)]:
        found, key = with_return(source, cut, other), f"{name}_{cut}"
        relocalised = sum(update.relocalised is not None for update in found.updates)
        report.add(f"parts_{key}", found.parts, "", f"1 is right; relocalised {relocalised} times")
        report.add(f"ate_{key}", found.ate, "m", f"at most {LIMIT:g}; {found.posed:.0%} of the keyframes")
        if found.parts != 1 or found.ate > LIMIT:
            missed.append(f"{key}: {found.parts} parts, ATE {found.ate:.3f} m; one and {LIMIT:g} m are wanted")
    return missed


def pictures_of(folder: Path, pattern: str, step: int) -> list[torch.Tensor]:
    """Pictures of a folder, cut to 4:3 as all others are."""
    found = []
    for path in sorted(folder.glob(pattern))[::step]:
        pixels = cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)
        height, width = pixels.shape[:2]
        wide, high = min(width, height * 4 // 3), min(height, width * 3 // 4)
        left, top = (width - wide) // 2, (height - high) // 2
        found.append(torch.from_numpy(np.ascontiguousarray(pixels[top : top + high, left : left + wide])))
    return found


def windows_of(pictures: Sequence[torch.Tensor], first: int, pipeline: Pipeline) -> list[Window]:
    """Windows of eight pictures in a row, whose keyframes are numbered from `first`."""
    config, windows = pipeline.config.window, []
    assert config.long_side is not None
    for start in range(0, max(len(pictures) - VIEWS, 0) + 1, STRIDE):
        chosen = pictures[start : start + VIEWS]
        prepared = [prepare(picture, None, config.long_side, config.patch) for picture in chosen]
        grey = [prepare_picture(picture, crop) for picture, (_, _, crop) in zip(chosen, prepared, strict=True)]
        ids = tuple(range(first + start, first + start + len(chosen)))
        images = torch.stack([image for image, _, _ in prepared])
        windows.append(Window(images, ids, tuple(100_000_000 * i for i in ids), pictures=torch.stack(grey)))
    return windows


def room_pictures(room: PosedRoom) -> list[torch.Tensor]:
    """What a walk through a room shows."""
    return [frame.image for frame in room.sequence.select(list(range(FRAMES))).frames()]


def measure_strangers(report: Report, data: Path, rooms: int) -> list[str]:
    """How many windows are taken for a place that they never saw; which limits are missed."""
    places = [("rooms", room_pictures(room)) for room in open_rooms(rooms)]
    source = RgbdSource(data / KITCHEN)
    places.append(("kitchen", [frame.image for frame in frames_of(source, range(0, len(source.entries), 4))]))
    places += [(name.split("_")[1], pictures_of(data / name, *how)) for name, how in STRANGERS.items()]
    pipeline = Pipeline.from_checkpoint(config=PipelineConfig(mapping=MappingConfig(max_submaps=len(places))))
    trials, wrong = {name: 0 for name, _ in places}, 0
    atlas = pipeline.mapper._atlas
    for number, (name, pictures) in enumerate(places):
        pipeline.refinement.reset()
        windows = windows_of(pictures, 1000 * number, pipeline)
        predicted = [(window, pipeline.predict(window)) for window in windows]
        # All of them, looked for among the places before.
        for window, prediction in predicted if number else []:
            found = Relocalisation(atlas).find(window, prediction, torch.arange(len(window.keyframes)))
            trials[name] += 1
            wrong += found is not None
        # Mapped, in a part of its own: a loop closed between two places would join them.
        for window, prediction in predicted:
            pipeline.mapper.place(window, prediction)
    for name, count in trials.items():
        report.add(f"trials_{name}", count, "", "windows looked for among all places before")
    report.add("archive_frames", len(atlas.archive), "", f"{atlas.archive.nbytes / len(atlas.archive):,.0f} bytes each")
    report.add("false_relocalisations", wrong, "", f"of {sum(trials.values())}; 0 is right")
    ids = [{key // 1000 for key in submap.keyframes.ids} for submap in pipeline.mapper.submaps.values()]
    mixed = sum(len(each) > 1 for each in ids)
    report.add("mixed_parts", mixed, "", f"of {len(ids)}, with keyframes of several places; 0 is right")
    return [f"{wrong} false relocalisations, {mixed} mixed parts: none is allowed"] if wrong or mixed else []


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DATA, help="folder of the real sequences")
    parser.add_argument("--rooms", type=int, default=ROOMS, help="synthetic rooms, of three windows each")
    parser.add_argument("--json", type=Path, help="write the figures to this file, under flat keys")
    parser.add_argument("--quick", action="store_true", help="one return and one room, without limits")
    options = parser.parse_args()
    logging.basicConfig(level=logging.ERROR)
    missing = [folder for folder in (KITCHEN, *STRANGERS) if not (options.data / folder).is_dir()]
    if missing:
        print(f"{options.data} lacks {', '.join(missing)}: --data names the folder that has them", file=sys.stderr)
        return 1
    report = Report("relocalisation")
    missed = measure_strangers(report, options.data, 1 if options.quick else options.rooms)
    missed += measure_returns(report, options.data, options.quick)
    print(report.table())
    if options.json is not None:
        options.json.write_text(json.dumps(report.figures, indent=1) + "\n")
    for line in missed:
        print(f"missed: {line}", file=sys.stderr)
    return 1 if missed and not options.quick else 0


if __name__ == "__main__":
    sys.exit(main())
