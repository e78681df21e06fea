"""Image messages → RGB tensors, through cv_bridge where a native ROS has it."""

from __future__ import annotations

import importlib.util

import numpy as np
from numpy.typing import NDArray
from sensor_msgs.msg import CompressedImage, Image

from ff3r_model.frames import image_messages
from ff3r_model.frames.image_messages import Decoder, ImageTensor, decode_with_rosbags


def decode(message: Image | CompressedImage) -> ImageTensor:
    """The RGB picture of a raw or a compressed image message; raises ImageRejected as `image_messages` does."""
    if isinstance(message, Image):
        return image_messages.decode_image(message, default_decoder())
    return image_messages.decode_compressed(message)


def default_decoder() -> Decoder:
    """cv_bridge where it is installed, rosbags-image elsewhere."""
    return decode_with_cv_bridge if importlib.util.find_spec("cv_bridge") else decode_with_rosbags


def decode_with_cv_bridge(message: Image) -> NDArray[np.uint8]:
    """RGB through the native ROS's cv_bridge."""
    from cv_bridge import CvBridge

    array: NDArray[np.uint8] = CvBridge().imgmsg_to_cv2(message, "rgb8")
    return array
