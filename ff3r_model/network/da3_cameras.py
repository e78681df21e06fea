"""Depth Anything 3's camera decoder and camera encoder: tokens → poses, and known poses → tokens."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ff3r_model.network.config import CAMERA_HEADS
from ff3r_model.network.layers import Block, Mlp
from ff3r_model.network.pose_encoding import invert_encoding

POSE = 9
LAYER_SCALE = 0.01
DEPTH = 4
"""Blocks across the known cameras."""
START_STD = 0.002
"""Of the last layers' initial weights: cameras start near the identity."""


class CameraDecoder(nn.Module):
    """Camera tokens → pose encodings in one step. Names follow the published checkpoints."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU())
        self.fc_t = nn.Linear(width, 3)
        self.fc_qvec = nn.Linear(width, 4)
        self.fc_fov = nn.Sequential(nn.Linear(width, 2), nn.ReLU())

    def forward(self, camera: Float[Tensor, "batch views width"]) -> Float[Tensor, "1 batch views 9"]:
        """Encodings of camera_from_world; the published network's are of world_from_camera."""
        x = self.backbone(camera)
        return invert_encoding(torch.cat([self.fc_t(x), self.fc_qvec(x), self.fc_fov(x)], dim=-1))[None]

    def start_plain(self) -> None:
        """Initial weights: nearly the identity, fields of view near 1 radian."""
        field_of_view = self.fc_fov[0]
        assert isinstance(field_of_view, nn.Linear)
        for layer in (self.fc_t, self.fc_qvec, field_of_view):
            nn.init.trunc_normal_(layer.weight, std=START_STD)
            nn.init.zeros_(layer.bias)
        with torch.no_grad():
            self.fc_qvec.bias[3] = 1.0
            field_of_view.bias.fill_(1.0)


class CameraEncoder(nn.Module):
    """Known cameras → the tokens that stand for them among the patches. Names follow the published checkpoints."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.pose_branch = Mlp(POSE, width // 2, width)
        self.token_norm = nn.LayerNorm(width)
        self.trunk = nn.Sequential(*(Block(width, CAMERA_HEADS, layer_scale=LAYER_SCALE) for _ in range(DEPTH)))
        self.trunk_norm = nn.LayerNorm(width)

    def forward(self, known: Float[Tensor, "batch views 9"]) -> Float[Tensor, "batch views width"]:
        """Of encodings of camera_from_world, in float32 also under autocast, as published."""
        with torch.autocast(known.device.type, enabled=False):
            world_from_camera = invert_encoding(known.float())
            quaternion = world_from_camera[..., 3:7]
            upper = torch.where(quaternion[..., 3:] < 0, -quaternion, quaternion)
            encoding = torch.cat([world_from_camera[..., :3], upper, world_from_camera[..., 7:]], dim=-1)
            return self.trunk_norm(self.trunk(self.token_norm(self.pose_branch(encoding))))
