"""Where the images of a folder are that holds none itself: data set layouts, and words for the rest."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from ff3r_model.frames.pictures import CONVERT, Folder, some
from ff3r_model.frames.read_image import IMAGE_SUFFIXES

VIDEO_SUFFIXES = frozenset({".mp4", ".mov", ".avi", ".mkv", ".webm", ".m4v", ".mts", ".ts", ".mpg", ".wmv"})
DEPTH_OF_SEARCH = 3
MOST_FOLDERS = 300
"""Folders that are looked into for images."""


@dataclass(frozen=True)
class Layout:
    """A data set's folders."""

    name: str
    images: str
    """The folder of its colour images."""
    marks: tuple[str, ...]
    """Of these files and folders one is there."""


LAYOUTS = (
    Layout("EuRoC", "mav0/cam0/data", ("mav0/cam0/data.csv",)),
    Layout("EuRoC", "cam0/data", ("cam0/data.csv",)),
    Layout("EuRoC", "data", ("data.csv",)),
    Layout("ScanNet", "color", ("pose", "intrinsic", "depth")),
    Layout("Replica", "results", ("traj.txt",)),
    Layout("nerfstudio", "images", ("transforms.json",)),
    Layout("COLMAP", "images", ("sparse", "database.db", "distorted")),
)


def images_inside(path: Path) -> tuple[Layout, Path] | None:
    """The layout of a folder, and that of its images; None for a folder that has images itself, or an unknown one."""
    if _count(path):
        return None
    for layout in LAYOUTS:
        inner = path / layout.images
        if any((path / mark).exists() for mark in layout.marks) and inner.is_dir() and _count(inner):
            return layout, inner
    return None


def empty_folder(path: Path, folder: Folder) -> str:
    """What to say of a folder without colour images: what was found, and what to give instead."""
    found = f"only {told}" if (told := folder.told()) else "nothing"
    said = f"{path} holds no colour images ({' '.join(sorted(IMAGE_SUFFIXES))}): {found} found"
    videos = sorted(file.name for file in path.iterdir() if file.suffix.lower() in VIDEO_SUFFIXES)
    if videos:
        return f"{path} holds videos and no images: give one of {some(videos)}"
    if inner := _folders_with_images(path):
        return f"{path} holds no colour images itself; give the folder inside that has them: {some(inner)}"
    return said if CONVERT not in folder.others else f"{said}. HEIC, for instance: magick mogrify -format jpg *.heic"


def _folders_with_images(path: Path) -> list[str]:
    """The folders inside that hold images, and how many; the fullest first."""
    counts: dict[str, int] = {}
    for index, (folder, inner, files) in enumerate(os.walk(path)):
        relative = Path(folder).relative_to(path)
        inner[:] = sorted(name for name in inner if not name.startswith(".") and len(relative.parts) < DEPTH_OF_SEARCH)
        if relative.parts and (images := sum(Path(name).suffix.lower() in IMAGE_SUFFIXES for name in files)):
            counts[str(relative)] = images
        if index >= MOST_FOLDERS:
            break
    return [f"{name}/ ({count} images)" for name, count in sorted(counts.items(), key=lambda item: -item[1])]


def _count(folder: Path) -> int:
    return sum(file.suffix.lower() in IMAGE_SUFFIXES for file in folder.iterdir() if not file.name.startswith("."))
