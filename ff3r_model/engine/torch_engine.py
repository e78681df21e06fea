"""PyTorch engine: the network run by torch itself, on the device of its weights."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from ff3r_model.core.geometry import invert_rigid, is_rigid
from ff3r_model.core.types import Cameras, Prediction, Window
from ff3r_model.engine.frame_cache import CacheConfig, FrameCache
from ff3r_model.engine.half_precision import fastest_attention, halve_weights
from ff3r_model.network.decode import predict
from ff3r_model.network.frame_features import FrameFeatures
from ff3r_model.network.known_cameras import encode_known
from ff3r_model.network.layers import Block
from ff3r_model.network.model import FF3R
from ff3r_model.network.sparse_attention import SparseConfig

LEAST_MOTION = 0.05
"""Metres between cameras, below which odometry says nothing of the window's size."""


@dataclass(frozen=True)
class TorchConfig:
    """Memory and speed of the PyTorch engine. None of it changes a prediction but `sparse` and `known_cameras`."""

    cache: CacheConfig = field(default_factory=CacheConfig)
    compiled: bool = False
    """Let torch.compile fuse the transformer blocks: costs a minute at the first window, once for all view counts."""
    sparse: SparseConfig | None = None
    """Approximate the global attention of long windows: faster, and less exact (by how much: docs/performance.md)."""
    known_cameras: bool = True
    """Depth Anything 3 is told the poses and intrinsics of windows all of whose frames have odometry and calibration;
    predictions are then in metres. Other networks have nothing that reads them."""


class TorchEngine:
    """Runs the network in inference mode; bf16 on a GPU, float32 on a CPU. The network is the engine's from now on."""

    def __init__(
        self,
        network: FF3R,
        config: TorchConfig | None = None,
        because: str = "",
    ) -> None:
        """`because`: why it is torch, where TensorRT was wanted; for those who watch."""
        self.network = network.eval().requires_grad_(False)
        self.config, self.because = config or TorchConfig(), because
        self.cache = FrameCache(self.config.cache)
        self.device = next(network.parameters()).device
        self.half = self.device.type != "cpu"
        if self.half:
            halve_weights(network)
        if self.config.compiled:
            compile_blocks(network)

    @torch.inference_mode()
    def __call__(self, window: Window) -> Prediction:
        """The prediction for `window`, on the network's device. Raises ValueError for what the network cannot see."""
        images = window.images.to(self.device, non_blocking=True)
        self.network.check(images[None])
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.half), fastest_attention(self.device):
            frames = self.cache.features(window, images, self._encode)
            known = self._known(window)
            told = None if known is None else encode_known(known, *images.shape[-2:])[None]
            output = self.network.decode_window(images[None], frames, self.config.sparse, known=told)
        intrinsics = None if window.intrinsics is None else window.intrinsics.to(self.device, non_blocking=True)
        poses = None if known is None else known.camera_from_world
        return predict(output, intrinsics=intrinsics, images=images, known=poses)

    def _known(self, window: Window) -> Cameras | None:
        """The cameras by odometry and calibration, in metres, where the network takes them and all frames have them."""
        if not (self.config.known_cameras and self.network.config.takes_known_cameras):
            return None
        if window.odom_from_camera is None or window.intrinsics is None:
            return None
        poses = window.odom_from_camera
        moved = (poses[:, :3, 3] - poses[:1, :3, 3]).norm(dim=-1).max()
        # Not a number where a frame has no odometry
        if not (moved >= LEAST_MOTION and all(is_rigid(pose) for pose in poses)):
            return None
        return Cameras(invert_rigid(poses.float()).to(self.device), window.intrinsics.to(self.device).float())

    def _encode(self, images: Float[Tensor, "1 views 3 h w"]) -> FrameFeatures:
        return self.network.encode_frames(images)


def compile_blocks(network: FF3R) -> None:
    """Each transformer block is compiled when it first runs; blocks of one kind share the code, whatever their size."""
    for module in network.modules():
        if isinstance(module, Block):
            module.compile(dynamic=True)
