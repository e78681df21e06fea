"""PLY files as 3D Gaussian splatting viewers read them."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from plyfile import PlyData

from ff3r_model.core.types import SH_C0, Gaussians
from ff3r_model.gaussians.ply import PlyError, read_ply, write_ply
from tests.support.random_gaussians import gaussians


@pytest.mark.parametrize("bands", [1, 4, 16])
@pytest.mark.parametrize("channels", [0, 3])
def test_ply_round_trip(tmp_path: Path, bands: int, channels: int) -> None:
    before = gaussians(bands=bands, channels=channels)
    write_ply(tmp_path / "cloud.ply", before)
    after = read_ply(tmp_path / "cloud.ply")
    for field in fields(Gaussians):
        torch.testing.assert_close(getattr(after, field.name), getattr(before, field.name), atol=1e-5, rtol=1e-5)


def test_ply_has_the_layout_of_3dgs(tmp_path: Path) -> None:
    before = gaussians()
    write_ply(tmp_path / "cloud.ply", before)
    vertex = PlyData.read(str(tmp_path / "cloud.ply"))["vertex"].data
    assert vertex.dtype.names[:6] == ("x", "y", "z", "f_dc_0", "f_dc_1", "f_dc_2")
    assert "nx" not in vertex.dtype.names, "Open3D takes zeros for normals"
    for channel, name in enumerate(("red", "green", "blue")):
        assert vertex[name].dtype == np.uint8
        seen = (before.harmonics[:, 0, channel] * SH_C0 + 0.5).clamp(0, 1)
        np.testing.assert_allclose(vertex[name] / 255, seen.numpy(), atol=0.5 / 255 + 1e-6)
    np.testing.assert_allclose(vertex["opacity"], before.opacities.logit().numpy(), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(vertex["scale_1"], before.scales[:, 1].log().numpy(), rtol=1e-5)
    np.testing.assert_allclose(vertex["rot_0"], before.quaternions[:, 0])
    np.testing.assert_allclose(vertex["f_rest_3"], before.harmonics[:, 1, 1])  # green's first of three


def test_ply_of_opaque_and_of_no_gaussians(tmp_path: Path) -> None:
    opaque = replace(gaussians(2), opacities=torch.tensor([1.0, 0.0]))
    write_ply(tmp_path / "cloud.ply", opaque)
    torch.testing.assert_close(read_ply(tmp_path / "cloud.ply").opacities, opaque.opacities, atol=1e-5, rtol=0)
    write_ply(tmp_path / "none.ply", gaussians().select(torch.zeros(0, dtype=torch.long)))
    assert len(read_ply(tmp_path / "none.ply")) == 0


def test_foreign_ply(tmp_path: Path) -> None:
    path = tmp_path / "cloud.ply"
    path.write_text("ply\nformat ascii 1.0\nelement vertex 1\nproperty float x\nend_header\n1\n")
    with pytest.raises(PlyError, match=r"cloud\.ply"):
        read_ply(path)
    path.write_bytes(b"\x89PNG\r\n")
    with pytest.raises(PlyError, match=r"cloud\.ply"):
        read_ply(path)
    write_ply(path, gaussians())
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(PlyError, match="damaged"):
        read_ply(path)
    with pytest.raises(FileNotFoundError):
        read_ply(tmp_path / "missing.ply")
