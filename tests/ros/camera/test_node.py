"""The demo's camera over DDS: images, calibration and truth that fit each other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from geometry_msgs.msg import PoseStamped
from rclpy.qos import QoSProfile, ReliabilityPolicy
from scipy.spatial.transform import Rotation
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from ff3r_model.core.types import Frame
from ff3r_model.frames.calibration import calibration_from_info
from ff3r_model.frames.image_messages import decode_compressed, decode_image
from ff3r_model.frames.source import SourceError
from ff3r_model.synthetic import render
from ff3r_ros.camera.node import CameraNode
from ff3r_ros.camera.playback import CameraParameters, reduced, tour
from tests.support.ros import wait_until

BEST_EFFORT = QoSProfile(depth=100, reliability=ReliabilityPolicy.BEST_EFFORT)
SMALL = {"width": 64, "height": 48, "rate": 20.0}


def test_synthetic_images_calibration_and_truth_agree(ros: Any) -> None:
    images = ros.collect(Image, "image", BEST_EFFORT)
    infos = ros.collect(CameraInfo, "camera_info", BEST_EFFORT)
    truths = ros.collect(PoseStamped, "camera/ground_truth/pose", 100)
    ros.run(CameraNode(**ros.options(**SMALL, seed=5)))
    wait_until(lambda: len(truths) > 3 and len(images) > 3 and len(infos) > 3, "images and poses")
    image = images[-1]
    truth = wait_until(lambda: [t for t in truths if t.header.stamp == image.header.stamp], "the image's pose")[0]
    calibration = calibration_from_info(infos[0])
    assert calibration is not None and image.header.frame_id == "camera_optical"
    p, q = truth.pose.position, truth.pose.orientation
    pose = torch.eye(4)
    pose[:3, :3] = torch.from_numpy(Rotation.from_quat([q.x, q.y, q.z, q.w]).as_matrix())
    pose[:3, 3] = torch.tensor([p.x, p.y, p.z])
    room, poses = tour(CameraParameters(seed=5))
    again = render(room, pose[None], calibration.intrinsics[None], 48, 64).images[0]
    difference = (decode_image(image).int() - again.int()).abs().float()
    assert difference.mean() < 1.0
    assert (poses[:, :3, 3] - pose[:3, 3]).norm(dim=1).min() < 1e-4


def test_compressed_beside_raw(ros: Any) -> None:
    raw = ros.collect(Image, "image", BEST_EFFORT)
    jpegs = ros.collect(CompressedImage, "image/compressed", BEST_EFFORT)
    ros.run(CameraNode(**ros.options(**SMALL, image_transport="both", reliable=True)))
    wait_until(lambda: len(raw) > 1 and len(jpegs) > 1, "both kinds of images")
    stamps = {str(message.header.stamp): message for message in raw}
    pairs = [(stamps[str(jpeg.header.stamp)], jpeg) for jpeg in jpegs if str(jpeg.header.stamp) in stamps]
    difference = decode_image(pairs[0][0]).int() - decode_compressed(pairs[0][1]).int()
    assert difference.abs().float().mean() < 8


def test_a_folder_ends_without_loop(ros: Any, tmp_path: Path) -> None:
    for index in range(3):
        cv2.imwrite(str(tmp_path / f"{index}.png"), np.full((40, 80, 3), 50 * index, np.uint8))
    images = ros.collect(Image, "image", QoSProfile(depth=100))
    infos = ros.collect(CameraInfo, "camera_info", QoSProfile(depth=100))
    options = ros.options(source=str(tmp_path), width=40, rate=5.0, loop=False, reliable=True)
    node = CameraNode(**options)
    wait_until(lambda: node.count_subscribers("image") and node.count_subscribers("camera_info"), "the probe")
    ros.run(node)
    wait_until(lambda: len(images) == 3 and node._timer.is_canceled(), "three images and the end")
    assert [(image.height, image.width, image.data[0]) for image in images] == [(20, 40, v) for v in (0, 50, 100)]
    assert not infos[0].k.any()


@pytest.mark.parametrize("content", [None, b"", b"not a video"])
def test_unplayable_sources(ros: Any, tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "video.mp4"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SourceError, match=r"video\.mp4"):
        CameraNode(**ros.options(source=str(path)))


def test_reduced_frames_keep_their_geometry() -> None:
    intrinsics = torch.tensor([[300.0, 0, 200], [0, 300, 100], [0, 0, 1]])
    frame = reduced(Frame(torch.zeros(200, 400, 3, dtype=torch.uint8), 0, intrinsics), 100)
    assert frame.image.shape == (50, 100, 3) and frame.intrinsics is not None
    assert torch.allclose(frame.intrinsics, torch.tensor([[75.0, 0, 50], [0, 75, 25], [0, 0, 1]]))
