"""From the public files to a map: `ff3r convert`, `ff3r reconstruct` and `ff3r query`, on stand-ins of the files.

Always with a tiny network of the full one's classes; with the full size where FF3R_FULL_TESTS is set (minutes, 12 GB).
"""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from evo.tools import file_interface

from benchmarks.network.cost import available_bytes
from benchmarks.network.standin import tiny, write_published
from ff3r_model.cli import main, map_files
from ff3r_model.core.geometry import invert_rigid
from ff3r_model.core.types import Frame
from ff3r_model.frames.windows import WindowConfig
from ff3r_model.network import FF3RConfig
from ff3r_model.network.checkpoint import load_checkpoint
from ff3r_model.network.decode import decode_cameras
from ff3r_model.pipeline import Pipeline, PipelineConfig
from ff3r_model.voxel_map.voxel_map import VoxelMap

REFERENCE = np.load(Path(__file__).parents[1] / "reference" / "vggt_2x56x84.npz")
"""Two images and what the published VGGT says of them under the stand-in weights."""
NEEDED = 12e9
"""Bytes that the full size takes."""


@pytest.fixture(scope="module")
def frames(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The reference's images as files."""
    return write_images(tmp_path_factory.mktemp("frames"))


def write_images(folder: Path) -> Path:
    """The reference's images, in a folder."""
    for index, image in enumerate(REFERENCE["images"][0]):
        pixels = (image.transpose(1, 2, 0) * 255).round().astype(np.uint8)
        cv2.imwrite(str(folder / f"{index}.png"), pixels[..., ::-1])
    return folder


def arguments(folder: Path, output: Path) -> list[str]:
    vggt, lseg = folder / "model.pt", folder / "demo_e200.ckpt"
    return ["convert", "--vggt", str(vggt), "--lseg", str(lseg), "-o", str(output), "--precision", "float16"]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with stand-ins of the two public files, tiny."""
    folder = tmp_path_factory.mktemp("tiny")
    write_published(folder, tiny())
    return folder


@pytest.fixture(scope="module")
def weights(files: Path) -> Path:
    """A tiny converted checkpoint."""
    path = files / "tiny.safetensors"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FF3RConfig, "full", staticmethod(tiny))
        assert main(arguments(files, path)) == 0
    return path


def relative_pose(output: Path) -> np.ndarray:
    """first_from_second as the written trajectory has it."""
    first, second = file_interface.read_tum_trajectory_file(str(output / map_files.TRAJECTORY)).poses_se3
    return np.linalg.inv(first) @ second


def pose_of(encodings: torch.Tensor) -> np.ndarray:
    """first_from_second as a pose encoding of two views has it."""
    camera_from_world = decode_cameras(encodings, 56, 84).camera_from_world.double()
    return (camera_from_world[0] @ invert_rigid(camera_from_world[1:])[0]).numpy()


def reconstruct(frames: Path, weights: Path, output: Path, *options: str) -> VoxelMap:
    command = ["reconstruct", str(frames), "-o", str(output), "--weights", str(weights), "--device", "cpu", *options]
    assert main([*command, "--views", "2", "--overlap", "1"]) == 0
    return VoxelMap.load(output / map_files.MAP)


def test_tiny_from_files_to_answers(
    frames: Path, weights: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    voxel_map = reconstruct(frames, weights, tmp_path)
    assert len(voxel_map) > 0 and voxel_map.channels == 64
    checkpoint = load_checkpoint(weights)
    assert checkpoint.mode == "lifting"
    images = torch.from_numpy(REFERENCE["images"]).mul(255).round() / 255
    with torch.inference_mode():
        encodings = checkpoint.network(images).pose_encodings[-1, 0]
    np.testing.assert_allclose(relative_pose(tmp_path), pose_of(encodings), atol=1e-4)
    assert main(["query", str(tmp_path / map_files.MAP), "chair", "--weights", str(weights)]) == 0
    assert '"chair":' in capfd.readouterr().out


def test_images_get_the_size_of_the_checkpoint_unless_told(weights: Path, frames: Path) -> None:
    picture = torch.from_numpy(cv2.imread(str(frames / "0.png")))
    for given, side in ((None, 84), (56, 56)):
        config = PipelineConfig(window=WindowConfig(views=2, overlap=1, long_side=given))
        pipeline = Pipeline.from_checkpoint(weights, config)
        pipeline.add(Frame(picture, 0))
        pipeline.add(Frame(picture.flip(0), 10**9))
        window = pipeline.windows.take()
        assert window is not None and max(window.images.shape[-2:]) == side


def test_known_intrinsics_place_lifted_gaussians(weights: Path) -> None:
    """A pixel's Gaussian lies where the camera that was given sees it, at the depth that the network gave."""
    pipeline = Pipeline.from_checkpoint(weights, PipelineConfig(window=WindowConfig(views=2, overlap=1)))
    pictures = (torch.from_numpy(REFERENCE["images"][0]) * 255).round().byte().permute(0, 2, 3, 1)
    known = torch.tensor([[70.0, 0, 40], [0, 60, 30], [0, 0, 1]])
    for index, picture in enumerate(pictures):
        pipeline.add(Frame(picture, index * 10**9, known))
    window = pipeline.windows.take()
    assert window is not None
    prediction = pipeline.engine(window)
    row, column = 11, 50
    z = float(prediction.depth[0, row, column])
    expected = torch.tensor([(column + 0.5 - 40) / 70 * z, (row + 0.5 - 30) / 60 * z, z])
    torch.testing.assert_close(prediction.gaussians.means[row * 84 + column], expected, rtol=1e-4, atol=1e-5)
    color = prediction.gaussians.colors[row * 84 + column]
    torch.testing.assert_close(color, pictures[0, row, column].float() / 255, atol=1e-4, rtol=0)


def test_lseg_sees_the_whole_image_at_multiples_of_32(weights: Path) -> None:
    """Sides near 16 pixels per patch of the geometry's grid, and every place at the same share of the width."""
    lseg = load_checkpoint(weights).network.lseg
    for rows, columns in ((1, 1), (4, 6), (8, 5), (18, 32), (32, 32), (32, 8)):
        ramp = ((torch.arange(14 * columns) + 0.5) / (14 * columns)).expand(1, 3, 14 * rows, -1)
        seen = lseg.resize(ramp, (rows, columns))
        height, width = seen.shape[-2:]
        assert height % 32 == width % 32 == 0 and height and width
        assert abs(height - 16 * rows) <= 16 and abs(width - 16 * columns) <= 16
        shares = (torch.arange(width) + 0.5) / width
        torch.testing.assert_close(seen[0, 0, 0, 2:-2], shares[2:-2], atol=1e-4, rtol=0)


def test_convert_reports_and_rewrites(
    files: Path, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(FF3RConfig, "full", staticmethod(tiny))
    assert main([*arguments(files, tmp_path / "a.safetensors"), "--channels", "512"]) == 0
    assert "512 channels" in capfd.readouterr().out
    assert load_checkpoint(tmp_path / "a.safetensors").config.feature_channels == 512
    assert main(["convert", "--ff3r", str(weights), "-o", str(tmp_path / "b.safetensors")]) == 0
    assert load_checkpoint(tmp_path / "b.safetensors").mode == "lifting"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ([], "give one file for cameras and depth, --vggt or --da3, not none; --ff3r is for FF3R's own"),
        (["--vggt", "{files}/model.pt"], "give one semantic encoder, --lseg, or --tipsv2 with --tokenizer, not none"),
        (["--ff3r", "{files}/tiny.safetensors", "--lseg", "{files}/demo_e200.ckpt"], "give it without --lseg"),
        (["--ff3r", "{files}/none"], "none is not there"),
        (["--vggt", "{files}/model.pt", "--lseg", "{files}/model.pt"], "demo_e200.ckpt"),
        (["--vggt", "{files}/model.pt", "--lseg", "{files}/demo_e200.ckpt", "--channels", "513"], "1 to 512"),
        (["--vggt", "{files}/model.pt", "--lseg", "{files}/demo_e200.ckpt"], "misshapen: patch_embed"),
    ],
)
def test_convert_refuses_in_one_line(
    options: list[str], words: str, files: Path, weights: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out.safetensors"
    given = [option.format(files=files) for option in options]
    if "misshapen" in words:  # a tiny file offered to the full size
        given += ["--channels", "512"]
        words = "misshapen"
    assert main(["convert", *given, "-o", str(output)]) == 2
    error = capfd.readouterr().err.splitlines()[-1]
    assert error.startswith("ff3r: ") and words in error and not output.exists()


@pytest.mark.skipif("FF3R_FULL_TESTS" not in os.environ, reason="the full size takes minutes: set FF3R_FULL_TESTS")
@pytest.mark.timeout(1800)
def test_full_size_from_files_to_a_map(frames: Path, tmp_path: Path) -> None:
    """The written poses are those of the published VGGT, up to the images' bytes and the weights' half precision."""
    if available_bytes() < NEEDED:
        pytest.skip(f"needs {NEEDED / 1e9:.0f} GB of free memory, {available_bytes() / 1e9:.1f} are left")
    write_published(tmp_path, FF3RConfig.full())
    assert main(arguments(tmp_path, tmp_path / "ff3r.safetensors")) == 0
    voxel_map = reconstruct(frames, tmp_path / "ff3r.safetensors", tmp_path, "--long-side", "84")
    assert len(voxel_map) > 0 and voxel_map.channels == 64
    expected = pose_of(torch.from_numpy(REFERENCE["pose_enc"][0]))
    assert np.linalg.norm(relative_pose(tmp_path) - expected) < 0.03 * np.linalg.norm(expected)
