"""Furniture models: what the catalogues of Sweet Home 3D's additional models say of each, and their licences."""

from __future__ import annotations

import os
import re
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from ff3r_model.core.errors import UserError
from ff3r_model.synthetic.furnished.classes import NO_FURNITURE, OUTDOORS, classify

FOLDER = "FF3R_WORLD"
"""Environment variable that names another folder for the models."""
CATALOGUE = "PluginFurnitureCatalog.properties"
MODELS = "models"
HELD_OUT_SHARE = 5
"""One model in so many of each class is kept for evaluation."""


@dataclass(frozen=True)
class Archive:
    """One catalogue's archive, an .sh3f file."""

    name: str
    sha256: str
    licence: str
    holder: str


ARCHIVES = (
    Archive(
        "BlendSwap-CC-0",
        "7ef093fe70cedbb160bdb532d86a84580459635e34130c16777f549eba1993dc",
        "CC0-1.0",
        "contributors of blendswap.com, converted by Emmanuel Puybaret",
    ),
    Archive(
        "BlendSwap-CC-BY",
        "29ae78937b4d5dbe93db74067817a984fa411f017b007fd666bc40368bdb0c83",
        "CC-BY-3.0",
        "contributors of blendswap.com, converted by Emmanuel Puybaret",
    ),
    Archive(
        "KatorLegaz",
        "f512443b5d3a6903497573095f971f44334b3165ab32182133051fa9487764a6",
        "CC-BY-3.0-US",
        "Andrew Kator & Jennifer Legaz, 2003-2008",
    ),
    Archive(
        "Reallusion",
        "dd553207876ccec6372dde7aaea6b2dcf2d631997fcdb8a9856a639e0db9aa9b",
        "CC-BY-3.0-US",
        "Reallusion, 2008-2011",
    ),
    Archive(
        "Scopia",
        "b4505451b1e8ab339c101c0afddfef4e1a07b95aa8c821c61ec41487afd43850",
        "CC-BY-3.0",
        "Scopia Visual Interfaces Systems, s.l., 2010-2012",
    ),
)
"""As Debian's package sweethome3d-furniture 1.8 has them."""
REFUSED = re.compile(r"non-?commercial|share-?alike|no-?deriv|editorial|royalty.free", re.IGNORECASE)
"""Words in a model's own licence that keep it out."""
GRANTED = re.compile(r"creative commons (zero|attribution 3)|public domain|CC0|CC-BY", re.IGNORECASE)
_ENTRY = re.compile(r"^([A-Za-z]+)#(\d+)=(.*)$", re.MULTILINE)
_ESCAPE = re.compile(r"\\u([0-9a-fA-F]{4})")


class MissingModels(UserError):
    """The furniture models are not on this machine."""


@dataclass(frozen=True)
class Model:
    """A piece of furniture as its catalogue describes it."""

    id: str
    name: str
    """English."""
    category: str
    path: Path
    """Of the .obj file."""
    size: tuple[float, float, float]
    """Width, depth and height, metres."""
    elevation: float
    """Of its foot above the floor, metres: 0 for what stands."""
    top: float | None
    """Height over its foot at which things stand on it, metres; None: nothing does."""
    opening: bool
    """Whether it is a door or a window."""
    rotation: tuple[float, ...] | None
    """The 3 × 3 turn that brings the file's axes to the catalogue's (y up, front towards +z), row by row."""
    creator: str
    licence: str

    @property
    def indoors(self) -> bool:
        """Whether a room may hold it."""
        return self.category not in OUTDOORS and not NO_FURNITURE.search(self.name.lower())

    @cached_property
    def class_name(self) -> str:
        """One of `classes.CLASSES`."""
        return classify(self.name, self.category, self.opening)


def world_folder() -> Path:
    """Where the models lie: $FF3R_WORLD, else ff3r/world in the user's data folder."""
    if os.environ.get(FOLDER):
        return Path(os.environ[FOLDER]).expanduser()
    data = os.environ.get("XDG_DATA_HOME") or "~/.local/share"
    return Path(data).expanduser() / "ff3r" / "world"


def load_catalogue(folder: Path | None = None) -> list[Model]:
    """All models for rooms that may be used, in the catalogues' order.

    A model whose own licence file does not grant CC0 or CC-BY is left out. Raises MissingModels where the models are
    not there.
    """
    models = (folder or world_folder()) / MODELS
    missing = [archive.name for archive in ARCHIVES if not (models / archive.name / CATALOGUE).is_file()]
    if missing:
        raise MissingModels(f"{models} lacks the furniture of {', '.join(missing)}; get it with `ff3r world fetch`")
    found = (model for archive in ARCHIVES for model in _read(models / archive.name, archive))
    return [model for model in found if model.indoors and _is_free(model.path.parent)]


def _read(root: Path, archive: Archive) -> Iterable[Model]:
    records: dict[int, dict[str, str]] = {}
    for key, number, value in _ENTRY.findall((root / CATALOGUE).read_text(encoding="latin-1")):
        records.setdefault(int(number), {})[key] = _ESCAPE.sub(lambda code: chr(int(code[1], 16)), value.strip())
    for record in records.values():
        if {"id", "name", "model", "width", "depth", "height"} <= set(record) and record["model"].endswith(".obj"):
            yield _model(root, record, archive)


def _model(root: Path, record: dict[str, str], archive: Archive) -> Model:
    top = float(record.get("dropOnTopElevation", "-1")) / 100
    rotation = record.get("modelRotation")
    return Model(
        id=record["id"],
        name=record["name"],
        category=record.get("category", ""),
        path=root / record["model"].lstrip("/"),
        size=(float(record["width"]) / 100, float(record["depth"]) / 100, float(record["height"]) / 100),
        elevation=float(record.get("elevation", "0")) / 100,
        top=top if top > 0 else None,
        opening=record.get("doorOrWindow") == "true",
        rotation=None if rotation is None else tuple(float(value) for value in rotation.split()),
        creator=record.get("creator", archive.holder),
        licence=archive.licence,
    )


def _is_free(folder: Path) -> bool:
    """Whether the licence files beside a model, if there are any, grant what its catalogue says."""
    texts = [path.read_text(errors="replace") for path in folder.glob("*") if "license" in path.name.lower()]
    return all(GRANTED.search(text) and not REFUSED.search(text) for text in texts)


def split(models: Iterable[Model], held_out: bool) -> list[Model]:
    """The models for training, or those for evaluation: of each class one in five, at least one where there are two.

    Which ones follows from their ids alone, so that they stay the same whatever else a catalogue holds.
    """
    by_class: dict[str, list[Model]] = {}
    for model in models:
        by_class.setdefault(model.class_name, []).append(model)
    chosen: list[Model] = []
    for members in by_class.values():
        members.sort(key=lambda model: (zlib.crc32(model.id.encode()), model.id))
        kept = max(1, len(members) // HELD_OUT_SHARE) if len(members) > 1 else 0
        chosen += members[:kept] if held_out else members[kept:]
    return chosen


def credits(models: Iterable[Model]) -> str:
    """A credits file: every model with its author and licence, as Creative Commons asks for."""
    lines = [
        "# Furniture models",
        "",
        "Converted to OBJ for Sweet Home 3D; changed here in size, colour and place.",
        "",
    ]
    lines += [f"- {model.name} ({model.id}): {model.creator}, {model.licence}" for model in models]
    return "\n".join([*lines, ""])
