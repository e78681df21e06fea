"""Known cameras: encodings against matrices, the published normalisation by hand, scale against evo."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from evo.core import geometry as evo_geometry
from torch import Tensor

from benchmarks.network.standin import tiny_da3
from ff3r_model.core.geometry import invert_rigid, quaternion_to_matrix, rigid
from ff3r_model.core.types import Cameras, Window
from ff3r_model.engine.torch_engine import TorchConfig, TorchEngine
from ff3r_model.network import FF3R
from ff3r_model.network.decode import decode_cameras
from ff3r_model.network.known_cameras import encode_known, normalised, scale_from_known
from ff3r_model.network.pose_encoding import encode_cameras, invert_encoding

REFERENCE = Path(__file__).parents[1] / "reference" / "da3_small_poses_2x56x84.npz"
SIZE = (56, 84)


def poses(count: int, seed: int = 0, spread: float = 1.0) -> Tensor:
    """Random rigid world_from_camera."""
    generator = torch.Generator().manual_seed(seed)
    turn = quaternion_to_matrix(torch.randn(count, 4, generator=generator, dtype=torch.float64))
    return rigid(turn, spread * torch.randn(count, 3, generator=generator, dtype=torch.float64))


def intrinsics(count: int) -> Tensor:
    matrix = torch.tensor([[70.0, 0, 42], [0, 60, 28], [0, 0, 1]])
    return matrix.repeat(count, 1, 1)


def test_inverted_encodings_are_inverted_matrices() -> None:
    world_from_camera = poses(20)
    encoding = encode_cameras(world_from_camera, intrinsics(20).double(), *SIZE)
    encoding[:, 3:7] *= torch.linspace(0.1, 3, 20)[:, None]  # of any norm
    inverted = decode_cameras(invert_encoding(encoding), *SIZE)
    torch.testing.assert_close(inverted.camera_from_world, torch.linalg.inv(world_from_camera))
    torch.testing.assert_close(inverted.intrinsics, intrinsics(20).double())
    torch.testing.assert_close(invert_encoding(invert_encoding(encoding)), encoding)


def test_normalisation_is_the_published_one() -> None:
    with np.load(REFERENCE) as file:
        given, expected = (torch.from_numpy(file[name][0]) for name in ("extrinsics_given", "extrinsics_in"))
    torch.testing.assert_close(normalised(given), expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("count", [2, 3, 6, 7])
def test_normalisation_by_hand(count: int) -> None:
    world_from_camera = poses(count, seed=count)
    got = normalised(torch.linalg.inv(world_from_camera))
    centres = [np.linalg.inv(world_from_camera[0].numpy()) @ pose.numpy()[:, 3] for pose in world_from_camera]
    distances = sorted(float(np.linalg.norm(centre[:3])) for centre in centres)
    middle = max(0.1, distances[(count - 1) // 2])
    for index, centre in enumerate(centres):
        np.testing.assert_allclose(torch.linalg.inv(got[index])[:3, 3].numpy(), centre[:3] / middle, atol=1e-9)
    torch.testing.assert_close(got[0], torch.eye(4, dtype=torch.float64))


@pytest.mark.parametrize("count", [3, 6])
def test_scale_is_evos(count: int) -> None:
    known, predicted = poses(count, 1), poses(count, 2)
    found = scale_from_known(torch.linalg.inv(predicted), torch.linalg.inv(known))
    expected = evo_geometry.umeyama_alignment(known[:, :3, 3].numpy().T, predicted[:, :3, 3].numpy().T, with_scale=True)
    assert found == pytest.approx(expected[2], rel=1e-9)


@pytest.mark.parametrize("count", [2, 5, 12, 40])
def test_scale_survives_straight_lines_and_outliers(count: int) -> None:
    known = poses(count, 3)
    known[:, 1:3, 3] = 0  # a robot that drives straight on, of which evo knows no similarity
    predicted = known.clone()
    predicted[:, :3, 3] = 2.5 * known[:, :3, 3] + torch.tensor([1.0, 2, 3])
    if count > 10:
        predicted[: count // 4, :3, 3] += 30 * torch.randn(count // 4, 3, generator=torch.Generator().manual_seed(1))
    assert scale_from_known(torch.linalg.inv(predicted), torch.linalg.inv(known)) == pytest.approx(2.5, rel=1e-6)


def test_cameras_on_one_spot_have_no_scale() -> None:
    known, predicted = poses(4, 5), poses(4, 6)
    predicted[:, :3, 3] = 1.0
    assert scale_from_known(torch.linalg.inv(predicted), torch.linalg.inv(known)) < 1e-9


@pytest.fixture(scope="module")
def network() -> FF3R:
    torch.manual_seed(0)
    network = FF3R(tiny_da3()).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return network


def window(count: int = 3, spread: float = 1.0) -> Window:
    images = torch.rand(count, 3, *SIZE, generator=torch.Generator().manual_seed(count))
    stamps = tuple(range(count))
    odometry = poses(count, 7, spread).float()
    return Window(images, stamps, stamps, intrinsics=intrinsics(count), odom_from_camera=odometry)


def test_predictions_lie_where_odometry_says(network: FF3R) -> None:
    given = window()
    told, untold = TorchEngine(network)(given), TorchEngine(network, TorchConfig(known_cameras=False))(given)
    world_from_camera = given.odom_from_camera
    expected = invert_rigid(world_from_camera) @ world_from_camera[:1]
    torch.testing.assert_close(told.cameras.camera_from_world, expected, atol=1e-5, rtol=1e-5)
    assert (untold.cameras.camera_from_world - expected).abs().max() > 0.1
    # What the network was told changes what it sees, and its depth is in odometry's unit
    with torch.inference_mode():
        cameras = Cameras(invert_rigid(world_from_camera), given.intrinsics)
        frames = network.encode_frames(given.images[None])
        output = network.decode_window(given.images[None], frames, known=encode_known(cameras, *SIZE)[None])
    predicted = decode_cameras(output.pose_encodings[-1, 0], *SIZE).camera_from_world
    scale = scale_from_known(predicted, cameras.camera_from_world)
    torch.testing.assert_close(told.depth, output.depth[0] / scale)
    assert (output.depth[0] - untold.depth).abs().max() > 1e-3
    torch.testing.assert_close(told.points[0, ..., 2], told.depth[0])


@pytest.mark.parametrize("lack", ["odometry", "one frame's", "intrinsics", "motion", "a rotation"])
def test_what_is_not_known_is_not_told(network: FF3R, lack: str) -> None:
    given = window(spread=0.01 if lack == "motion" else 1.0)
    odometry = given.odom_from_camera.clone()
    if lack == "odometry":
        given = replace(given, odom_from_camera=None)
    if lack == "one frame's":
        odometry[1] = torch.nan
        given = replace(given, odom_from_camera=odometry)
    if lack == "intrinsics":
        given = replace(given, intrinsics=None)
    if lack == "a rotation":
        odometry[1, :3, :3] = 0
        given = replace(given, odom_from_camera=odometry)
    got, untold = TorchEngine(network)(given), TorchEngine(network, TorchConfig(known_cameras=False))(given)
    assert torch.equal(got.depth, untold.depth)
    assert torch.equal(got.cameras.camera_from_world, untold.cameras.camera_from_world)
