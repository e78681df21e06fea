"""Why a file does not open as a video, and what to do about it."""

from __future__ import annotations

from pathlib import Path

from ff3r_model.frames.source import SourceError

ARCHIVES = {b"PK\x03\x04": "zip", b"\x1f\x8b": "gzip", b"7z\xbc\xaf": "7z", b"BZh": "bzip2", b"\xfd7zXZ": "xz"}
ARCHIVES |= {b"\x28\xb5\x2f\xfd": "zstd", b"Rar!": "rar"}
"""First bytes of archives."""


def no_video(path: Path, reason: str = "") -> SourceError:
    """The error for a file that FFmpeg does not read, or that is no video for a reason that is known."""
    with path.open("rb") as file:
        start = file.read(16)
    kind = next((name for magic, name in ARCHIVES.items() if start.startswith(magic)), None)
    size = f"({path.stat().st_size} bytes)"
    if reason:
        return SourceError(f"{path} is no video: {reason}")
    if kind is not None:
        return SourceError(f"{path} is an archive ({kind}): unpack it and give what is in it")
    if start[4:8] == b"ftyp" and not _has_index(path):
        return SourceError(
            f"{path} does not open as a video {size}: its index (moov) is missing, the recording was not finished; "
            "repair it with a tool such as untrunc, or record it again"
        )
    return SourceError(
        f"{path} does not open as a video {size}; supported: what FFmpeg decodes (mp4, avi, mkv, mov, webm …), "
        "folders of images, rosbag2, .mcap"
    )


def _has_index(path: Path) -> bool:
    """Whether an MP4 file has a moov box, by its boxes' sizes."""
    with path.open("rb") as file:
        while len(head := file.read(8)) == 8:
            size, kind = int.from_bytes(head[:4], "big"), head[4:]
            if kind == b"moov":
                return True
            if size == 1:
                size = int.from_bytes(file.read(8), "big") - 8
            if size < 8:
                return False
            file.seek(size - 8, 1)
    return False
