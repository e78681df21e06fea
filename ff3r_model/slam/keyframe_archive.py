"""What the map remembers of its frames, so that places can be recognised: pictures, coarse depth and descriptors."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch
from jaxtyping import Float, Float16, Int, UInt8
from torch import Tensor

from ff3r_model.core.geometry import transform_pose
from ff3r_model.core.ranges import AT_LEAST_ONE, NOT_NEGATIVE, SHARE, Range, check_range
from ff3r_model.core.types import Prediction, Similarity, Window
from ff3r_model.slam.placed_frames import SharedFrames

HALF_MAX = 6e4
"""Below the largest float16."""
FRAME_OVERHEAD = 2048
"""Bytes that Python takes for a remembered frame besides its arrays: an estimate from above."""


log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ArchiveConfig:
    """How much is remembered of the frames. All ours."""

    max_frames: int = 2000
    depth_side: int = 56
    """Depth and confidence are thinned until their long side is at most this."""
    jpeg_quality: int = 95
    heading: float = 2.0
    """Difference of two unit viewing directions that counts as much as the frames' median distance to what they see."""
    evict_share: float = 0.1
    """Share of the frames that go at once when there are too many, the most redundant in space first."""

    def __post_init__(self) -> None:
        check_range(self, NOT_NEGATIVE, "max_frames", "heading")
        check_range(self, AT_LEAST_ONE, "depth_side")
        check_range(self, Range(1, 100), "jpeg_quality")
        check_range(self, SHARE, "evict_share")


@dataclass(frozen=True)
class ArchivedFrame:
    """A keyframe, in the frame and the unit of its submap."""

    keyframe: int
    stamp: int
    anchor: int
    """The window it moves with."""
    submap: int
    jpeg: UInt8[np.ndarray, " bytes"]
    depth: Float16[Tensor, "h w"]
    """Of every `step`-th pixel, in units of `unit`."""
    unit: float
    confidence: Float16[Tensor, "h w"]
    intrinsics: Float[Tensor, "3 3"]
    """In the pixels of `depth`."""
    full_intrinsics: Float[Tensor, "3 3"] | None
    """In the pixels of the picture, where they were given."""
    map_from_camera: Float[Tensor, "4 4"]
    descriptor: Float16[Tensor, " channels"]

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        arrays = (self.depth, self.confidence, self.descriptor, self.map_from_camera, self.intrinsics)
        return self.jpeg.nbytes + sum(array.nbytes for array in arrays) + FRAME_OVERHEAD

    @property
    def image(self) -> Float[Tensor, "3 h w"]:
        """The picture, RGB in [0, 1]."""
        decoded = cv2.imdecode(self.jpeg, cv2.IMREAD_COLOR)
        assert decoded is not None
        pixels = cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB)
        return torch.from_numpy(pixels).permute(2, 0, 1).float() / 255


class Archive:
    """Frames by keyframe id, of all submaps, within a budget of bytes. What lies closest to others goes first."""

    def __init__(self, budget: int, config: ArchiveConfig | None = None) -> None:
        self.budget, self.config = budget, config or ArchiveConfig()
        self.frames: dict[int, ArchivedFrame] = {}
        self.nbytes = 0

    def __len__(self) -> int:
        return len(self.frames)

    def add(self, frames: Sequence[ArchivedFrame]) -> None:
        """Remember frames; those that are known stay as they are."""
        if frames and self.frames and frames[0].depth.shape != next(iter(self.frames.values())).depth.shape:
            log.warning("the image size changed: places seen before it cannot be recognised any more")
            self._remove(list(self.frames))
        for frame in frames:
            if frame.keyframe not in self.frames:
                self.frames[frame.keyframe] = frame
                self.nbytes += frame.nbytes
        while self.frames and (self.nbytes > self.budget or len(self) > self.config.max_frames):
            self._evict(max(1, int(self.config.evict_share * len(self))))

    def descriptors(self) -> Float[Tensor, "n channels"]:
        """Of all frames, in their order."""
        return torch.stack([frame.descriptor for frame in self.frames.values()]).float()

    def around(self, frame: ArchivedFrame, count: int) -> list[ArchivedFrame]:
        """The frame and its neighbours in time within its submap, in order: up to `count`."""
        kin = sorted(
            (each for each in self.frames.values() if each.submap == frame.submap), key=lambda each: each.stamp
        )
        place = next(index for index, each in enumerate(kin) if each.keyframe == frame.keyframe)
        start = max(0, min(place - count // 2, len(kin) - count))
        return kin[start : start + count]

    def move(self, submap: int, new_from_old: Mapping[int, Similarity]) -> None:
        """Let each frame of a submap go where its anchor goes."""
        self._change(submap, lambda frame: _moved(frame, new_from_old.get(frame.anchor)))

    def rescale(self, submap: int, factor: float) -> None:
        """Multiply every length of a submap."""
        self._change(submap, lambda frame: _moved(frame, Similarity(factor)))

    def join(self, submap: int, into: int, map_from_map: Similarity) -> None:
        """Let a submap's frames be another's."""
        self._change(submap, lambda frame: replace(_moved(frame, map_from_map), submap=into))

    def relabel(self, new_of_old: Mapping[int, int]) -> None:
        """Give frames other anchors, where windows become one."""
        for key, frame in self.frames.items():
            if frame.anchor in new_of_old:
                self.frames[key] = replace(frame, anchor=new_of_old[frame.anchor])

    def renumber(self, new_of_old: Mapping[int, int]) -> None:
        """Give the keyframes other ids."""
        frames = [replace(frame, keyframe=new_of_old[frame.keyframe]) for frame in self.frames.values()]
        self.frames = {frame.keyframe: frame for frame in frames}

    def drop(self, submap: int) -> None:
        """Forget a submap's frames."""
        self._remove([key for key, frame in self.frames.items() if frame.submap == submap])

    def tensors(self) -> dict[str, Tensor]:
        """For a file; empty where nothing is remembered."""
        frames = list(self.frames.values())
        if not frames:
            return {}
        known = [torch.full((3, 3), torch.nan) if f.full_intrinsics is None else f.full_intrinsics for f in frames]
        return {
            "ids": torch.tensor([[f.keyframe, f.stamp, f.anchor, f.submap, len(f.jpeg)] for f in frames]),
            "jpegs": torch.from_numpy(np.concatenate([f.jpeg for f in frames])),
            "depths": torch.stack([f.depth for f in frames]),
            "units": torch.tensor([f.unit for f in frames], dtype=torch.float64),
            "confidences": torch.stack([f.confidence for f in frames]),
            "intrinsics": torch.stack([f.intrinsics for f in frames]),
            "full_intrinsics": torch.stack(known),
            "poses": torch.stack([f.map_from_camera for f in frames]),
            "descriptors": torch.stack([f.descriptor for f in frames]),
        }

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over what `tensors` gave."""
        if not tensors:
            return
        ids = tensors["ids"].tolist()
        jpegs = np.split(tensors["jpegs"].numpy(), np.cumsum([row[4] for row in ids])[:-1])
        for i, (keyframe, stamp, anchor, submap, _) in enumerate(ids):
            full = tensors["full_intrinsics"][i]
            depth, confidence, descriptor = (
                tensors[name][i].clone() for name in ("depths", "confidences", "descriptors")
            )
            frame = ArchivedFrame(
                keyframe=keyframe,
                stamp=stamp,
                anchor=anchor,
                submap=submap,
                jpeg=jpegs[i].copy(),
                depth=depth,
                unit=float(tensors["units"][i]),
                confidence=confidence,
                intrinsics=tensors["intrinsics"][i].clone(),
                full_intrinsics=None if full.isnan().any() else full.clone(),
                map_from_camera=tensors["poses"][i].clone(),
                descriptor=descriptor,
            )
            self.add([frame])

    def _change(self, submap: int, new: Callable[[ArchivedFrame], ArchivedFrame]) -> None:
        for key, frame in self.frames.items():
            if frame.submap == submap:
                self.frames[key] = new(frame)

    def _evict(self, count: int) -> None:
        """Forget `count` frames: again and again the older one of the two that see most nearly the same."""
        frames = list(self.frames.values())
        apart = _apart(frames, self.config.heading)
        nearest, which = apart.min(dim=1)
        gone: list[int] = []
        for _ in range(count):
            first = int(nearest.argmin())
            older = min(first, int(which[first]))
            apart[older], apart[:, older], nearest[older] = torch.inf, torch.inf, torch.inf
            lost = which == older
            nearest[lost], which[lost] = apart[lost].min(dim=1)
            gone.append(frames[older].keyframe)
        self._remove(gone)

    def _remove(self, keys: Sequence[int]) -> None:
        for key in keys:
            self.nbytes -= self.frames.pop(key).nbytes


def archived(
    window: Window,
    prediction: Prediction,
    placed: SharedFrames,
    views: Int[Tensor, " n"],
    anchor: int,
    submap: int,
    config: ArchiveConfig,
) -> list[ArchivedFrame]:
    """Some views of a placed window, as they are remembered; none where the network gives no descriptors."""
    if prediction.descriptors is None:
        return []
    thin, descriptors = placed.thinned(config.depth_side), prediction.descriptors.float().cpu().half()

    def frame(view: int) -> ArchivedFrame:
        depth = thin.depth[view].float().cpu()
        unit = float(depth.median().clamp_min(1e-6))
        return ArchivedFrame(
            keyframe=window.keyframes[view],
            stamp=window.stamps[view],
            anchor=anchor,
            submap=submap,
            jpeg=_jpeg(window.images[view], config.jpeg_quality),
            depth=(depth / unit).clamp(0, HALF_MAX).half(),
            unit=unit,
            confidence=thin.confidence[view].float().cpu().clamp(0, HALF_MAX).half(),
            intrinsics=thin.intrinsics[view].float().cpu(),
            full_intrinsics=None if window.intrinsics is None else window.intrinsics[view].float().cpu(),
            map_from_camera=thin.map_from_camera[view].float().cpu(),
            descriptor=descriptors[view],
        )

    return [frame(view) for view in views.tolist()]


def shared_frames(frames: Sequence[ArchivedFrame]) -> SharedFrames:
    """Remembered frames as something to align a window to."""
    return SharedFrames(
        tuple(frame.keyframe for frame in frames),
        torch.stack([frame.map_from_camera for frame in frames]),
        torch.stack([frame.depth.float() * frame.unit for frame in frames]),
        torch.stack([frame.confidence.float() for frame in frames]),
        torch.stack([frame.intrinsics for frame in frames]),
    )


def joint_window(frames: Sequence[ArchivedFrame]) -> Window:
    """Remembered frames as a window for the network."""
    known = [frame.full_intrinsics for frame in frames if frame.full_intrinsics is not None]
    return Window(
        torch.stack([frame.image for frame in frames]),
        tuple(frame.keyframe for frame in frames),
        tuple(frame.stamp for frame in frames),
        torch.stack(known) if len(known) == len(frames) else None,
    )


def _moved(frame: ArchivedFrame, motion: Similarity | None) -> ArchivedFrame:
    if motion is None:
        return frame
    pose = transform_pose(motion, frame.map_from_camera.double()).float()
    return replace(frame, map_from_camera=pose, unit=frame.unit * motion.scale)


def _jpeg(image: Float[Tensor, "3 h w"], quality: int) -> UInt8[np.ndarray, " bytes"]:
    pixels = (image.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).cpu().numpy()
    good, data = cv2.imencode(".jpg", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])
    assert good
    return data.reshape(-1)


def _apart(frames: Sequence[ArchivedFrame], heading: float) -> Float[Tensor, "n n"]:
    """How different the views of two frames are; infinite across submaps and on the diagonal."""
    poses = torch.stack([frame.map_from_camera for frame in frames])
    reach = torch.tensor([frame.unit for frame in frames])
    apart = torch.cdist(poses[:, :3, 3], poses[:, :3, 3]) / torch.minimum(reach[:, None], reach[None])
    apart += torch.cdist(poses[:, :3, 2], poses[:, :3, 2]) / heading
    submaps = torch.tensor([frame.submap for frame in frames])
    return apart.masked_fill((submaps[:, None] != submaps[None]), 1e6).fill_diagonal_(torch.inf)
