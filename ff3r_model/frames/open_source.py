"""Frames from files: videos, folders of images, RGB-D sequences and ROS bags, all behind one iterable."""

from __future__ import annotations

from pathlib import Path

from ff3r_model.frames.bag_files import is_bag
from ff3r_model.frames.image_folder import FolderSource
from ff3r_model.frames.rgbd import RgbdSource, is_rgbd
from ff3r_model.frames.source import FrameSource, SourceError
from ff3r_model.frames.video import VideoSource


def open_source(
    path: str | Path, topic: str | None = None, depth: str | None = None, odom_frame: str | None = None
) -> FrameSource:
    """The source behind a path: a video file, a folder of images, a rosbag2 folder, or an .mcap, .db3 or .bag file.

    Folders laid out as 7-Scenes or TUM RGB-D give depth and poses with their images.
    Of a bag, `topic` names the images (None: the topic with the most colour images), `depth` the topic of the depth
    images registered to them, and `odom_frame` the TF frame that is odometry's.
    Raises SourceError, which names what is wrong with the path.
    """
    path = Path(path).expanduser()
    if not path.exists():
        raise SourceError(f"{path} does not exist")
    if path.is_file() and path.stat().st_size == 0:
        raise SourceError(f"{path} is empty (0 bytes)")
    if is_bag(path):
        from ff3r_model.frames.rosbag import BagSource  # rosbags is only needed, and only loaded, for bags

        return BagSource(path, topic, depth, odom_frame)
    for value, what in ((topic, "topic"), (depth, "depth topic"), (odom_frame, "TF frame")):
        if value is not None:
            raise SourceError(f"{path} is no bag, so it has no {what} {value!r}")
    if is_rgbd(path):
        return RgbdSource(path)
    return FolderSource(path) if path.is_dir() else VideoSource(path)
