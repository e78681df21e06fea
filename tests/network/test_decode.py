"""From the network's numbers to cameras and Gaussians, against geometry written out."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from ff3r_model.core.geometry import (
    matrix_to_quaternion,
    project,
    quaternion_to_matrix,
    transform_points,
)
from ff3r_model.network.decode import decode_cameras, predict
from tests.support.network_output import CHANNELS, HEIGHT, VIEWS, WIDTH, encoding, output


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
    prediction = predict(replace(raw, depth=raw.depth.bfloat16(), tokens=raw.tokens.bfloat16()))
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


def test_quaternions_of_cameras_are_wxyz() -> None:
    turn = Rotation.from_euler("z", 90, degrees=True)
    found = matrix_to_quaternion(torch.tensor(turn.as_matrix()))
    np.testing.assert_allclose(found, turn.as_quat()[[3, 0, 1, 2]], atol=1e-12)
