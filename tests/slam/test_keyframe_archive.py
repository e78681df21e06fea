"""What is remembered of frames: as much as fits, the most redundant forgotten first, and nothing changed by a file."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from ff3r_model.core.geometry import invert_rigid, transform_pose
from ff3r_model.core.node import Node
from ff3r_model.core.types import Cameras, Gaussians, Prediction, Similarity, Window
from ff3r_model.slam.contents import check_archive
from ff3r_model.slam.keyframe_archive import (
    ArchiveConfig,
    ArchivedFrame,
    KeyframeArchive,
    archived,
    joint_window,
    placed_frames,
)
from ff3r_model.slam.landmarks import Landmarks
from ff3r_model.slam.placed_frames import PlacedFrames

HEIGHT, WIDTH = 42, 56


def frames(places: list[float], node: Node | None = None, first: int = 0) -> list[ArchivedFrame]:
    """Frames along x at these places, which look ahead at a wall 2 away."""
    wanted, places = len(places), [*places, 99.0]  # a window has two views at least
    count = len(places)
    poses = torch.eye(4).repeat(count, 1, 1)
    poses[:, 0, 3] = torch.tensor(places)
    intrinsics = torch.tensor([[50.0, 0, WIDTH / 2], [0, 50, HEIGHT / 2], [0, 0, 1]]).repeat(count, 1, 1)
    depth = 2 + 0.1 * torch.rand(count, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(first))
    n = depth.numel()
    gaussians = Gaussians(
        torch.zeros(n, 3), torch.ones(n, 3), torch.ones(n, 4), torch.zeros(n, 1, 3), torch.ones(n), torch.ones(n),
        torch.zeros(n, 2),
    )  # fmt: skip
    descriptors = torch.nn.functional.normalize(torch.randn(count, 8), dim=1)
    prediction = Prediction(Cameras(invert_rigid(poses), intrinsics), depth, depth, gaussians, descriptors)
    ramp = torch.linspace(0, 1, WIDTH).expand(count, 3, HEIGHT, WIDTH)
    ids = tuple(range(first, first + count))
    window = Window(ramp, ids, tuple(10 * i for i in ids), intrinsics)
    placed = PlacedFrames.of(prediction, window, node or Node(7))
    config = ArchiveConfig(depth_side=28)
    return archived(window, prediction, placed, torch.arange(wanted), config)


def test_a_frame_is_remembered_as_it_was_but_coarser() -> None:
    given = frames([0.0, 1.0])
    remembered = placed_frames(given)
    assert remembered.depth.shape == (2, 21, 28)
    assert remembered.depth.min() > 1.99 and remembered.depth.max() < 2.11
    assert float((remembered.points[1, 0, 0] - remembered.points[0, 0, 0])[0]) == pytest.approx(1, abs=0.1)
    middle = remembered.intrinsics[0, :2, 2]
    assert middle.tolist() == [(28 - 1.5) / 2 + 0.5, (21 - 1.5) / 2 + 0.5], "pixel centres stay where they were"
    window = joint_window(given)
    assert window.keyframes == (0, 1) and window.stamps == (0, 10)
    assert (window.images - torch.linspace(0, 1, WIDTH)).abs().max() < 0.03
    assert window.intrinsics is not None and window.intrinsics[0, 0, 0] == 50


def test_what_sees_most_nearly_the_same_goes_first() -> None:
    archive = KeyframeArchive(10**9, ArchiveConfig(max_frames=4, evict_share=0.01))
    archive.add(frames([0.0, 3.0, 3.1, 6.0, 9.0]))
    assert sorted(archive.frames) == [0, 2, 3, 4], "of the two beside each other, the older went"
    archive.add(frames([0.01], Node(8, submap=1), first=9))
    assert 9 in archive.frames, "another submap's frames are no neighbours"


def test_bytes_stay_within_the_budget() -> None:
    one = frames([0.0])[0].nbytes
    archive = KeyframeArchive(int(5.5 * one), ArchiveConfig())
    for number in range(20):
        archive.add(frames([0.5 * number], first=number))
        assert archive.nbytes <= archive.budget
        assert archive.nbytes == sum(frame.nbytes for frame in archive.frames.values())
    assert len(archive) >= 4


def test_frames_move_with_their_node_and_into_its_submap() -> None:
    archive, node, other = KeyframeArchive(10**9), Node(7), Node(8, submap=1)
    archive.add(frames([0.0, 1.0], node))
    archive.add(frames([2.0], other, first=5))
    motion = Similarity(2.0, torch.eye(3), torch.tensor([0.0, 5.0, 0.0]))
    node.transform(motion)
    assert archive.frames[1].map_from_camera.equal(transform_pose(motion, frames([0.0, 1.0])[1].map_from_camera))
    assert archive.frames[1].unit == pytest.approx(2 * frames([0.0, 1.0])[1].unit)
    assert archive.frames[5].map_from_camera[0, 3] == 2
    assert archive.frames[1].map_from_camera[1, 3] == 5, "another window's correction is not its own"
    before = archive.frames[1]
    kept = Node(3, Similarity(4.0, torch.eye(3), torch.tensor([1.0, 0.0, 0.0])))
    archive.reanchor({7: kept})
    assert archive.frames[1].node is kept
    assert archive.frames[1].map_from_camera.allclose(before.map_from_camera), "it stays where it was"
    assert archive.frames[1].unit == pytest.approx(before.unit)
    kept.transform(Similarity(0.5))
    assert archive.frames[1].map_from_camera[1, 3] == pytest.approx(2.5)
    assert archive.frames[1].unit == pytest.approx(before.unit / 2)
    other.transform(Similarity(0.5))
    other.submap = 0
    assert {(frame.node.window, frame.submap) for frame in archive.frames.values()} == {(3, 0), (8, 0)}
    assert archive.frames[5].map_from_camera[0, 3] == 1
    assert [frame.keyframe for frame in archive.around(archive.frames[1], 2)] == [0, 1]


def test_an_archive_comes_back_from_its_tensors() -> None:
    archive, again = KeyframeArchive(10**9), KeyframeArchive(10**9)
    given = frames([0.0, 1.0, 2.0])
    archive.add([given[0], replace(given[1], full_intrinsics=None), given[2]])
    node = Node(7, Similarity(2.0, torch.eye(3), torch.ones(3)))
    again.restore({name: tensor.clone() for name, tensor in archive.tensors().items()}, {7: node})
    assert again.nbytes == archive.nbytes
    for key, frame in archive.frames.items():
        other = again.frames[key]
        assert (other.stamp, other.node, other.submap, other.unit) == (frame.stamp, node, 0, frame.unit)
        assert other.map_from_camera.allclose(frame.map_from_camera)
        assert other.image.equal(frame.image) and other.depth.equal(frame.depth)
        assert (other.full_intrinsics is None) == (frame.full_intrinsics is None)
    again.restore({}, {})
    assert len(again) == 3


def test_landmarks_are_counted_move_with_their_node_and_come_back() -> None:
    positions, names = torch.tensor([[0.5, 0, 2], [0, 0.5, 3]]), torch.ones(2, 128, dtype=torch.uint8)
    node = Node(7, Similarity(2.0, torch.eye(3), torch.ones(3)))
    plain = frames([0.0], node)[0]
    frame = replace(plain, landmarks=Landmarks(positions, names))
    assert frame.nbytes == plain.nbytes + 2 * (12 + 128)
    assert frame.sighting.landmarks.positions.equal(2 * positions), "in the unit of the submap"
    node.transform(Similarity(1.5))
    assert frame.sighting.landmarks.positions.allclose(3 * positions)
    archive, again = KeyframeArchive(10**9), KeyframeArchive(10**9)
    archive.add([frame, *frames([1.0], node, first=5)])
    archive.reanchor({7: Node(3, Similarity(6.0))})
    assert archive.frames[0].sighting.landmarks.positions.allclose(3 * positions), "it stays where it was"
    again.restore(archive.tensors(), {3: Node(3, Similarity(6.0))})
    assert again.frames[0].sighting.landmarks.positions.allclose(3 * positions)
    assert len(again.frames[5].landmarks) == 0 and again.nbytes == archive.nbytes


@pytest.mark.parametrize(
    ("name", "wrong", "says"),
    [
        ("landmarks", torch.tensor([[0.0, 0, -1], [0, 0, 1]]), "behind the camera"),
        ("landmarks", torch.tensor([[0.0, 0, 1]]), "should be"),
        ("landmarks", torch.full((2, 3), torch.nan), "must be"),
        ("landmark_counts", torch.tensor([1]), "its counts 1"),
        ("landmark_counts", torch.tensor([-1]), "must be"),
        ("landmark_descriptors", torch.ones(2, 64, dtype=torch.uint8), "should be"),
        ("landmark_descriptors", None, "is missing"),
    ],
)
def test_landmarks_that_make_no_sense_are_refused(name: str, wrong: torch.Tensor | None, says: str) -> None:
    archive, node = KeyframeArchive(10**9), Node(7)
    seen = Landmarks(torch.tensor([[0.5, 0, 2], [0, 0.5, 3]]), torch.ones(2, 128, dtype=torch.uint8))
    archive.add([replace(frames([0.0], node)[0], landmarks=seen)])
    tensors = archive.tensors()
    check_archive(tensors, {7: node})
    changed = {key: value for key, value in tensors.items() if key != name} | ({} if wrong is None else {name: wrong})
    with pytest.raises(ValueError, match=says):
        check_archive(changed, {7: node})


def test_pictures_of_another_size_replace_what_was_there(caplog: pytest.LogCaptureFixture) -> None:
    archive = KeyframeArchive(10**9)
    archive.add(frames([0.0, 1.0]))
    other = frames([5.0], first=8)[0]
    archive.add([replace(other, depth=other.depth[:-1], confidence=other.confidence[:-1])])
    assert list(archive.frames) == [8] and "image size changed" in caplog.text
