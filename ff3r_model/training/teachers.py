"""Teachers of the distillation: another network's predictions, or the synthetic world's truth, as training targets."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, normalize

from ff3r_model.network.model import FF3R, NetworkOutput
from ff3r_model.network.pose_encoding import encode_cameras
from ff3r_model.training.datasets.batches import TeacherTargets
from ff3r_model.training.datasets.room_views import RoomWindow
from ff3r_model.training.target_cache import TargetCache

FEATURE_STRIDE = 4
"""Pixels per feature that a teacher gives, along each side. LSeg's own are at 2, and four times the bytes."""
HALF_LIMIT = 65504.0
"""The largest number in half precision."""


@runtime_checkable
class Teacher(Protocol):
    """A teacher of the distillation: images in, targets out, on the images' device."""

    def __call__(
        self, images: Float[Tensor, "batch views 3 height width"], ids: tuple[str, ...], truth: RoomWindow | None = None
    ) -> TeacherTargets:
        """`ids`, one per view, window by window, name the pixels (a cache's key); `truth` is there in rooms alone."""
        ...


class NetworkTeacher:
    """Teacher network: converted VGGT + LSeg, or any FF3R checkpoint. A cache, if given, keeps its targets on disk.

    What it says has gone through half precision whether it comes from the cache or not, so both are the same numbers.
    """

    def __init__(self, network: FF3R, cache: TargetCache | None = None, stride: int = FEATURE_STRIDE) -> None:
        self.network, self.cache, self.stride = network.eval().requires_grad_(False), cache, stride

    @torch.inference_mode(False)
    @torch.no_grad()
    def __call__(
        self, images: Float[Tensor, "batch views 3 height width"], ids: tuple[str, ...], truth: RoomWindow | None = None
    ) -> TeacherTargets:
        """Cameras, depth and features of the windows. Known windows are read, the others computed together."""
        if self.cache is None:
            return _joined([self._halved(window) for window in self._ask(images)], images.device)
        keys = [self.cache.key(window) for window in images]
        said = [self.cache.read(key) for key in keys]
        missing = [index for index, window in enumerate(said) if window is None]
        if missing:
            for index, window in zip(missing, self._ask(images[missing]), strict=True):
                said[index] = self._halved(window)
                self.cache.write(keys[index], self._halved(window))
        return _joined([window for window in said if window is not None], images.device)

    def _ask(self, images: Float[Tensor, "batch views 3 height width"]) -> list[dict[str, Tensor]]:
        kind = images.device.type
        with torch.autocast(kind, torch.bfloat16, enabled=kind != "cpu"):
            output = self.network(images)
        return [_window(output, index, self.stride) for index in range(len(images))]

    @staticmethod
    def _halved(window: dict[str, Tensor]) -> dict[str, Tensor]:
        """Poses stay whole; everything else fits into half precision."""
        return {
            name: value.float().cpu() if name == "pose_encodings" else value.clamp(max=HALF_LIMIT).half().cpu()
            for name, value in window.items()
        }


class SyntheticTeacher:
    """Ground truth in a teacher's place; features are the text embeddings of what a pixel shows."""

    def __init__(self, classes: Float[Tensor, "classes text"], phrases: Float[Tensor, "phrases text"]) -> None:
        """`phrases` are class by colour, the colour varying fastest."""
        self.classes, self.phrases = classes, phrases

    def __call__(
        self, images: Float[Tensor, "batch views 3 height width"], ids: tuple[str, ...], truth: RoomWindow | None = None
    ) -> TeacherTargets:
        """Exact cameras and depth, and an embedding for every pixel; zero where nothing is hit."""
        assert truth is not None, "only batches of rooms have a truth"
        return TeacherTargets(
            pose_encodings=encode_cameras(truth.camera_from_world, truth.intrinsics, *truth.depth.shape[-2:]),
            depth=truth.depth,
            depth_confidence=(truth.depth > 0).to(truth.depth),
            features=self._features(truth),
        )

    def _features(self, truth: RoomWindow) -> Float[Tensor, "batch views text height width"]:
        names = len(self.phrases) // len(self.classes)
        table = torch.cat([self.phrases, self.classes, torch.zeros_like(self.classes[:1])]).to(truth.depth)
        plain = len(self.phrases) + truth.classes
        rows = torch.where(truth.colors >= 0, truth.classes * names + truth.colors, plain)
        rows = torch.where(truth.classes >= 0, rows, len(table) - 1)
        return table[rows].movedim(-1, 2)


def _window(output: NetworkOutput, index: int, stride: int) -> dict[str, Tensor]:
    """The last word on one window of a batch."""
    assert output.semantics is not None
    pose = output.pose_encodings[-1, index].float()
    rows, columns = (max(1, side // stride) for side in output.depth.shape[-2:])
    features = output.semantics[index].float()
    if features.shape[-2] > rows:
        features = adaptive_avg_pool2d(features, (rows, columns))
    return {
        "pose_encodings": torch.cat([pose[:, :3], normalize(pose[:, 3:7], dim=-1), pose[:, 7:]], dim=-1),
        "depth": output.depth[index],
        "depth_confidence": output.depth_confidence[index],
        "features": features,
    }


def _joined(windows: list[dict[str, Tensor]], device: torch.device) -> TeacherTargets:
    return TeacherTargets(
        **{name: torch.stack([window[name] for window in windows]).to(device).float() for name in windows[0]}
    )
