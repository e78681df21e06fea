"""Maps in files: what is loaded goes on as if it had never been saved, and older files load as they did."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from ff3r_model.core.types import Similarity
from ff3r_model.slam.config import MappingConfig
from ff3r_model.slam.contents import CameraRecord
from ff3r_model.slam.mapper import Mapper
from ff3r_model.slam.reference.floor import floor_below
from ff3r_model.slam.reference.world_reference import WorldReference
from ff3r_model.synthetic.hall import CAMERA_HEIGHT, hall_tour, make_hall
from ff3r_model.synthetic.oracle_engine import OracleEngine, OracleNoise
from ff3r_model.synthetic.sequences import Sequence, room_sequence
from ff3r_model.voxel_map.file import MapFileError, read_map, write_map
from ff3r_model.voxel_map.voxel_map import VoxelMap

CHANNELS = 16
CONFIG = MappingConfig(camera_height=CAMERA_HEIGHT)


@pytest.fixture(scope="module")
def hall() -> Sequence:
    return room_sequence(make_hall(0, 60.0), hall_tour(60.0, 0.5)[:48], width=56)


def mapped(hall: Sequence, windows: int, measured: bool = False) -> Mapper:
    """The first windows of the hall; `measured`: with what an IMU says of up, and nothing else."""
    mapper = Mapper(OracleEngine(hall, OracleNoise.realistic()), CHANNELS, CONFIG)
    for window, _ in zip(hall.windows(8, 4, measured=measured), range(windows), strict=False):
        window = replace(window, depth=None, odom_from_camera=None)
        assert mapper.place(window, mapper.engine(window)).accepted
    return mapper


def reloaded(mapper: Mapper, path: Path) -> Mapper:
    mapper.save(path)
    loaded = Mapper(mapper.engine, CHANNELS, CONFIG)
    loaded.load(path)
    return loaded


def reference(mapper: Mapper) -> WorldReference:
    return mapper._atlas.active.reference


def same_placement(a: Similarity | None, b: Similarity | None) -> bool:
    if a is None or b is None:
        return a is b
    return a.scale == b.scale and a.rotation.equal(b.rotation) and a.translation.equal(b.translation)


@pytest.mark.parametrize("measured", [True, False])
@pytest.mark.parametrize("windows", [2, 8])
def test_the_next_window_is_held_to_the_world_as_if_the_map_had_never_been_saved(
    hall: Sequence, tmp_path: Path, windows: int, measured: bool
) -> None:
    """After two windows everything is still being learnt, after eight up, scale and floor are known."""
    mapper = mapped(hall, windows, measured)
    loaded = reloaded(mapper, tmp_path / "map")
    assert loaded.map.metric == (windows == 8)
    assert (reference(loaded).floor is not None) == (windows == 8)
    source = "measured" if measured else "floor" if windows == 8 else "camera"
    assert reference(mapper).gravity.source == reference(loaded).gravity.source == source
    frames = list(range(4 * windows, 4 * windows + 8))
    window = replace(hall.window(frames, measured=measured), depth=None, odom_from_camera=None)
    prediction, here = mapper.engine(window), mapper._atlas.active.newest.map_from_node
    tilted = replace(here, scale=1.1 * here.scale, translation=here.translation + 0.1)
    held, again = (reference(each).pull_towards(window, prediction, tilted) for each in (mapper, loaded))
    assert same_placement(held, again)
    assert same_placement(held, tilted) == (windows == 2 and not measured)
    up, up_again = (reference(each).gravity.observe(window, prediction, here) for each in (mapper, loaded))
    assert same_placement(up, up_again)
    seen = floor_below(prediction, here, CAMERA_HEIGHT)
    assert seen is not None
    fitting = replace(here, scale=here.scale * seen.scale / float(reference(mapper).ladder.floors.scales.median()))
    scale, scale_again = (
        reference(each).observe_scale(window, prediction, fitting, each.map.scale, each.map.gaussians().means)
        for each in (mapper, loaded)
    )
    assert scale == scale_again and (scale is not None) == (windows == 2)


def test_the_path_and_the_archive_come_back_where_they_were(hall: Sequence, tmp_path: Path) -> None:
    mapper = mapped(hall, 8)
    loaded = reloaded(mapper, tmp_path / "map")
    for (stamp, pose), (other_stamp, other_pose) in zip(mapper.trajectory(), loaded.trajectory(), strict=True):
        assert stamp == other_stamp
        torch.testing.assert_close(pose, other_pose)
    motion = Similarity(2.0, torch.eye(3), torch.tensor([1.0, 0.0, 0.0]))
    poses = dict(loaded.trajectory())
    loaded._atlas.transform({}, motion)
    for frame in loaded._atlas.archive.frames.values():
        expected = 2 * poses[frame.stamp][:3, 3] + motion.translation
        torch.testing.assert_close(frame.map_from_camera[:3, 3], expected)
        torch.testing.assert_close(dict(loaded.trajectory())[frame.stamp][:3, 3], expected)


def changed(path: Path, change: Any) -> None:
    """Rewrite a file with another header of the mapper's own."""
    header, tensors = read_map(path)
    change(header["extra"]["mapping"])
    rest = {key: value for key, value in header.items() if key not in ("version", "checksum")}
    write_map(path, tensors, rest)


def test_a_file_that_does_not_know_its_reference_stays_as_it_is(hall: Sequence, tmp_path: Path) -> None:
    mapper = mapped(hall, 8)
    mapper.save(tmp_path / "map")
    changed(tmp_path / "map", lambda header: header.pop("references"))
    loaded = Mapper(mapper.engine, CHANNELS, CONFIG)
    loaded.load(tmp_path / "map")
    assert loaded.map.metric and len(loaded.map) == len(mapper.map)
    assert reference(loaded).floor is None and reference(loaded).ladder.best is None
    assert reference(loaded).gravity.source == "measured", "nobody turns it any more"


def test_a_reference_that_makes_no_sense_is_refused(hall: Sequence, tmp_path: Path) -> None:
    mapper = mapped(hall, 2)
    mapper.save(tmp_path / "map")
    changed(tmp_path / "map", lambda header: header["references"]["0"]["gravity"].update(source="moon"))
    with pytest.raises(MapFileError, match="moon"):
        Mapper(mapper.engine, CHANNELS, CONFIG).load(tmp_path / "map")


@pytest.mark.parametrize(
    ("camera", "word"), [({"focal": -1.0, "sigma": 0.1}, "focal"), ({"focal": 0.8, "sigma": 0}, "sigma"), (7, "camera")]
)
def test_a_camera_that_makes_no_sense_is_refused(hall: Sequence, tmp_path: Path, camera: Any, word: str) -> None:
    mapper = mapped(hall, 1)
    mapper.save(tmp_path / "map", camera=CameraRecord(0.8, 0.02))
    assert Mapper(mapper.engine, CHANNELS, CONFIG).load(tmp_path / "map") == CameraRecord(0.8, 0.02)
    changed(tmp_path / "map", lambda header: header.update(camera=camera))
    with pytest.raises(MapFileError, match=word):
        Mapper(mapper.engine, CHANNELS, CONFIG).load(tmp_path / "map")


def test_a_map_without_a_graph_moves_as_a_whole(hall: Sequence, tmp_path: Path) -> None:
    """As saved by VoxelMap.save alone, or by the first release: voxels and keyframes know no node."""
    mapper = mapped(hall, 4)
    mapper.map.save(tmp_path / "map")
    header, tensors = read_map(tmp_path / "map")
    rest = {key: value for key, value in header.items() if key not in ("version", "checksum")}
    plain = {name: tensor for name, tensor in tensors.items() if not name.endswith(".anchors")}
    write_map(tmp_path / "map", plain, rest)
    assert VoxelMap.load(tmp_path / "map").rows.anchors.unique().tolist() == [-1]
    loaded = Mapper(mapper.engine, CHANNELS, CONFIG)
    assert loaded.load(tmp_path / "map") is None, "nothing is known of the camera"
    centre = loaded.map.gaussians().means.mean(0)
    poses = dict(mapper.trajectory())
    loaded._atlas.transform({}, Similarity(3.0, torch.eye(3), torch.tensor([0.0, 1.0, 0.0])))
    for stamp, pose in loaded.trajectory():
        torch.testing.assert_close(pose[:3, 3], 3 * poses[stamp][:3, 3] + torch.tensor([0.0, 1.0, 0.0]))
    moved = loaded.map.gaussians().means.mean(0)
    assert float((moved - 3 * centre - torch.tensor([0.0, 1.0, 0.0])).norm()) < 0.2 * float(3 * centre.norm())
