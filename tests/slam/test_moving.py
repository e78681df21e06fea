"""Somebody walks through rendered rooms, whose pixels are known: out of tracks, out of the map."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from torch.nn.functional import max_pool2d

from ff3r_model.core.geometry import invert_rigid
from ff3r_model.core.types import Cameras, Prediction, Window
from ff3r_model.evaluation.metrics import pair_errors
from ff3r_model.frames.prepare import prepare, prepare_picture
from ff3r_model.slam.config import MappingConfig
from ff3r_model.slam.mapper import Mapper
from ff3r_model.slam.refinement.canvas import Canvas
from ff3r_model.slam.refinement.lens import Lens
from ff3r_model.slam.refinement.moving import MOST_AREA, moving_pixels
from ff3r_model.slam.refinement.track_refinement import LIKELY, TrackConfig, TrackRefinement
from ff3r_model.synthetic import make_room, make_trajectory
from ff3r_model.synthetic.oracle_engine import OracleEngine, OracleNoise
from ff3r_model.synthetic.sequences import Sequence, room_sequence
from ff3r_model.synthetic.walker import Walker
from ff3r_model.voxel_map.config import MapConfig

VIEWS, WIDTH = 8, 448
ROOMS = {36: 1.4, 38: 1.8, 40: 1.4}
"""Seeds, and how far ahead of the camera somebody crosses."""


@cache
def sequence(seed: int, walks: bool) -> Sequence:
    room = make_room(seed)
    poses = make_trajectory(room, seed, 24, "robot", 0.15)[12 if seed == 40 else 0 :][:VIEWS]
    walker = Walker.crossing(poses[4], ROOMS[seed], 0.3 if seed != 38 else 0.45, seed) if walks else None
    return room_sequence(room, poses, WIDTH, walker=walker)


@cache
def small(seed: int, walks: bool) -> Sequence:
    """At the size of the network's images."""
    full = sequence(seed, walks)
    made = [prepare(frame.image, full.intrinsics, 112, 14) for frame in full.frames()]
    assert made[0][1] is not None
    depth = full.depth[:, 2::4, 2::4]
    figure = None if full.moving is None else full.moving[:, 2::4, 2::4]
    images = torch.stack([image for image, _, _ in made])
    return replace(full, images=images, intrinsics=made[0][1], depth=depth, moving=figure, classes=None)


def window(seed: int, walks: bool) -> Window:
    made = [prepare(frame.image, None, 112, 14) for frame in sequence(seed, walks).frames()]
    frames = sequence(seed, walks).frames()
    pictures = [prepare_picture(frame.image, crop) for frame, (_, _, crop) in zip(frames, made, strict=True)]
    return replace(small(seed, walks).window(list(range(VIEWS))), pictures=torch.stack(pictures))


def blind(seed: int, walks: bool) -> Prediction:
    """As a network that never saw people: noisy, and the figure lies on the wall behind it."""
    empty = small(seed, False)
    engine = OracleEngine(replace(empty, images=small(seed, walks).images), OracleNoise(0.02, 0.05, 1.0), seed=seed)
    return engine(window(seed, walks))


def shares(found: torch.Tensor, seed: int) -> tuple[float, float]:
    """Of the figure that was found, and of the rest; what lies within three pixels of its edge does not count."""
    figure = small(seed, True).moving
    assert figure is not None
    near = max_pool2d(figure[:, None].float(), 7, 1, 3)[:, 0] > 0
    return float(found[figure].float().mean()), float(found[~near].float().mean())


@pytest.mark.parametrize("seed", ROOMS)
@pytest.mark.parametrize("depth", ["true", "behind"])
def test_pixels_of_somebody_who_walks_are_found(seed: int, depth: str) -> None:
    walk, empty = small(seed, True), small(seed, False)
    cameras = Cameras(invert_rigid(walk.world_from_camera), walk.intrinsics.expand(VIEWS, 3, 3))
    found = moving_pixels(walk.images, walk.depth if depth == "true" else empty.depth, cameras)
    figure, rest = shares(found, seed)
    assert figure > 0.6
    assert rest < 0.02
    still = moving_pixels(empty.images, empty.depth, cameras)
    assert float(still.float().mean()) < 0.005


def test_wrong_depth_is_no_motion_and_two_views_tell_nothing() -> None:
    walk = small(36, True)
    cameras = Cameras(invert_rigid(walk.world_from_camera), walk.intrinsics.expand(VIEWS, 3, 3))
    wild = walk.depth * torch.exp(torch.randn(walk.depth.shape, generator=torch.Generator().manual_seed(0)))
    found = moving_pixels(walk.images, wild, cameras)
    assert (found.flatten(1).float().mean(1) <= MOST_AREA).all()
    two = Cameras(cameras.camera_from_world[:2], cameras.intrinsics[:2])
    assert not moving_pixels(walk.images[:2], walk.depth[:2], two).any()


@pytest.mark.parametrize("seed", ROOMS)
def test_cameras_are_found_although_somebody_walks(seed: int) -> None:
    refined = TrackRefinement(TrackConfig(gaps="network"))(blind(seed, True), window(seed, True))
    truth = invert_rigid(small(seed, True).world_from_camera)
    assert float(pair_errors(refined.cameras.camera_from_world.double(), truth.double()).mean()) < 6
    figure, rest = shares(refined.depth_confidence == 0, seed)
    assert figure > 0.6 and rest < 0.02


@pytest.mark.parametrize(("off", "least", "most"), [(LIKELY, 0.0, 2.0), (1e9, 20.0, 180.0)])
def test_depth_tells_two_motions_from_one(
    monkeypatch: pytest.MonkeyPatch, off: float, least: float, most: float
) -> None:
    """A wrong structure explains more of all observations in this room, the figure's among them; if any depth will do,
    it is taken."""
    monkeypatch.setattr("ff3r_model.slam.refinement.track_refinement.LIKELY", off)
    seen = window(38, True)
    canvas = Canvas.of(seen)
    assert canvas.known_focal is not None
    refinement = TrackRefinement()
    _, features, pairs = refinement._look(seen, canvas)
    found = refinement._reconstruct(features, pairs, canvas, Lens(canvas.known_focal), blind(38, True).depth)
    assert found is not None
    views = np.flatnonzero(found.registered)
    poses = torch.from_numpy(found.structure.camera_from_world[views])
    truth = invert_rigid(small(38, True).world_from_camera[views]).double()
    assert least <= float(pair_errors(poses, truth).mean()) < most


def cells(engine: OracleEngine, placed: list[tuple[Window, Prediction]]) -> set[tuple[int, ...]]:
    """Those of a map of these windows."""
    config = MappingConfig(map=MapConfig(voxel_size=0.1, max_map_bytes=2**24), drop_uncertain=0.0)
    mapper = Mapper(engine, 16, config)
    assert all([mapper.place(*each).accepted for each in placed])
    return {tuple(cell) for cell in mapper.map.cells().tolist()}


def test_what_moves_does_not_stay_in_the_map() -> None:
    """Voxels where the room without the figure has none."""
    seen = window(36, True)
    engines = [OracleEngine(small(36, walks)) for walks in (False, True)]
    empty, full = (engine(seen) for engine in engines)
    found = moving_pixels(seen.images, full.depth, full.cameras)
    masked = replace(full, depth_confidence=full.depth_confidence.masked_fill(found, 0))
    room, all_of_it, left = (cells(engines[1], [(seen, each)]) for each in (empty, full, masked))
    assert len(all_of_it - room) > 100
    assert len(left - room) < 0.4 * len(all_of_it - room)


def test_somebody_who_stands_is_mapped_and_gone_once_rays_pass_through() -> None:
    room = make_room(36)
    poses = make_trajectory(room, 36, VIEWS, "robot", 0.15)
    stands = room_sequence(room, poses, 56, walker=Walker.crossing(poses[4], 1.4, speed=0))
    empty = room_sequence(room, poses, 56)
    sequences = [stands, empty, empty, empty]
    both = replace(
        stands,
        images=torch.cat([each.images for each in sequences]),
        depth=torch.cat([each.depth for each in sequences]),
        world_from_camera=poses.repeat(4, 1, 1),
        stamps=tuple(range(4 * VIEWS)),
        classes=None,
        moving=None,
    )
    engine = OracleEngine(both)
    windows = [(each, engine(each)) for each in both.windows()]
    # What the figure's pixels bring to the map of the first window.
    seen, full = windows[0]
    assert stands.moving is not None
    without = replace(full, depth_confidence=full.depth_confidence.masked_fill(stands.moving, 0))
    figure = cells(engine, windows[:1]) - cells(engine, [(seen, without)])
    assert len(figure) > 30
    assert len(figure & cells(engine, windows)) <= 0.15 * len(figure)
