"""Furnished rooms: deterministic, free of collisions, and true to themselves from every side."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
import torch

from ff3r_model.core.geometry import invert_rigid, project, transform_points, unproject
from ff3r_model.synthetic import make_trajectory, pinhole
from ff3r_model.synthetic.furnished import CLASSES, make_furnished_room, render_furnished
from ff3r_model.synthetic.furnished.colors import color_name
from ff3r_model.synthetic.furnished.furnish import KINDS
from ff3r_model.synthetic.furnished.library import Library
from ff3r_model.synthetic.vocabulary import COLORS, draw_rgb

embreex = pytest.importorskip("embreex", reason="rays are traced by embree")
SEEDS = range(6)


def test_a_room_follows_from_its_seed(library: Library) -> None:
    first, again, other = (make_furnished_room(seed, library) for seed in (3, 3, 4))
    assert first.instances == again.instances != other.instances
    np.testing.assert_array_equal(first.scene.corners, again.scene.corners)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_room_is_furnished(library: Library, kind: str) -> None:
    things = [
        thing.name
        for seed in SEEDS[:3]
        for thing in make_furnished_room(seed, library, (kind,)).instances
        if thing.model
    ]
    assert len(things) > 6 or kind == "bathroom"  # the boxes hold next to nothing for one


@pytest.mark.parametrize("seed", SEEDS)
def test_furniture_stands_inside_and_apart(library: Library, seed: int) -> None:
    room = make_furnished_room(seed, library)
    furniture = [thing for thing in room.instances if thing.model]
    for thing in furniture:
        assert (np.array(thing.low) >= room.low.numpy() - 0.02).all()
        assert (np.array(thing.high) <= room.high.numpy() + 0.02).all()
    standing = [thing for thing in furniture if thing.low[2] < 0.01]
    for a, b in combinations(standing, 2):
        apart = (np.array(a.high) <= b.low) | (np.array(b.high) <= a.low)
        assert apart[:2].any(), f"{a.model} and {b.model} overlap"


@pytest.mark.parametrize("kind", ["random", "handheld", "robot"])
def test_cameras_find_a_way_through(library: Library, kind: str) -> None:
    room = make_furnished_room(2, library)
    poses = make_trajectory(room, 0, 6, kind=kind)
    assert float(room.clearance(poses[:, :3, 3]).min()) > 0.1


def test_views_agree_on_where_things_are(library: Library) -> None:
    """What one view sees, another sees at the depth and with the instance that follow from the first, or nearer."""
    room = make_furnished_room(5, library)
    poses, K = make_trajectory(room, 1, 3, kind="random", step=0.3), pinhole(48, 64)
    seen = render_furnished(room, poses, K.expand(3, 3, 3), 48, 64, supersample=1)
    points = transform_points(poses[0], unproject(seen.depth[:1], K[None])[0].flatten(0, 1))
    pixels, depth = project(transform_points(invert_rigid(poses[1:2]), points[None]), K[None])
    at = pixels[0].floor().long()
    inside = (at >= 0).all(-1) & (at[:, 0] < 64) & (at[:, 1] < 48) & (depth[0] > 0)
    column, row = at[inside].T
    there = seen.depth[1][row, column]
    assert inside.float().mean() > 0.2
    hidden = there < depth[0][inside] * 0.97
    same = (there / depth[0][inside] - 1).abs() < 0.03
    assert (same | hidden).float().mean() > 0.93 and same.float().mean() > 0.5
    instances = seen.instances[0].flatten()[inside] == seen.instances[1][row, column]
    assert instances[same].float().mean() > 0.95


def test_labels_are_classes_and_colours(library: Library) -> None:
    room = make_furnished_room(1, library)
    seen = render_furnished(room, make_trajectory(room, 0, 2), pinhole(24, 32).expand(2, 3, 3), 24, 32)
    names = [CLASSES[k] for k in seen.classes.unique().tolist()]
    assert {"wall", "floor"} & set(names) and set(names) <= {thing.name for thing in room.instances}
    by_instance = torch.tensor([COLORS.index(thing.color) for thing in room.instances])
    assert torch.equal(seen.colors.long(), by_instance[seen.instances.long()])
    assert 0.2 < seen.images.float().mean() / 255 < 0.8


@pytest.mark.parametrize("name", COLORS)
def test_colour_names_are_those_of_the_analytic_rooms(name: str) -> None:
    rng = np.random.default_rng(0)
    found = [color_name(draw_rgb(name, rng)) for _ in range(50)]
    assert found.count(name) >= 45
