"""Meshes of furniture: triangles in a unit box with normals, texture coordinates and materials; cached."""

from __future__ import annotations

import logging
import zlib
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Float32, Int8, Int32, UInt8
from numpy import ndarray

from ff3r_model.core.errors import UserError
from ff3r_model.core.files import replaced
from ff3r_model.synthetic.furnished.models import Model

log = logging.getLogger(__name__)

MAX_TRIANGLES = 60_000
"""Of one model; heavier ones are left out."""
TEXTURE_SIDE = 256
"""Pixels; larger pictures are scaled down."""
CACHE_VERSION = 1
GREY = (0.7, 0.7, 0.7)


@dataclass(frozen=True)
class Material:
    """A surface's colour, times a picture's where there is one."""

    color: tuple[float, float, float]
    texture: UInt8[ndarray, "h w 3"] | None


@dataclass(frozen=True)
class Mesh:
    """Triangles in a box from (-½, -½, 0) to (½, ½, 1), z up and the front towards -y."""

    corners: Float32[ndarray, "n 3 3"]
    normals: Int8[ndarray, "n 3 3"]
    """At the corners, times 127; zero where the file has none."""
    uv: Float32[ndarray, "n 3 2"]
    material: Int32[ndarray, " n"]
    materials: tuple[Material, ...]

    @property
    def nbytes(self) -> int:
        """Of its tables and pictures."""
        tables = (self.corners, self.normals, self.uv, self.material)
        textures = (each.texture for each in self.materials if each.texture is not None)
        return sum(table.nbytes for table in tables) + sum(texture.nbytes for texture in textures)


class MeshCache:
    """Meshes by model, from a folder of compact files that it fills; a bounded number of bytes stays in memory."""

    def __init__(self, folder: Path, nbytes: int = 2**30) -> None:
        self.folder, self.limit = folder, nbytes
        self._kept: OrderedDict[str, Mesh] = OrderedDict()

    def get(self, model: Model) -> Mesh | None:
        """The model's mesh, None where it cannot be used (logged once, when it is first read)."""
        if model.id in self._kept:
            self._kept.move_to_end(model.id)
            return self._kept[model.id]
        path = self.folder / f"{zlib.crc32(model.id.encode()):08x}.npz"
        mesh = _read_cached(path)
        if mesh is None:
            mesh = load_mesh(model)
            self.folder.mkdir(parents=True, exist_ok=True)
            _write_cached(path, mesh)
        if not len(mesh.corners):
            return None
        self._kept[model.id] = mesh
        while sum(each.nbytes for each in self._kept.values()) > self.limit and len(self._kept) > 1:
            self._kept.popitem(last=False)
        return mesh


def load_mesh(model: Model) -> Mesh:
    """A model's .obj file as a mesh; one without triangles where it is broken or too heavy, with a warning."""
    try:
        import trimesh
    except ImportError as error:
        raise UserError("furnished rooms need trimesh and embreex: pip install 'ff3r_ros[world]'") from error
    try:
        scene = trimesh.load_scene(model.path, process=False)
        parts = [part for part in scene.geometry.values() if len(getattr(part, "faces", ()))]
        count = sum(len(part.faces) for part in parts)
        if not 0 < count <= MAX_TRIANGLES:
            raise ValueError(f"it has {count} triangles")
        return _mesh(parts, model)
    except Exception as error:  # whatever a reader of foreign files raises
        log.warning("%s is left out: %s", model.id, error)
        none = np.zeros((0, 3, 3), np.float32)
        return Mesh(none, none.astype(np.int8), none[..., :2], np.zeros(0, np.int32), ())


def _mesh(parts: list, model: Model) -> Mesh:
    corners = np.concatenate([np.asarray(part.triangles, np.float32) for part in parts])
    normals = np.concatenate([np.asarray(part.vertex_normals, np.float32)[part.faces] for part in parts])
    if model.rotation is not None:
        turn = np.asarray(model.rotation, np.float32).reshape(3, 3)
        corners, normals = corners @ turn.T, normals @ turn.T
    # The file's y is up and its z to the front; ours is z up and the front towards -y.
    corners, normals = (np.stack([x[..., 0], -x[..., 2], x[..., 1]], axis=-1) for x in (corners, normals))
    low, high = corners.reshape(-1, 3).min(0), corners.reshape(-1, 3).max(0)
    corners = (corners - low) / np.maximum(high - low, 1e-6)
    corners[..., :2] -= 0.5
    if not np.isfinite(corners).all():
        raise ValueError("it has corners that are no numbers")
    drawn = [_material(part) for part in parts]
    counts = [len(part.faces) for part in parts]
    return Mesh(
        corners=corners.astype(np.float32),
        normals=np.round(np.nan_to_num(normals).clip(-1, 1) * 127).astype(np.int8),
        uv=np.nan_to_num(np.concatenate([uv for _, uv in drawn])).astype(np.float32),
        material=np.repeat(np.arange(len(parts), dtype=np.int32), counts),
        materials=tuple(material for material, _ in drawn),
    )


def _material(part: object) -> tuple[Material, Float[ndarray, "n 3 2"]]:
    """Colour, picture and texture coordinates of one part of a file."""
    faces = part.faces  # type: ignore[attr-defined]
    visual = part.visual  # type: ignore[attr-defined]
    material, uv = getattr(visual, "material", None), getattr(visual, "uv", None)
    diffuse, image = getattr(material, "diffuse", None), getattr(material, "image", None)
    color = GREY if diffuse is None else tuple(float(value) / 255 for value in diffuse[:3])
    if image is None or uv is None:
        return Material(color, None), np.zeros((len(faces), 3, 2), np.float32)  # type: ignore[arg-type]
    picture = image.convert("RGB")
    picture.thumbnail((TEXTURE_SIDE, TEXTURE_SIDE))
    if sum(color) < 0.1:  # some files say black and mean the picture
        color = (1.0, 1.0, 1.0)
    return Material(color, np.asarray(picture)), np.asarray(uv, np.float32)[faces]  # type: ignore[arg-type]


def _write_cached(path: Path, mesh: Mesh) -> None:
    textures = {f"texture{k}": each.texture for k, each in enumerate(mesh.materials) if each.texture is not None}
    colors = np.array([each.color for each in mesh.materials], np.float32).reshape(-1, 3)
    with replaced(path) as part, part.open("wb") as file:
        np.savez(
            file,
            version=CACHE_VERSION,
            corners=mesh.corners,
            normals=mesh.normals,
            uv=mesh.uv,
            material=mesh.material,
            colors=colors,
            **textures,  # type: ignore[arg-type]
        )


def _read_cached(path: Path) -> Mesh | None:
    """The mesh in a cache file; None where there is none, or one of another version."""
    try:
        with np.load(path, allow_pickle=False) as file:
            if int(file["version"]) != CACHE_VERSION:
                return None
            pictures = [file.get(f"texture{k}") for k in range(len(file["colors"]))]
            colors = [(float(red), float(green), float(blue)) for red, green, blue in file["colors"]]
            materials = tuple(Material(*each) for each in zip(colors, pictures, strict=True))
            return Mesh(file["corners"], file["normals"], file["uv"], file["material"], materials)
    except (OSError, ValueError, KeyError):
        return None
