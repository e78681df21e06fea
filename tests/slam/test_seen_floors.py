"""Floors and tables below a camera, in places whose floor is known."""

from __future__ import annotations

import pytest
import torch

from ff3r_model.core.types import Similarity
from ff3r_model.slam.reference.floor import FloorEstimate
from ff3r_model.slam.reference.scale import ASSUMED, HEIGHT, ScaleLadder
from ff3r_model.slam.reference.seen_floors import SeenFloors

HEIGHT_METRES, TABLE = 1.4, 0.75
UP = torch.tensor([0.0, 0.0, 1.0])


def floor_at(x: float, below: float) -> FloorEstimate:
    """A level plane `below` metres under cameras at (x, 0, 1.4) of a map in metres."""
    return FloorEstimate(HEIGHT_METRES / below, 0.9, UP, torch.tensor([x, 0.0, HEIGHT_METRES]))


def seen(*planes: FloorEstimate) -> SeenFloors:
    floors = SeenFloors(HEIGHT_METRES, 30)
    for plane in planes:
        floors.add(plane)
    return floors


FLOOR = [floor_at(0.3 * i, HEIGHT_METRES * (1 + 0.02 * (-1) ** i)) for i in range(6)]
TABLES = [floor_at(0.3 * i, HEIGHT_METRES - TABLE) for i in range(6)]


def test_a_table_is_higher_than_what_others_saw() -> None:
    assert seen(*TABLES[:3], *FLOOR).lowest.tolist() == [False] * 3 + [True] * 6
    assert seen(*FLOOR).lowest.all()
    assert seen(*TABLES).lowest.all(), "nobody has seen anything lower yet"


def test_what_lies_lower_far_away_is_no_argument() -> None:
    """Maps drift, and there are stairs."""
    downstairs = FloorEstimate(1.0, 0.9, UP, torch.tensor([30.0, 0.0, HEIGHT_METRES - 3]))
    assert seen(*FLOOR, downstairs).lowest.all()


def test_the_share_under_the_plane_tells_a_table_from_a_floor() -> None:
    generator = torch.Generator().manual_seed(0)
    room = torch.rand(4000, 3, generator=generator) * torch.tensor([4.0, 4.0, 0.0]) - torch.tensor([1.0, 2.0, 0.0])
    top = torch.rand(2000, 3, generator=generator) * torch.tensor([1.5, 0.9, 0.0]) + torch.tensor([0.0, 0.0, TABLE])
    points = torch.cat([room, top]) + 0.02 * torch.randn(6000, 3, generator=generator)
    assert seen(*FLOOR).under(points) < 0.01
    assert seen(*TABLES).under(points) == pytest.approx(4000 / 6000, abs=0.02)
    assert seen(*TABLES).under(top) == 0, "only the table was seen"
    assert seen(*TABLES).under(points[:100]) == 0, "too few to tell"


def test_everything_moves_with_the_map() -> None:
    turn = torch.tensor([[0.0, 0.0, 1.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    floors, motion = seen(*TABLES[:3], *FLOOR), Similarity(2.5, turn, torch.tensor([1.0, 2.0, 3.0]))
    before = floors.scales
    floors.transform(motion)
    assert torch.allclose(floors.scales, before / 2.5)
    assert floors.lowest.tolist() == [False] * 3 + [True] * 6
    assert torch.allclose(floors.normal.float(), turn @ UP, atol=1e-6)


def test_floors_survive_a_file_and_old_files_have_none() -> None:
    floors, again = seen(*TABLES[:2], *FLOOR), SeenFloors(HEIGHT_METRES, 30)
    again.restore(floors.state())
    assert again.state() == floors.state() and len(again) == 8
    old = [{name: value for name, value in floor.items() if name != "centre"} for floor in floors.state()]
    none = SeenFloors(HEIGHT_METRES, 30)
    none.restore(old)
    assert not len(none)


def ladder_of(*planes: FloorEstimate) -> ScaleLadder:
    ladder = ScaleLadder(camera_height=HEIGHT_METRES)
    for plane in planes:
        ladder.floors.add(plane)
    return ladder


def test_the_lowest_plane_gives_the_scale_and_tables_cost_confidence() -> None:
    alone, mixed, outvoted = (
        ladder_of(*planes).estimate(HEIGHT) for planes in (FLOOR, TABLES[:2] + FLOOR, TABLES + FLOOR[:2])
    )
    assert alone is not None and mixed is not None and outvoted is not None
    for each in (alone, mixed, outvoted):
        assert each.factor == pytest.approx(1.0, rel=0.03)
    assert ASSUMED >= alone.confidence > mixed.confidence > 0.5 > outvoted.confidence


def test_confidence_is_earned_and_never_certain() -> None:
    counts = [ladder_of(*[FLOOR[0]] * count).estimate(HEIGHT) for count in (3, 6, 30)]
    found = [each.confidence for each in counts if each is not None]
    assert len(found) == 3 and 0.5 < found[0] < found[1] < found[2] == ASSUMED


def test_a_false_height_is_doubted_where_odometry_knows_better() -> None:
    for stated, doubted in ((HEIGHT_METRES, False), (0.7, True), (3.0, True)):
        ladder = ScaleLadder(camera_height=stated)
        for plane in FLOOR:
            ladder.floors.add(FloorEstimate(plane.scale * stated / HEIGHT_METRES, 0.9, UP, plane.centre))
        ladder._seen["odometry"].extend([1.0] * 6)
        doubt = ladder.doubt(torch.zeros(0, 3))
        assert bool(doubt) == doubted
        assert not doubted or ("1.4" in doubt and f"{stated:g} m" in doubt)
