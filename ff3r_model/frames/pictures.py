"""Which files of a folder are colour pictures of the scene: no depth, masks, labels, own outputs or damaged files."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ff3r_model.core.output_folder import LIST
from ff3r_model.frames.natural_order import natural_order
from ff3r_model.frames.read_image import IMAGE_SUFFIXES, ImageFileError, opened, upright_size

TO_CONVERT = frozenset({".heic", ".heif", ".avif", ".gif", ".jp2", ".jxl", ".dng", ".cr2", ".cr3", ".nef", ".arw"})
"""Pictures that are not read."""
DEPTH, MASKS, LABELS = "depth", "masks or labels by name", "label images"
OTHERS, DAMAGED, DENIED, LINKS = "other files", "damaged", "permission denied", "broken links"
CONVERT = "of a format that is not read: convert to JPEG or PNG"
OWN = "from an earlier run"
_MARK = re.compile(
    r"(?:^|[^a-z])(mask|masks|seg|segmentation|semantic|label|labels|instance|depth|disparity)(?=[^a-z]|$)"
)
"""Words in names of pictures that belong to other pictures."""
LABEL_VALUES = 64
"""Most values of a label image ..."""
LABEL_AREAS = 0.9
"""... and least share of its pixels that are like their neighbour."""
SHOWN = 3
"""Names that a message gives."""


@dataclass(frozen=True)
class Picture:
    """An image file, by its header."""

    file: Path
    height: int
    width: int
    colours: bool
    """Whether it has colour channels."""


@dataclass
class Folder:
    """What lies in a folder: pictures in natural order, and the names of other files by what they are."""

    pictures: list[Picture] = field(default_factory=list)
    others: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))

    def told(self) -> str:
        """The other files in words; empty where there are none."""
        names = sorted(name for group in self.others.values() for name in group)
        kinds = ", ".join(f"{len(group)} {kind}" for kind, group in self.others.items() if group)
        return f"{some(names)} ({kinds})" if names else ""


def look_into(folder: Path) -> Folder:
    """The pictures of a folder, judged by names and headers alone. Raises OSError where it cannot be listed."""
    found, own = Folder(), _own_files(folder)
    for file in natural_order(file for file in folder.iterdir() if not file.name.startswith(".")):
        kind = OWN if file.name in own else _kind(file)
        if isinstance(kind, Picture):
            found.pictures.append(kind)
        elif kind:
            found.others[kind].append(file.name)
    _set_aside(found, MASKS, _companions(found.pictures))
    _set_aside(found, LABELS, _label_images(found.pictures))
    return found


def some(names: list[str]) -> str:
    """The first of many names."""
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")


def _kind(file: Path) -> Picture | str:
    """A picture, or what else a file is; empty for folders."""
    if file.is_symlink() and not file.exists():
        return LINKS
    if not file.is_file():
        return ""
    suffix = file.suffix.lower()
    if suffix not in IMAGE_SUFFIXES:
        return CONVERT if suffix in TO_CONVERT else OTHERS
    try:
        with opened(file) as image:
            if image.mode.startswith(("I", "F")):  # 16-bit and floating-point greys
                return DEPTH
            height, width = upright_size(image)
            return Picture(file, height, width, image.mode not in ("P", "PA", "L", "LA", "1"))
    except ImageFileError as error:
        return DENIED if isinstance(error.__cause__, PermissionError) else DAMAGED


def _companions(pictures: list[Picture]) -> set[Path]:
    """Pictures named after others (a.png.png), or as masks and depth are (a_mask.png) where not all pictures are."""
    names = {picture.file.name for picture in pictures}
    marked = {each.file for each in pictures if each.file.stem in names or _MARK.search(each.file.stem.lower())}
    if len(marked) == len(pictures):  # a name that all share says nothing
        return {picture.file for picture in pictures if not picture.colours}
    return marked


def _label_images(pictures: list[Picture]) -> set[Path]:
    """Pictures of one channel with few values in large areas, where others have colours."""
    if not any(picture.colours for picture in pictures):
        return set()
    return {picture.file for picture in pictures if not picture.colours and _shows_labels(picture.file)}


def _shows_labels(file: Path) -> bool:
    try:
        with opened(file) as image:
            values = np.asarray(image)
    except ImageFileError:
        return False
    alike = (values[:, 1:] == values[:, :-1]).mean() if values.shape[1] > 1 else 1.0
    return bool(values.ndim == 2 and len(np.unique(values)) <= LABEL_VALUES and alike >= LABEL_AREAS)


def _set_aside(folder: Folder, kind: str, files: set[Path]) -> None:
    folder.others[kind] += [picture.file.name for picture in folder.pictures if picture.file in files]
    folder.pictures = [picture for picture in folder.pictures if picture.file not in files]


def _own_files(folder: Path) -> set[str]:
    """Files that one of our commands lists as its own."""
    try:
        return {str(name) for name in json.loads((folder / LIST).read_text())["files"]}
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return set()
