"""Rooms: what is in them, that it stands where it can, and that a seed says it all."""

from __future__ import annotations

import colorsys
from collections import Counter
from dataclasses import fields

import numpy as np
import pytest
import torch

from ff3r_model.synthetic import (
    CLASSES,
    COLORS,
    Instance,
    Room,
    make_room,
    make_trajectory,
    pinhole,
    render,
)
from ff3r_model.synthetic.vocabulary import draw_rgb
from tests.support.room_cloud import room_cloud

SHELL = 6


@pytest.fixture(scope="module")
def rooms() -> list[Room]:
    return [make_room(seed) for seed in range(200)]


def volume_shared(a: Instance, b: Instance) -> float:
    """The common volume of two bounding boxes, as a share of the smaller."""
    edges = np.minimum(a.high, b.high) - np.maximum(a.low, b.low)
    smaller = min(np.prod(np.subtract(t.high, t.low)) for t in (a, b))
    return float(np.prod(edges.clip(min=0)) / smaller)


def test_every_class_and_colour_appears(rooms: list[Room]) -> None:
    classes = Counter(thing.name for room in rooms for thing in room.instances)
    colors = Counter(thing.color for room in rooms for thing in room.instances)
    assert set(classes) == set(CLASSES)
    assert set(colors) == set(COLORS)
    assert sum(count >= 40 for count in classes.values()) >= 25, "most classes must be common"


def test_sizes_and_numbers(rooms: list[Room]) -> None:
    for room in rooms:
        span = room.high - room.low
        assert (span >= torch.tensor([3.0, 3.0, 2.4])).all() and (span <= torch.tensor([8.0, 8.0, 3.0])).all()
        assert 8 <= len(room.instances) - SHELL <= 20
        assert [thing.id for thing in room.instances] == list(range(len(room.instances)))


def test_things_lie_inside_and_apart(rooms: list[Room]) -> None:
    """Only what stands on a seat or a bed may lie inside another thing's box, and rugs under everything."""
    for room in rooms[:80]:
        things = [thing for thing in room.instances[SHELL:] if thing.name != "rug"]
        for k, thing in enumerate(things):
            assert (np.array(thing.low) >= room.low.numpy() - 1e-4).all()
            assert (np.array(thing.high) <= room.high.numpy() + 1e-4).all()
            for other in things[:k]:
                if not {thing.name, other.name} & {"sofa", "bed", "desk", "bookshelf"}:
                    assert volume_shared(thing, other) < 0.03, (room.seed, thing, other)


def test_nothing_floats(rooms: list[Room]) -> None:
    """Everything touches the floor, a wall, or the top of another thing's solids."""
    for room in rooms[:80]:
        table = room.primitives
        tops = table.corners[SHELL:, :, 2].amax(-1)
        for thing in room.instances[SHELL:]:
            low, high = np.array(thing.low), np.array(thing.high)
            at_wall = (low[:2] - room.low.numpy()[:2]).min() < 0.06 or (room.high.numpy()[:2] - high[:2]).min() < 0.06
            others = table.instance[SHELL:] != thing.id
            supported = bool(((tops[others] - thing.low[2]).abs() < 0.02).any())
            assert thing.low[2] < 0.02 or at_wall or supported, (room.seed, thing)


def test_boxes_of_instances_hold_their_surfaces() -> None:
    room = make_room(5)
    cloud = room_cloud(room, 20_000, seed=1)
    assert cloud.points.shape == (20_000, 3)
    seen = 0
    for thing in room.instances:
        points = cloud.points[cloud.instances == thing.id]
        if len(points) == 0:
            continue
        seen += 1
        assert (points > torch.tensor(thing.low) - 2e-3).all() and (points < torch.tensor(thing.high) + 2e-3).all()
        assert (cloud.classes[cloud.instances == thing.id] == thing.class_id).all()
        assert (cloud.colors[cloud.instances == thing.id] == thing.color_id).all()
    assert seen > 0.8 * len(room.instances)


def test_a_seed_says_it_all() -> None:
    torch.manual_seed(1)
    np.random.seed(1)
    first, state = make_room(31), torch.get_rng_state()
    torch.manual_seed(2)
    np.random.seed(2)
    second = make_room(31)
    for column in fields(first.primitives):
        assert torch.equal(getattr(first.primitives, column.name), getattr(second.primitives, column.name))
    assert first.instances == second.instances
    torch.manual_seed(1)
    assert torch.equal(state, torch.get_rng_state()), "a room must not draw from the global generator"
    assert make_room(32).instances != first.instances


def test_moving_a_room_keeps_it_whole() -> None:
    room = make_room(3)
    moved = room.to("meta")
    assert moved.primitives.corners.device.type == moved.lighting.ambient.device.type == moved.low.device.type == "meta"
    assert moved.instances == room.instances and moved.lighting.exposure == room.lighting.exposure


@pytest.mark.parametrize("name", COLORS)
def test_colour_names_mean_one_range_each(name: str) -> None:
    """An independent reader of hue and brightness tells every sample's name."""
    rng = np.random.default_rng(0)
    for _ in range(50):
        hue, saturation, value = colorsys.rgb_to_hsv(*draw_rgb(name, rng))
        if saturation < 0.15:
            read = "black" if value < 0.3 else "gray" if value < 0.75 else "white"
        elif 0.03 < hue < 0.11:
            read = "brown" if value < 0.7 else "orange"
        else:
            limits = {"yellow": 0.2, "green": 0.5, "blue": 0.7, "purple": 0.85, "pink": 0.96}
            read = next((word for word, limit in limits.items() if 0.11 <= hue < limit), "red")
        assert read == name


def test_walls_are_textured_enough_to_match() -> None:
    """In most small patches of most views, brightness varies visibly."""
    shares = []
    for seed in range(10):
        room = make_room(seed)
        poses = make_trajectory(room, 0, 2, "random")
        grey = render(room, poses, pinhole(112, 112).expand(2, 3, 3), 112, 112).images.float().mean(-1)
        spread = grey.unfold(1, 14, 14).unfold(2, 14, 14).flatten(3).std(-1)
        shares.append((spread > 2.0).float().mean())
    assert torch.stack(shares).mean() > 0.9
