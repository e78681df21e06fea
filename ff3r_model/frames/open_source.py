"""Frames from files: videos, folders of images, RGB-D sequences and ROS bags, all behind one iterable."""

from __future__ import annotations

import logging
import os
import re
from pathlib import Path

from ff3r_model.frames.bag_files import is_bag
from ff3r_model.frames.folder_hints import images_inside
from ff3r_model.frames.image_folder import FolderSource
from ff3r_model.frames.intrinsics import StatedCamera, StatedSource
from ff3r_model.frames.pictures import TO_CONVERT
from ff3r_model.frames.read_image import IMAGE_SUFFIXES
from ff3r_model.frames.rgbd import RgbdSource, is_rgbd, tum_images
from ff3r_model.frames.source import FrameSource, SourceError
from ff3r_model.frames.video import VideoSource

log = logging.getLogger(__name__)

_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):(/+)(.*)")


def open_source(
    path: str | Path,
    topic: str | None = None,
    depth: str | None = None,
    odom_frame: str | None = None,
    depth_unit: float | None = None,
    camera: StatedCamera | None = None,
) -> FrameSource:
    """The source behind a path: a video file, a folder of images, a rosbag2 folder, or an .mcap, .db3 or .bag file.

    Folders laid out as 7-Scenes or TUM RGB-D give depth and poses with their images; `depth_unit` says how many metres
    one step of their depth images is, where it is not what the layout has. Of a bag, `topic` names the images (None:
    the topic with the most colour images), `depth` the topic of the depth images registered to them, and `odom_frame`
    the TF frame that is odometry's. `camera` (`stated_camera`) takes the place of what a recording says of its camera.
    Raises SourceError, which names what is wrong with the path.
    """
    _refuse_streams(str(path))
    path = Path(path).expanduser()
    _check_readable(path)
    source = _recording(path, topic, depth, odom_frame, depth_unit)
    return source if camera is None else StatedSource(source, camera)


def _recording(
    path: Path, topic: str | None, depth: str | None, odom_frame: str | None, depth_unit: float | None
) -> FrameSource:
    if is_bag(path):
        from ff3r_model.frames.rosbag import BagSource  # rosbags is only needed, and only loaded, for bags

        _refuse_option(path, depth_unit, "depth unit")
        return BagSource(path, topic, depth, odom_frame)
    for value, what in ((topic, "topic"), (depth, "depth topic"), (odom_frame, "TF frame")):
        if value is not None:
            raise SourceError(f"{path} is no bag, so it has no {what} {value!r}")
    if is_rgbd(path):
        return RgbdSource(path, depth_unit)
    _refuse_option(path, depth_unit, "depth unit")
    return _folder(path) if path.is_dir() else _video(path)


def _folder(path: Path) -> FrameSource:
    images_of_list = tum_images(path)
    if images_of_list is not None:
        return images_of_list
    known = images_inside(path)
    if known is None:
        return FolderSource(path)
    layout, images = known
    log.warning("%s is laid out as %s: the images in %s are read, and nothing else", path, layout.name, layout.images)
    return FolderSource(images)


def _video(path: Path) -> VideoSource:
    if path.suffix.lower() in (IMAGE_SUFFIXES | TO_CONVERT) - {".gif"}:
        raise SourceError(f"{path} is one image; a map needs several: give the folder {path.parent}")
    return VideoSource(path)


def _refuse_option(path: Path, value: object, what: str) -> None:
    if value is not None:
        raise SourceError(f"{path} is no RGB-D folder, so it has no {what} {value!r}")


def _refuse_streams(given: str) -> None:
    """Raise SourceError for what is no file: addresses and cameras."""
    url = _URL.fullmatch(given)
    if url is not None and not Path(given).exists():
        scheme, slashes, rest = url.groups()
        shown = f"{scheme}:{slashes if len(slashes) > 1 else '//'}{rest}"  # a Path has lost a slash
        advice = f"give the path, /{rest.lstrip('/')}" if scheme == "file" else "save the recording to a file before"
        raise SourceError(f"{shown}: URLs are not read; {advice}")
    if given.startswith("/dev/") or given == "-" or (given.isdigit() and not Path(given).exists()):
        raise SourceError(
            f"{given}: cameras and pipes are not read; record a file before, or let the ROS node read a topic"
        )


def _check_readable(path: Path) -> None:
    try:
        missing = not path.exists()
    except OSError as error:
        raise SourceError(f"{path} cannot be read: {error.strerror}") from error
    if missing:
        raise SourceError(f"{path} {'is a broken link' if path.is_symlink() else 'does not exist'}")
    if not (path.is_file() or path.is_dir()):
        raise SourceError(f"{path} is neither a file nor a folder")
    if not os.access(path, os.R_OK | (os.X_OK if path.is_dir() else 0)):
        raise SourceError(f"{path} cannot be read: permission denied")
    if path.is_file() and path.stat().st_size == 0:
        raise SourceError(f"{path} is empty (0 bytes)")
