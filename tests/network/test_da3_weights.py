"""Depth Anything 3's public file → our checkpoint, on stand-ins; and all other files of its family, refused by name."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from benchmarks.network.standin import tiny_da3, write_da3
from benchmarks.network.standin_values import standin_tensor
from ff3r_model.cli import main
from ff3r_model.network import FF3R, FF3RConfig
from ff3r_model.network.checkpoint import CheckpointError, load_checkpoint
from ff3r_model.network.public_weights import da3 as module
from ff3r_model.network.public_weights import semantics
from ff3r_model.network.public_weights.convert import convert
from ff3r_model.network.public_weights.da3 import DA3_UNUSED, da3_config, load_da3, load_da3_rays, published_name
from ff3r_model.network.public_weights.read_weights import read_tensors
from ff3r_model.network.public_weights.sources import ConvertError, Sources
from ff3r_model.network.ray_head import RayHead
from ff3r_model.network.text_encoder import TextEncoder
from tests.network.test_convert import TEXT, lseg_state
from tests.network.test_converted import REFERENCE as REFERENCE_IMAGES
from tests.network.test_converted import pose_of, reconstruct, relative_pose, write_images

REFERENCE = Path(__file__).parents[1] / "reference"


def config() -> FF3RConfig:
    """Tiny, with a text space that is tiny too."""
    return replace(tiny_da3(), text_width=TEXT.dim)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Depth Anything 3's file and LSeg's, tiny."""
    folder = tmp_path_factory.mktemp("published")
    lseg = folder / "demo_e200.ckpt"
    torch.save({"state_dict": lseg_state(FF3R(config()))}, lseg)
    return write_da3(folder, config()), lseg


@pytest.fixture(scope="module")
def converted(files: tuple[Path, Path]) -> Path:
    """By the command, with a small tower in place of CLIP's."""
    output = files[0].parent / "ff3r.safetensors"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "SIZES", (config,))
        patch.setattr(semantics, "load_clip_text", lambda tensors: TextEncoder(TEXT).eval())
        arguments = ["convert", "--da3", str(files[0]), "--lseg", str(files[1]), "-o", str(output)]
        assert main([*arguments, "--channels", "16"]) == 0
    return output


def test_converted_network_has_the_published_values(converted: Path, files: tuple[Path, Path]) -> None:
    checkpoint = load_checkpoint(converted)
    assert checkpoint.mode == "lifting" and checkpoint.config.da3 == config().da3
    published = load_file(files[0])
    for name, tensor in checkpoint.network.state_dict().items():
        if name.startswith(("aggregator.", "camera_head.", "depth_head.")):
            assert torch.equal(tensor, published["model." + published_name(name)]), name
    with torch.inference_mode():
        output = checkpoint.network(torch.rand(1, 3, 3, 56, 84))
    assert output.depth.isfinite().all() and output.gaussians is None and output.lifted is not None


def test_a_converted_checkpoint_maps_images(converted: Path, tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    assert len(reconstruct(write_images(tmp_path / "images"), converted, tmp_path / "out")) > 0
    network = load_checkpoint(converted).network
    images = torch.from_numpy(REFERENCE_IMAGES["images"]).mul(255).round() / 255
    with torch.inference_mode():
        expected = pose_of(network(images).pose_encodings[-1, 0])
    np.testing.assert_allclose(relative_pose(tmp_path / "out"), expected, atol=1e-4)


def test_the_checkpoint_tells_the_licence(converted: Path) -> None:
    card = load_checkpoint(converted).card
    assert card["made_from"]["da3"] == "model.safetensors"
    assert "weights of tiny-da3 are published under terms of their own" in card["terms"]
    assert module.LICENCES.keys() == {size().name for size in module.SIZES}
    assert module.LICENCES["da3-base"] == "Apache-2.0" and "non-commercial" in module.LICENCES["da3-large"]


def shapes_of(name: str) -> dict[str, Tensor]:
    """The tensors of a published file, without memory."""
    shapes = json.loads((REFERENCE / f"{name}_shapes.json").read_text())
    return {key.removeprefix("model."): torch.empty(shape, device="meta") for key, shape in shapes.items()}


@pytest.mark.parametrize("size", ["small", "base", "large"])
def test_the_size_follows_from_the_shapes(size: str) -> None:
    assert da3_config(shapes_of(f"da3_{size}"), "file") == getattr(FF3RConfig, f"da3_{size}")()


def small() -> dict[str, Tensor]:
    return shapes_of("da3_small")


def renamed(prefix: str) -> dict[str, Tensor]:
    return {f"{prefix}{name}": tensor for name, tensor in small().items()}


def without(beginning: str) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in small().items() if not name.startswith(beginning)}


WRONG = {
    "metric": (lambda: shapes_of("da3metric_large"), "metric or mono network .*sees one view alone: DA3-SMALL"),
    "nested": (lambda: renamed("da3.") | renamed("da3_metric."), "nested giant and metric networks: DA3-SMALL"),
    "giant": (
        lambda: small() | {"backbone.pretrained.blocks.0.mlp.w12.weight": torch.empty(1)},
        "Depth Anything 3 Giant, which FF3R does not run",
    ),
    "lora": (
        lambda: small() | {"backbone.pretrained.blocks.0.attn.qkv.lora_A.weight": torch.empty(1)},
        r"a LoRA \(backbone.pretrained.blocks.0.attn.qkv.lora_A.weight",
    ),
    "vggt": (
        lambda: {"aggregator.camera_token": torch.empty(1)},
        "looks like VGGT's, and --da3 is for Depth Anything 3",
    ),
    "stranger": (lambda: {"conv1.weight": torch.empty(1)}, "holds none that are known, and --da3 is for"),
    "other size": (
        lambda: small() | {"backbone.pretrained.cls_token": torch.empty(1, 1, 400)},
        "of 400 channels, which is no published size",
    ),
    "no backbone": (lambda: without("backbone."), "lacks backbone.pretrained.cls_token: fetch it again"),
    "no camera encoder": (lambda: without("cam_enc.token_norm"), "2 missing: cam_enc.token_norm.weight"),
    "a stray tensor": (lambda: small() | {"head.more": torch.empty(1)}, "1 unexpected: head.more"),
    "a shape": (
        lambda: small() | {"head.norm.bias": torch.empty(3)},
        r"1 misshapen: head.norm.bias is \[3\] and should be \[768\]",
    ),
}


@pytest.mark.parametrize("kind", WRONG)
def test_wrong_files_are_told_apart(kind: str) -> None:
    make, said = WRONG[kind]
    tensors = make()
    with pytest.raises(CheckpointError, match=f"(?s)some.file.*{said}"), torch.device("meta"):
        load_da3(FF3R(da3_config(tensors, "some.file")), tensors, "some.file")


def test_rays_share_the_first_levels_norm() -> None:
    tensors = {
        name.removeprefix("model."): standin_tensor(name, tuple(shape))
        for name, shape in json.loads((REFERENCE / "da3_small_shapes.json").read_text()).items()
        if "_aux" in name
    }
    assert tensors.keys() < DA3_UNUSED
    head = RayHead(FF3RConfig.da3_small().depth)
    load_da3_rays(head, tensors, "file")
    assert torch.equal(head.output_conv2[1].weight, tensors["head.scratch.output_conv2_aux.0.2.weight"])
    assert torch.equal(head.output_conv2[3].weight, tensors["head.scratch.output_conv2_aux.3.5.weight"])


def test_a_file_with_all_four_norms_is_taken_too(files: tuple[Path, Path], tmp_path: Path) -> None:
    more = {f"model.head.scratch.output_conv2_aux.{level}.2.weight": torch.zeros(1) for level in (1, 2, 3)}
    save_file(load_file(files[0]) | more, tmp_path / "all.safetensors")
    network = FF3R(config())
    load_da3(network, read_tensors(tmp_path / "all.safetensors"), "file")


def test_half_a_download_writes_nothing(
    files: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(semantics, "load_clip_text", lambda tensors: TextEncoder(TEXT).eval())
    half = tmp_path / "model.safetensors"
    half.write_bytes(files[0].read_bytes()[: files[0].stat().st_size // 2])
    with pytest.raises(CheckpointError, match=r"model\.safetensors.*fetch it again"):
        convert(Sources(da3=half, lseg=files[1]), tmp_path / "out.safetensors", channels=16, config=config())
    assert not (tmp_path / "out.safetensors").exists()


def test_geometry_comes_from_one_file(files: tuple[Path, Path], tmp_path: Path) -> None:
    for vggt, da3 in ((None, None), files):
        with pytest.raises(ConvertError, match="give one file for cameras and depth, --vggt or --da3"):
            Sources(vggt=vggt, da3=da3, lseg=files[1])
