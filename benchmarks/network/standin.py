"""Stand-ins for the files of the public checkpoints."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from benchmarks.network.standin_values import standin_tensor
from ff3r_model.network import FF3R, FF3RConfig
from ff3r_model.network.config import (
    AggregatorConfig,
    CameraHeadConfig,
    DA3Config,
    DPTConfig,
    FusionConfig,
    LSegConfig,
    TIPSv2Config,
    ViTConfig,
)
from ff3r_model.network.public_weights.da3 import DA3_UNUSED, published_name
from ff3r_model.network.public_weights.tensor_names import (
    CLIP_PREFIX,
    CLIP_UNUSED,
    LSEG_PREFIX,
    LSEG_UNUSED,
    TIPSV2_TEXT,
    VGGT_UNUSED,
)
from ff3r_model.network.text_encoder import TextConfig, TextEncoder
from ff3r_model.network.tipsv2 import TIPSv2
from ff3r_model.network.tipsv2_text import TextTower, TIPSv2TextConfig

DA3_PREFIX = "model."


def write_published(folder: Path, config: FF3RConfig) -> tuple[Path, Path]:
    """Files laid out like VGGT's model.pt and LSeg's demo_e200.ckpt, for a network of any size.

    Weights are float16: at full size the files take 2.3 and 0.8 GB. Tensors that the network leaves are single zeros.
    """
    with torch.device("meta"):
        network = FF3R(replace(config, decode_gaussians=False))
        tower = TextEncoder(TextConfig.clip_vitb32()).tower
    vggt, lseg = folder / "model.pt", folder / "demo_e200.ckpt"
    parts = [("aggregator.", network.aggregator), ("camera_head.", network.camera_head)]
    state = _filled([*parts, ("depth_head.", network.depth_head)])
    torch.save(state | _zeros(VGGT_UNUSED), vggt)
    del state
    image = _filled([("", network.lseg)]) | _zeros(LSEG_UNUSED)
    text = _filled([("", tower)]) | _zeros(CLIP_UNUSED)
    state = {LSEG_PREFIX + name: tensor for name, tensor in image.items()}
    state |= {CLIP_PREFIX + name: tensor for name, tensor in text.items()}
    torch.save({"state_dict": state, "epoch": 200}, lseg)
    return vggt, lseg


def write_tipsv2(folder: Path, image: TIPSv2Config, text: TIPSv2TextConfig) -> Path:
    """A file laid out like TIPSv2's model.safetensors, for towers of any size."""
    with torch.device("meta"):
        towers = [("", TIPSv2(image)), (TIPSV2_TEXT, TextTower(text))]
    names = [(prefix + name, tensor) for prefix, tower in towers for name, tensor in tower.state_dict().items()]
    path = folder / "model.safetensors"
    save_file({name: standin_tensor(name, tuple(tensor.shape)) for name, tensor in names}, path)
    return path


def tiny() -> FF3RConfig:
    """The classes of the full size, switched as there, in a network that runs in milliseconds."""
    dpt = DPTConfig(channels=(8, 8, 8, 8), features=8, hidden=(8, 8))
    vit = ViTConfig(width=16, depth=4, heads=2, patch=16, grid=4, registers=0, layer_scale=None)
    return FF3RConfig(
        name="tiny",
        long_side=84,
        encoder=ViTConfig(width=16, depth=1, heads=2, grid=4, registers=1),
        aggregator=AggregatorConfig(depth=4, heads=2, registers=1, layers=(0, 1, 2, 3)),
        camera=CameraHeadConfig(depth=1, heads=2),
        depth=dpt,
        lseg=LSegConfig(
            vit=replace(vit, interpolation="bilinear"), layers=(0, 1, 2, 3), channels=(8, 8, 8, 8), features=8
        ),
    )


def tiny_da3() -> FF3RConfig:
    """The same with Depth Anything 3's geometry."""
    decoder = DPTConfig(channels=(8, 8, 8, 8), features=8, hidden=(8, 8), relu_skip=False)
    return replace(
        tiny(),
        name="tiny-da3",
        encoder=ViTConfig(width=32, depth=10, heads=2, grid=4, registers=0, interpolation="bicubic_scaled"),
        da3=DA3Config(start=2, layers=(3, 5, 7, 9)),
        depth=decoder,
        fusion=FusionConfig(heads=2, width=16),
    )


def write_da3(folder: Path, config: FF3RConfig) -> Path:
    """A file laid out like Depth Anything 3's model.safetensors, for a network of any size; rays are single zeros."""
    with torch.device("meta"):
        network = FF3R(replace(config, decode_gaussians=False))
    parts = [("aggregator.", network.aggregator), ("camera_head.", network.camera_head)]
    shapes = _shapes([*parts, ("depth_head.", network.depth_head)])
    names = {DA3_PREFIX + published_name(name): shape for name, shape in shapes.items()}
    absent = {f"head.scratch.output_conv2_aux.{level}.2.{kind}" for level in (1, 2, 3) for kind in ("weight", "bias")}
    rays = {DA3_PREFIX + name: torch.zeros(1) for name in DA3_UNUSED - absent}
    path = folder / "model.safetensors"
    save_file({name: standin_tensor(name, shape) for name, shape in names.items()} | rays, path)
    return path


def _shapes(parts: list[tuple[str, nn.Module]]) -> dict[str, tuple[int, ...]]:
    return {prefix + name: tuple(x.shape) for prefix, part in parts for name, x in part.state_dict().items()}


def _filled(parts: list[tuple[str, nn.Module]]) -> dict[str, Tensor]:
    names = [(prefix + name, tensor) for prefix, part in parts for name, tensor in part.state_dict().items()]
    tensors = ((name, standin_tensor(name, tuple(tensor.shape))) for name, tensor in names)
    return {name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in tensors}


def _zeros(names: Iterable[str]) -> dict[str, Tensor]:
    return {name: torch.zeros(1) for name in names}
