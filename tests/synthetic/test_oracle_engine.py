"""Oracle windows: exact where they promise it, as wrong as they promise otherwise, and deceived where a network is."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from ff3r_model.core.geometry import invert_rigid, transform_points
from ff3r_model.core.overlap import overlaps
from ff3r_model.core.types import Cameras
from ff3r_model.synthetic import make_room, make_trajectory
from ff3r_model.synthetic.hall import hall_tour, make_hall
from ff3r_model.synthetic.oracle_engine import OracleEngine, OracleNoise, connected, fill_holes, rotations
from ff3r_model.synthetic.sequences import Sequence, room_sequence


@pytest.fixture(scope="module")
def sequence() -> Sequence:
    room = make_room(3)
    return room_sequence(room, make_trajectory(room, 0, 60, "robot", 0.12), width=28)


@pytest.fixture(scope="module")
def hall() -> Sequence:
    return room_sequence(make_hall(0, 60.0), hall_tour(60.0, 0.5), width=28)


def test_without_noise_it_tells_the_truth_in_a_gauge_of_its_own(sequence: Sequence) -> None:
    engine = OracleEngine(sequence)
    scales = []
    for window in sequence.windows():
        prediction = engine(window)
        index = list(window.keyframes)
        ratio = prediction.depth / sequence.depth[index]
        scale = float(ratio.median())
        torch.testing.assert_close(ratio, torch.full_like(ratio, scale), rtol=1e-5, atol=0)
        assert torch.equal(prediction.cameras.camera_from_world[0], torch.eye(4))
        world_from_window = sequence.world_from_camera[index[0]]
        points = transform_points(world_from_window, prediction.gaussians.means / scale)
        expected = transform_points(sequence.world_from_camera[index], _camera_points(sequence, index))
        torch.testing.assert_close(points, expected.flatten(0, 1), rtol=0, atol=1e-4)
        scales.append(scale)
    assert 0.5 <= min(scales) < 0.8
    assert 1.2 < max(scales) <= 2.0


def _camera_points(sequence: Sequence, index: list[int]) -> torch.Tensor:
    """Points of every pixel by the pinhole formula written out."""
    n, h, w = sequence.depth[index].shape
    v, u = np.mgrid[0:h, 0:w] + 0.5
    k = sequence.intrinsics.numpy()
    z = sequence.depth[index].numpy()
    points = np.stack([(u - k[0, 2]) / k[0, 0] * z, (v - k[1, 2]) / k[1, 1] * z, z], axis=-1)
    return torch.from_numpy(points.reshape(n, h * w, 3)).float()


def test_the_noise_is_as_large_as_it_says(sequence: Sequence) -> None:
    grain, bias, wild, angles, places = [], [], [], [], []
    for seed in range(6):
        window = sequence.window(list(range(8 * seed, 8 * seed + 8)))
        index = list(window.keyframes)
        only = {
            "grain": OracleNoise(depth=0.03), "bias": OracleNoise(bias=0.05), "wild": OracleNoise(outliers=0.05),
            "pose": OracleNoise(degrees=1.0),
        }  # fmt: skip
        said = {name: OracleEngine(sequence, noise, seed)(window) for name, noise in only.items()}
        exact = OracleEngine(sequence, seed=seed)(window)
        grain.append((said["grain"].depth / exact.depth - 1).flatten())
        bias.append((said["bias"].depth / exact.depth - 1).flatten())
        wild.append(float(((said["wild"].depth / exact.depth - 1).abs() > 1e-4).float().mean()))
        truth = invert_rigid(exact.cameras.camera_from_world)
        noisy = invert_rigid(said["pose"].cameras.camera_from_world)
        turns = Rotation.from_matrix((truth[1:, :3, :3].mT @ noisy[1:, :3, :3]).double().numpy())
        angles.append(np.degrees(turns.magnitude()))
        shift = (noisy[1:, :3, 3].norm(dim=1) / truth[1:, :3, 3].norm(dim=1)).log()
        places.append(shift)
        assert len(index) == 8
    assert float(torch.cat(grain).std()) == pytest.approx(0.03, rel=0.05)
    assert float(torch.cat(bias).std()) == pytest.approx(0.05, rel=0.1)
    assert np.mean(wild) == pytest.approx(0.05, rel=0.15)
    # relative to the first camera, which is off by one degree too: √2 together
    assert np.sqrt(np.square(angles).mean()) == pytest.approx(math.sqrt(2), rel=0.25)
    assert float(torch.cat(places).std()) == pytest.approx(math.tan(math.radians(1) / math.sqrt(3)), rel=0.4)


def test_shared_frames_are_wrong_in_another_way_in_every_window(sequence: Sequence) -> None:
    engine = OracleEngine(sequence, OracleNoise.realistic())
    first, second = (engine(sequence.window(list(range(start, start + 8)))) for start in (0, 4))
    errors = [
        (prediction.depth[views] / sequence.depth[4:8]).log()
        for prediction, views in ((first, slice(4, 8)), (second, slice(0, 4)))
    ]
    a, b = (error.flatten() - error.median() for error in errors)
    assert abs(float(torch.corrcoef(torch.stack([a, b]))[0, 1])) < 0.2
    again = engine(sequence.window(list(range(8))))
    assert torch.equal(again.depth, first.depth)


def test_descriptors_know_places_and_lie_at_times(hall: Sequence) -> None:
    noise = OracleNoise(descriptors=0.3)
    found = torch.cat([OracleEngine(hall, noise)(window).descriptors for window in hall.windows(8, 1)])  # type: ignore[misc]
    assert torch.allclose(found.norm(dim=1), torch.ones(len(found)), atol=1e-5)
    likeness = found @ found.T
    places = torch.cat([hall.world_from_camera[list(window.keyframes)] for window in hall.windows(8, 1)])[:, :3, 3]
    distance = torch.cdist(places, places)
    near = (distance < 0.3) & ~torch.eye(len(places), dtype=torch.bool)
    assert float(likeness[near].mean()) > 0.7
    assert float(likeness[distance > 5].mean().abs()) < 0.1
    assert float(likeness[distance > 5].max()) < 0.6
    lying = OracleEngine(hall, OracleNoise(false_matches=0.2))
    said = torch.cat([lying(window).descriptors for window in hall.windows(8, 1)])  # type: ignore[misc]
    wrong = ((said @ said.T > 0.9) & (distance > 5)).any(dim=1)
    assert 0.1 < float(wrong.float().mean()) < 0.5


def test_two_scenes_in_one_window_are_glued_together_wrongly(hall: Sequence) -> None:
    apart = [0, 1, 2, 3, 60, 61, 62, 63]
    prediction = OracleEngine(hall)(hall.window(apart))
    truth = invert_rigid(hall.world_from_camera[:1]) @ hall.world_from_camera[apart]
    scale = float((prediction.depth[:4] / hall.depth[:4]).median())
    centres = invert_rigid(prediction.cameras.camera_from_world)[:, :3, 3] / scale
    torch.testing.assert_close(centres[:4], truth[:4, :3, 3], rtol=0, atol=1e-4)
    assert float(truth[4:, :3, 3].norm(dim=1).min()) > 5
    assert float(centres[4:].norm(dim=1).max()) < 5
    inside, agreeing = overlaps(prediction.depth, prediction.cameras)
    within, across = agreeing[0, 1:4], agreeing[3, 4:][inside[3, 4:] > 0.2]
    assert float(within.min()) > 0.6
    assert float(across.max()) < 0.6


def test_overlap_of_cameras_before_a_wall() -> None:
    """A camera that steps sideways by half of what it sees, and one that looks the other way."""
    intrinsics = torch.tensor([[24.0, 0, 24], [0, 24, 24], [0, 0, 1]]).expand(3, 3, 3)
    poses = torch.eye(4).repeat(3, 1, 1)
    poses[1, 0, 3] = 2.0  # the wall is 2 m away and 4 m of it are seen
    poses[2, :3, :3] = torch.diag(torch.tensor([-1.0, 1.0, -1.0]))
    depth = torch.full((3, 48, 48), 2.0)
    inside, agreeing = overlaps(depth, Cameras(invert_rigid(poses), intrinsics))
    assert float(inside[0, 1]) == pytest.approx(0.5, abs=0.03)
    assert float(agreeing[0, 1]) == 1.0
    assert float(inside[0, 2]) == float(inside[2, 1]) == 0.0
    depth[1] = 3.0
    assert float(overlaps(depth, Cameras(invert_rigid(poses), intrinsics))[1][0, 1]) == 0.0


def test_connected_groups() -> None:
    links = torch.zeros(5, 5, dtype=torch.bool)
    links[3, 0] = links[1, 4] = True
    assert connected(links) == [[0, 3], [1, 4], [2]]


def test_holes_take_the_nearest_depth() -> None:
    depth = torch.zeros(4, 9)
    depth[:, 0], depth[:, 8] = 1.0, 2.0
    filled = fill_holes(depth)
    assert filled[0].tolist() == [1, 1, 1, 1, filled[0, 4].item(), 2, 2, 2, 2]
    assert torch.equal(fill_holes(torch.zeros(3, 3)), torch.ones(3, 3))


def test_rotations_are_those_of_scipy() -> None:
    vectors = np.random.default_rng(0).normal(size=(5, 3))
    expected = Rotation.from_rotvec(vectors).as_matrix()
    np.testing.assert_allclose(rotations(torch.tensor(vectors).float()), expected, atol=1e-6)


def test_the_hall_is_a_ring_that_a_camera_fits_through() -> None:
    hall, tour = make_hall(1, 100.0), hall_tour(100.0, 0.25)
    steps = tour[:, :3, 3].diff(dim=0).norm(dim=1)
    assert float(steps.sum()) == pytest.approx(106, abs=1)
    assert float(hall.solid_distance(tour[:, :3, 3]).min()) > 0.5
    assert len(hall.instances) > 100
    revisited = torch.cdist(tour[-20:, :3, 3], tour[:40, :3, 3]).amin(dim=1)
    assert float(revisited.max()) < 0.2
    with pytest.raises(ValueError, match="corridor"):
        make_hall(0, 10.0)
