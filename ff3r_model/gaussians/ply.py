"""Gaussians as PLY files in the layout of 3DGS, with the confidence and the feature as further properties."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch
from plyfile import PlyData, PlyElement, PlyParseError

from ff3r_model.core.errors import UserError
from ff3r_model.core.types import Gaussians

_OPACITY_EDGE = 1e-6
"""Opacities are kept this far from 0 and 1, where their logit would be infinite."""


class PlyError(UserError):
    """A PLY file that cannot be read as Gaussians."""


def write_ply(path: Path | str, gaussians: Gaussians) -> None:
    """Write a binary PLY that 3DGS viewers open: log scales, logits of the opacities, quaternions wxyz.

    Beside these red, green and blue, which MeshLab and Open3D show. There are no normals.
    """
    columns = _columns(gaussians)
    kinds = [(name, "u1" if values.dtype == torch.uint8 else "<f4") for name, values in columns.items()]
    rows = np.empty(len(gaussians), dtype=kinds)
    for name, values in columns.items():
        rows[name] = values.detach().cpu().numpy() if values.dtype == torch.uint8 else values.detach().float().cpu()
    PlyData([PlyElement.describe(rows, "vertex")], byte_order="<").write(str(path))


def read_ply(path: Path | str) -> Gaussians:
    """Gaussians of a 3DGS PLY. Where a file has no confidence it is 0; where it has no features they have no channels.

    Raises PlyError for a file that is damaged or holds no Gaussians, and FileNotFoundError for none.
    """
    try:
        vertex = PlyData.read(str(path))["vertex"].data
        return _gaussians(vertex)
    except (PlyParseError, KeyError, ValueError, EOFError, UnicodeDecodeError) as error:
        raise PlyError(f"{path} is not a PLY file of Gaussians, or is damaged: {error}") from error


def _columns(gaussians: Gaussians) -> dict[str, torch.Tensor]:
    """Every property of a row, in the order of the file."""
    x, y, z = gaussians.means.unbind(1)
    columns = {"x": x, "y": y, "z": z}
    rest = gaussians.harmonics[:, 1:].transpose(1, 2).flatten(1)
    opacity = gaussians.opacities.clamp(_OPACITY_EDGE, 1 - _OPACITY_EDGE).logit()
    for name, values in (
        ("f_dc", gaussians.harmonics[:, 0]),
        ("f_rest", rest),
        ("opacity", opacity),
        ("scale", gaussians.scales.log()),
        ("rot", gaussians.quaternions),
        ("confidence", gaussians.confidences),
        ("feature", gaussians.features),
    ):
        if values.ndim == 1:
            columns[name] = values
        else:
            columns |= {f"{name}_{index}": values[:, index] for index in range(values.shape[1])}
    colors = (gaussians.colors * 255).round().to(torch.uint8)
    return columns | dict(zip(("red", "green", "blue"), colors.unbind(1), strict=True))


def _gaussians(vertex: np.ndarray) -> Gaussians:
    """The rows of a file as Gaussians."""
    names = vertex.dtype.names or ()

    def stack(*fields: str) -> torch.Tensor:
        values = [torch.from_numpy(vertex[field].astype(np.float32)) for field in fields]
        return torch.stack(values, dim=1) if values else torch.zeros(len(vertex), 0)

    def numbered(prefix: str) -> list[str]:
        return [f"{prefix}_{index}" for index in range(sum(name.startswith(f"{prefix}_") for name in names))]

    rest = stack(*numbered("f_rest"))
    if rest.shape[1] % 3 or math.isqrt(rest.shape[1] // 3 + 1) ** 2 != rest.shape[1] // 3 + 1:
        raise ValueError(f"{rest.shape[1]} properties f_rest are no whole degree of harmonics")
    constant = stack("f_dc_0", "f_dc_1", "f_dc_2")[:, None]
    return Gaussians(
        means=stack("x", "y", "z"),
        scales=stack("scale_0", "scale_1", "scale_2").exp(),
        quaternions=torch.nn.functional.normalize(stack("rot_0", "rot_1", "rot_2", "rot_3"), dim=1),
        harmonics=torch.cat([constant, rest.unflatten(1, (3, rest.shape[1] // 3)).transpose(1, 2)], dim=1),
        opacities=stack("opacity")[:, 0].sigmoid(),
        confidences=stack("confidence")[:, 0] if "confidence" in names else torch.zeros(len(vertex)),
        features=stack(*numbered("feature")),
    )
