"""ROS bag files: which paths are bags, and what to do with those that cannot be read. Needs no library for bags."""

from __future__ import annotations

import logging
from pathlib import Path

from ff3r_model.frames.cut_mcap import MAGIC as MCAP_MAGIC
from ff3r_model.frames.cut_mcap import is_closed
from ff3r_model.frames.read_image import IMAGE_SUFFIXES
from ff3r_model.frames.source import SourceError

log = logging.getLogger(__name__)

METADATA = "metadata.yaml"
MAGIC = {".mcap": MCAP_MAGIC, ".db3": b"SQLite format 3\0", ".bag": b"#ROSBAG"}
"""Suffixes of bags, and how such files begin."""
COMPRESSED = tuple(f"{suffix}.{packer}" for suffix in MAGIC for packer in ("zstd", "zst"))


def is_bag(path: Path) -> bool:
    """Whether a path is a ROS bag: a recording by its suffix, a folder with one in it, or rosbag2's metadata.yaml.

    Of a bag's folder that holds images as well, a warning says that these are not read.
    """
    if not path.is_dir():
        return _is_recording(path) or _is_metadata(path)
    names = [file.name for file in recordings(path)] or [METADATA] * _is_metadata(path / METADATA)
    images = sum(file.suffix.lower() in IMAGE_SUFFIXES for file in path.iterdir())
    if names and images:
        log.warning("%s holds %d images beside %s: the bag is read, not the images", path, images, names[0])
    return bool(names)


def bag_to_open(path: Path) -> Path:
    """What a bag reader shall open for the path: a folder with rosbag2's metadata.yaml, or a recording.

    Raises SourceError for a file that does not begin as a bag does, a compressed one, and a folder of several
    recordings without metadata.yaml.
    """
    if path.name == METADATA:
        path = path.parent
    if not path.is_dir():
        return _checked(path)
    return path if _is_metadata(path / METADATA) else _only_recording(path)


def recordings(folder: Path) -> list[Path]:
    """The recordings in a folder, compressed ones too, by name."""
    return sorted(file for file in folder.iterdir() if _is_recording(file))


def repair(path: Path, reason: str) -> str:
    """How to mend a bag that cannot be read for a reason, in words; empty where nothing is known to help."""
    if path.is_dir():
        hints = (repair(file, reason) for file in recordings(path))
        return next(filter(None, hints), f"`ros2 bag reindex {path}` writes its {METADATA} anew")
    if path.suffix == ".mcap" and not is_closed(path):
        return f"the recording was not closed: `mcap recover {path} -o recovered.mcap`"
    if path.suffix == ".db3" and any(words in reason for words in ("malformed", "disk I/O error")):
        return f"the database is damaged: `sqlite3 {path} .recover | sqlite3 recovered.db3`"
    if path.suffix == ".bag" and "index" in reason:
        return f"the recording was not closed: `rosbag reindex {path}`"
    return ""


def _only_recording(folder: Path) -> Path:
    """The one recording of a folder without rosbag2's metadata.yaml. Raises SourceError for none and for many."""
    files = recordings(folder)
    if len(files) == 1:
        return _checked(files[0])
    if not files:
        raise SourceError(f"{folder} holds no recording ({', '.join(MAGIC)})")
    way_out = (
        "name one" if any(file.suffix == ".bag" for file in files) else f"`ros2 bag reindex {folder}`, or name one"
    )
    raise SourceError(f"{folder} has no {METADATA} of rosbag2 and {len(files)} recordings: {way_out}, e.g. {files[0]}")


def _checked(file: Path) -> Path:
    """The recording. Raises SourceError for one that cannot be a bag."""
    if file.name.endswith(COMPRESSED):
        if _is_metadata(file.parent / METADATA):
            raise SourceError(f"{file} is compressed: give its folder, {file.parent}")
        raise SourceError(f"{file} is compressed and no {METADATA} is beside it: decompress it (`zstd -d {file}`)")
    if file.suffix not in MAGIC:
        raise SourceError(f"{file}: rename it, bags are read by a suffix in lower case ({', '.join(MAGIC)})")
    magic = MAGIC[file.suffix]
    with file.open("rb") as stream:
        start = stream.read(len(magic))
    if start != magic:
        raise SourceError(f"{file} is no bag: {file.suffix} files begin with {magic!r}, this one with {start!r}")
    return file


def _is_recording(file: Path) -> bool:
    return file.suffix.lower() in MAGIC or file.name.endswith(COMPRESSED)


def _is_metadata(file: Path) -> bool:
    """Whether a file is the metadata.yaml of rosbag2; photos have such files, too."""
    if file.name != METADATA or not file.is_file():
        return False
    with file.open("rb") as stream:
        return b"rosbag2_bagfile_information" in stream.read(4096)
