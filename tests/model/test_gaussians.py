"""From the network's numbers to Gaussians, against geometry written out; harmonics against 3DGS's polynomials; PLY."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from plyfile import PlyData
from scipy.spatial.transform import Rotation

from ff3r_model.gaussians import PlyError, decode_cameras, predict, read_ply, transform_gaussians, write_ply
from ff3r_model.geometry import apply_similarity, matrix_to_quaternion, project, quaternion_to_matrix, transform_points
from ff3r_model.harmonics import basis, rotate_harmonics
from ff3r_model.types import SH_C0, Gaussians, Similarity

VIEWS, HEIGHT, WIDTH, CHANNELS = 3, 6, 8, 5


@dataclass
class Raw:
    log_scale: torch.Tensor
    quaternion: torch.Tensor
    harmonics: torch.Tensor
    opacity_logit: torch.Tensor
    confidence_logit: torch.Tensor
    feature: torch.Tensor


@dataclass
class Output:
    pose_encodings: torch.Tensor
    depth: torch.Tensor
    depth_confidence: torch.Tensor
    gaussians: Raw | None
    lifted: torch.Tensor | None
    tokens: torch.Tensor


def encoding(seed: int = 0) -> torch.Tensor:
    rng = np.random.default_rng(seed)
    quaternions = Rotation.random(VIEWS, random_state=seed).as_quat() * rng.uniform(0.5, 2, (VIEWS, 1))
    fields_of_view = rng.uniform(0.5, 1.5, (VIEWS, 2))
    return torch.tensor(np.concatenate([rng.normal(size=(VIEWS, 3)), quaternions, fields_of_view], axis=1)).float()


def output(seed: int = 0, bands: int = 4, lifting: bool = False) -> Output:
    generator = torch.Generator().manual_seed(seed)

    def normal(channels: int) -> torch.Tensor:
        return torch.randn(1, VIEWS, channels, HEIGHT, WIDTH, generator=generator)

    raw = Raw(normal(3), normal(4), normal(3 * bands), normal(1), normal(1), normal(CHANNELS))
    wrong = torch.full((1, VIEWS, 9), math.nan)
    return Output(
        pose_encodings=torch.stack([wrong, encoding(seed)[None]]),
        depth=torch.rand(1, VIEWS, HEIGHT, WIDTH, generator=generator) + 1,
        depth_confidence=torch.rand(1, VIEWS, HEIGHT, WIDTH, generator=generator) + 1,
        gaussians=None if lifting else raw,
        lifted=torch.randn(1, VIEWS, CHANNELS, 3, 4, generator=generator) if lifting else None,
        tokens=torch.randn(1, VIEWS, 7, 12, generator=generator),
    )


def gaussians(count: int = 20, bands: int = 4, channels: int = 3) -> Gaussians:
    generator = torch.Generator().manual_seed(1)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    return Gaussians(
        normal(count, 3), normal(count, 3).exp(), torch.nn.functional.normalize(normal(count, 4), dim=1),
        normal(count, bands, 3), normal(count).sigmoid(), normal(count), normal(count, channels),
    )  # fmt: skip


def test_decoded_cameras_have_the_encoded_pose_and_field_of_view() -> None:
    encoded = encoding()
    cameras = decode_cameras(encoded, HEIGHT, WIDTH)
    expected = Rotation.from_quat(encoded[:, 3:7].numpy()).as_matrix()
    np.testing.assert_allclose(cameras.camera_from_world[:, :3, :3], expected, atol=1e-5)
    torch.testing.assert_close(cameras.camera_from_world[:, :3, 3], encoded[:, :3])
    # a ray at half the field of view meets the image's edge
    for view in range(VIEWS):
        vertical, horizontal = (encoded[view, 7:] / 2).tan().tolist()
        pixels, _ = project(torch.tensor([[horizontal, vertical, 1.0]]), cameras.intrinsics[view])
        assert pixels[0].tolist() == pytest.approx([WIDTH, HEIGHT], rel=1e-5)


def test_degenerate_fields_of_view_stay_finite() -> None:
    encoded = encoding()
    encoded[0, 7:], encoded[1, 7:] = 0.0, 10.0
    assert torch.isfinite(decode_cameras(encoded, HEIGHT, WIDTH).intrinsics).all()


def test_each_gaussian_projects_to_its_pixel_at_its_depth() -> None:
    prediction = predict(output())
    assert torch.equal(prediction.cameras.camera_from_world[0], torch.eye(4))
    for view in range(VIEWS):
        camera = transform_points(prediction.cameras.camera_from_world[view], prediction.points[view].flatten(0, 1))
        pixels, depth = project(camera, prediction.cameras.intrinsics[view])
        torch.testing.assert_close(depth, prediction.depth[view].flatten(), atol=1e-5, rtol=1e-5)
        columns, rows = np.meshgrid(np.arange(WIDTH) + 0.5, np.arange(HEIGHT) + 0.5)
        np.testing.assert_allclose(pixels, np.stack([columns, rows], -1).reshape(-1, 2), atol=2e-3)


def test_relative_poses_survive_the_change_of_frame() -> None:
    raw = decode_cameras(encoding(), HEIGHT, WIDTH).camera_from_world.double()
    anchored = predict(output()).cameras.camera_from_world.double()
    for view in range(1, VIEWS):
        torch.testing.assert_close(
            anchored[view] @ anchored[0].inverse(), raw[view] @ raw[0].inverse(), atol=1e-5, rtol=0
        )


def test_known_intrinsics_replace_the_predicted() -> None:
    known = torch.tensor([[7.0, 0, 4], [0, 7.5, 3], [0, 0, 1]]).expand(VIEWS, 3, 3)
    prediction = predict(output(), intrinsics=known)
    torch.testing.assert_close(prediction.cameras.intrinsics, known)
    corner = prediction.points[0, 0, 0] / prediction.depth[0, 0, 0]
    torch.testing.assert_close(corner, torch.tensor([(0.5 - 4) / 7, (0.5 - 3) / 7.5, 1.0]))


def test_activations() -> None:
    raw = output()
    prediction = predict(raw)
    found, parts = prediction.gaussians, raw.gaussians
    assert parts is not None
    row = (1 * HEIGHT + 2) * WIDTH + 3  # view 1, pixel (2, 3)
    at = (0, 1, slice(None), 2, 3)
    depth = raw.depth[0, 1, 2, 3]
    focal = prediction.cameras.intrinsics[1].diagonal()[:2].mean()
    torch.testing.assert_close(found.scales[row], parts.log_scale[at].exp().clamp(0.1, 10) * depth / focal)
    torch.testing.assert_close(found.harmonics[row].flatten(), parts.harmonics[at])
    torch.testing.assert_close(found.features[row], parts.feature[at])
    torch.testing.assert_close(found.opacities[row], parts.opacity_logit[at].sigmoid()[0])
    expected = parts.confidence_logit[at][0] + raw.depth_confidence[0, 1, 2, 3].log()
    torch.testing.assert_close(found.confidences[row], expected)
    in_camera = Rotation.from_quat(parts.quaternion[at][[1, 2, 3, 0]].numpy()).as_matrix()
    in_window = prediction.cameras.camera_from_world[1, :3, :3].T.numpy() @ in_camera
    np.testing.assert_allclose(quaternion_to_matrix(found.quaternions[row]), in_window, atol=1e-5)
    torch.testing.assert_close(found.quaternions.norm(dim=1), torch.ones(VIEWS * HEIGHT * WIDTH))
    assert (found.scales > 0).all()
    assert prediction.descriptors is not None
    torch.testing.assert_close(prediction.descriptors.norm(dim=1), torch.ones(VIEWS))


def test_half_precision_outputs_become_float32() -> None:
    raw = output()
    raw.depth, raw.tokens = raw.depth.bfloat16(), raw.tokens.bfloat16()
    prediction = predict(raw)
    assert prediction.depth.dtype == prediction.gaussians.means.dtype == torch.float32


def test_lifting_mode() -> None:
    images = torch.rand(VIEWS, 3, HEIGHT, WIDTH)
    raw = output(lifting=True)
    found = predict(raw, images=images).gaussians
    torch.testing.assert_close(found.colors, images.permute(0, 2, 3, 1).reshape(-1, 3), atol=1e-5, rtol=1e-5)
    assert raw.lifted is not None
    expected = torch.nn.functional.interpolate(raw.lifted[0], (HEIGHT, WIDTH), mode="bilinear")
    torch.testing.assert_close(found.features, expected.permute(0, 2, 3, 1).reshape(-1, CHANNELS))
    torch.testing.assert_close(predict(raw).gaussians.colors, torch.full_like(found.colors, 0.5))
    with pytest.raises(ValueError, match="neither"):
        predict(replace(raw, lifted=None))


def test_harmonics_are_those_of_3dgs() -> None:
    directions = torch.nn.functional.normalize(torch.randn(50, 3, dtype=torch.float64), dim=1)
    x, y, z = directions.unbind(1)
    expected = [
        SH_C0 + 0 * x,
        -0.4886025119029199 * y, 0.4886025119029199 * z, -0.4886025119029199 * x,
        1.0925484305920792 * x * y, -1.0925484305920792 * y * z, 0.31539156525252005 * (2 * z * z - x * x - y * y),
        -1.0925484305920792 * x * z, 0.5462742152960396 * (x * x - y * y),
        -0.5900435899266435 * y * (3 * x * x - y * y), 2.890611442640554 * x * y * z,
        -0.4570457994644658 * y * (4 * z * z - x * x - y * y),
        0.3731763325901154 * z * (2 * z * z - 3 * x * x - 3 * y * y),
        -0.4570457994644658 * x * (4 * z * z - x * x - y * y), 1.445305721320277 * z * (x * x - y * y),
        -0.5900435899266435 * x * (x * x - 3 * y * y),
    ]  # fmt: skip
    torch.testing.assert_close(basis(directions, 16), torch.stack(expected, dim=1))
    with pytest.raises(ValueError, match="5"):
        basis(directions, 5)


@pytest.mark.parametrize("bands", [1, 4, 9, 16, 25])
def test_turned_harmonics_look_the_same_from_turned_directions(bands: int) -> None:
    rotation = torch.tensor(Rotation.random(random_state=bands).as_matrix())
    directions = torch.nn.functional.normalize(torch.randn(30, 3, dtype=torch.float64), dim=1)
    coefficients = torch.randn(4, bands, 3, dtype=torch.float64)
    before = torch.einsum("db,nbc->ndc", basis(directions, bands), coefficients)
    turned = rotate_harmonics(rotation, coefficients)
    torch.testing.assert_close(torch.einsum("db,nbc->ndc", basis(directions @ rotation.T, bands), turned), before)


def test_transformed_gaussians_are_the_same_ellipsoids() -> None:
    rotation = torch.tensor(Rotation.random(random_state=3).as_matrix(), dtype=torch.float32)
    similarity = Similarity(2.5, rotation, torch.tensor([1.0, -2, 3]))
    before = gaussians()
    after = transform_gaussians(similarity, before)

    def covariances(these: Gaussians) -> torch.Tensor:
        axes = quaternion_to_matrix(these.quaternions) * these.scales[:, None, :]
        return axes @ axes.mT

    torch.testing.assert_close(
        covariances(after), 2.5**2 * rotation @ covariances(before) @ rotation.T, rtol=1e-3, atol=1e-3
    )
    torch.testing.assert_close(after.means, apply_similarity(similarity, before.means))
    torch.testing.assert_close(after.features, before.features)
    same = transform_gaussians(Similarity(), before)
    for field in fields(Gaussians):
        torch.testing.assert_close(getattr(same, field.name), getattr(before, field.name), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("bands", [1, 4, 16])
@pytest.mark.parametrize("channels", [0, 3])
def test_ply_round_trip(tmp_path: Path, bands: int, channels: int) -> None:
    before = gaussians(bands=bands, channels=channels)
    write_ply(tmp_path / "cloud.ply", before)
    after = read_ply(tmp_path / "cloud.ply")
    for field in fields(Gaussians):
        torch.testing.assert_close(getattr(after, field.name), getattr(before, field.name), atol=1e-5, rtol=1e-5)


def test_ply_has_the_layout_of_3dgs(tmp_path: Path) -> None:
    before = gaussians()
    write_ply(tmp_path / "cloud.ply", before)
    vertex = PlyData.read(str(tmp_path / "cloud.ply"))["vertex"].data
    assert vertex.dtype.names[:9] == ("x", "y", "z", "nx", "ny", "nz", "f_dc_0", "f_dc_1", "f_dc_2")
    np.testing.assert_allclose(vertex["opacity"], before.opacities.logit().numpy(), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(vertex["scale_1"], before.scales[:, 1].log().numpy(), rtol=1e-5)
    np.testing.assert_allclose(vertex["rot_0"], before.quaternions[:, 0])
    np.testing.assert_allclose(vertex["f_rest_3"], before.harmonics[:, 1, 1])  # green's first of three


def test_ply_of_opaque_and_of_no_gaussians(tmp_path: Path) -> None:
    opaque = replace(gaussians(2), opacities=torch.tensor([1.0, 0.0]))
    write_ply(tmp_path / "cloud.ply", opaque)
    torch.testing.assert_close(read_ply(tmp_path / "cloud.ply").opacities, opaque.opacities, atol=1e-5, rtol=0)
    write_ply(tmp_path / "none.ply", gaussians().select(torch.zeros(0, dtype=torch.long)))
    assert len(read_ply(tmp_path / "none.ply")) == 0


def test_foreign_ply(tmp_path: Path) -> None:
    path = tmp_path / "cloud.ply"
    path.write_text("ply\nformat ascii 1.0\nelement vertex 1\nproperty float x\nend_header\n1\n")
    with pytest.raises(PlyError, match=r"cloud\.ply"):
        read_ply(path)
    path.write_bytes(b"\x89PNG\r\n")
    with pytest.raises(PlyError, match=r"cloud\.ply"):
        read_ply(path)
    write_ply(path, gaussians())
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(PlyError, match="damaged"):
        read_ply(path)
    with pytest.raises(FileNotFoundError):
        read_ply(tmp_path / "missing.ply")


def test_quaternions_of_cameras_are_wxyz() -> None:
    turn = Rotation.from_euler("z", 90, degrees=True)
    found = matrix_to_quaternion(torch.tensor(turn.as_matrix()))
    np.testing.assert_allclose(found, turn.as_quat()[[3, 0, 1, 2]], atol=1e-12)
