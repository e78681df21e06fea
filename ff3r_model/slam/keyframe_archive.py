"""The keyframe database: pictures, coarse depth and descriptors of keyframes, so that places can be recognised."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import cv2
import numpy as np
import torch
from jaxtyping import Float, Float16, Int, UInt8
from torch import Tensor

from ff3r_model.core.node import Node, place_each
from ff3r_model.core.ranges import AT_LEAST_ONE, NOT_NEGATIVE, SHARE, Range, check_range
from ff3r_model.core.types import Prediction, Window
from ff3r_model.slam.geometric_verification import Sighting
from ff3r_model.slam.landmarks import Landmarks, joined, split
from ff3r_model.slam.placed_frames import PlacedFrames
from ff3r_model.voxel_map.config import NO_WINDOW

HALF_MAX = 6e4
"""Below the largest float16."""
FRAME_OVERHEAD = 2048
"""Bytes that Python takes for a remembered frame besides its arrays: an estimate from above."""


log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ArchiveConfig:
    """How much is remembered of the keyframes."""

    max_frames: int = 2000
    depth_side: int = 56
    """Depth and confidence are thinned until their long side is at most this."""
    jpeg_quality: int = 95
    landmarks: int = 200
    """Triangulated points of each, at most, by which its place is proved when it is seen again: 140 bytes each."""
    heading: float = 2.0
    """Difference of two unit viewing directions that counts as much as the frames' median distance to what they see."""
    evict_share: float = 0.1
    """Share of the frames that go at once when there are too many, the most redundant in space first."""

    def __post_init__(self) -> None:
        check_range(self, NOT_NEGATIVE, "max_frames", "landmarks", "heading")
        check_range(self, AT_LEAST_ONE, "depth_side")
        check_range(self, Range(1, 100), "jpeg_quality")
        check_range(self, SHARE, "evict_share")


@dataclass(frozen=True)
class ArchivedFrame:
    """A keyframe, relative to a node of the pose graph: it is where the node is, in the node's submap."""

    keyframe: int
    stamp: int
    """ns."""
    node: Node
    jpeg: UInt8[np.ndarray, " bytes"]
    depth: Float16[Tensor, "h w"]
    """Of every `step`-th pixel, in units of `unit`."""
    node_unit: float
    """Median depth, in the node's unit."""
    confidence: Float16[Tensor, "h w"]
    intrinsics: Float[Tensor, "3 3"]
    """In the pixels of `depth`."""
    full_intrinsics: Float[Tensor, "3 3"] | None
    """In the pixels of the picture, where they were given."""
    node_from_camera: Float[Tensor, "4 4"]
    descriptor: Float16[Tensor, " channels"]
    landmarks: Landmarks = field(default_factory=Landmarks.none)
    """In the node's unit."""

    @property
    def submap(self) -> int:
        """Number of the submap that it is part of."""
        return self.node.submap

    @property
    def unit(self) -> float:
        """Median depth, in the unit of the submap."""
        return self.node_unit * self.node.map_from_node.scale

    @property
    def map_from_camera(self) -> Float[Tensor, "4 4"]:
        """Pose in the submap."""
        return self.node.place(self.node_from_camera)

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        arrays = (self.depth, self.confidence, self.descriptor, self.node_from_camera, self.intrinsics)
        return self.jpeg.nbytes + self.landmarks.nbytes + sum(array.nbytes for array in arrays) + FRAME_OVERHEAD

    @property
    def sighting(self) -> Sighting:
        """The view and its landmarks, in the frame and unit of the submap."""
        return Sighting(self.keyframe, self.map_from_camera, self.landmarks.scaled(self.node.map_from_node.scale))

    @property
    def image(self) -> Float[Tensor, "3 h w"]:
        """The picture, RGB in [0, 1]."""
        decoded = cv2.imdecode(self.jpeg, cv2.IMREAD_COLOR)
        assert decoded is not None
        pixels = cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB)
        return torch.from_numpy(pixels).permute(2, 0, 1).float() / 255


class KeyframeArchive:
    """Keyframes by id, of all submaps, within a budget of bytes. What lies closest to others goes first.

    Nothing here is to be told when a map moves: the frames are relative to nodes.
    """

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

    def reanchor(self, nodes: Mapping[int, Node]) -> None:
        """Let the frames of some windows move with other nodes from now on; they stay where they are."""
        for key, frame in self.frames.items():
            if frame.node.window in nodes:
                self.frames[key] = _reanchored(frame, nodes[frame.node.window])

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
            "ids": torch.tensor([[f.keyframe, f.stamp, f.node.window, f.submap, len(f.jpeg)] for f in frames]),
            "jpegs": torch.from_numpy(np.concatenate([f.jpeg for f in frames])),
            "depths": torch.stack([f.depth for f in frames]),
            "units": torch.tensor([f.unit for f in frames], dtype=torch.float64),
            "confidences": torch.stack([f.confidence for f in frames]),
            "intrinsics": torch.stack([f.intrinsics for f in frames]),
            "full_intrinsics": torch.stack(known),
            "poses": _poses(frames),
            "descriptors": torch.stack([f.descriptor for f in frames]),
        } | joined([frame.sighting.landmarks for frame in frames])

    def restore(self, tensors: Mapping[str, Tensor], nodes: Mapping[int, Node]) -> None:
        """Take over what `tensors` gave. `nodes`: by window, of all submaps; a KeyError names one that is missing."""
        if not tensors:
            return
        ids = tensors["ids"].tolist()
        jpegs = np.split(tensors["jpegs"].numpy(), np.cumsum([row[4] for row in ids])[:-1])
        landmarks = split(tensors, len(ids))
        for i, (keyframe, stamp, window, _, _) in enumerate(ids):
            full, node = tensors["full_intrinsics"][i], nodes[window]
            depth, confidence, descriptor = (
                tensors[name][i].clone() for name in ("depths", "confidences", "descriptors")
            )
            frame = ArchivedFrame(
                keyframe=keyframe,
                stamp=stamp,
                node=node,
                jpeg=jpegs[i].copy(),
                depth=depth,
                node_unit=float(tensors["units"][i]) / node.map_from_node.scale,
                confidence=confidence,
                intrinsics=tensors["intrinsics"][i].clone(),
                full_intrinsics=None if full.isnan().any() else full.clone(),
                node_from_camera=node.relative(tensors["poses"][i]),
                descriptor=descriptor,
                landmarks=landmarks[i].scaled(1 / node.map_from_node.scale),
            )
            self.add([frame])

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
    placed: PlacedFrames,
    views: Int[Tensor, " n"],
    config: ArchiveConfig,
) -> list[ArchivedFrame]:
    """Some views of a placed window as keyframes to remember; none where the network gives no descriptors."""
    if prediction.descriptors is None:
        return []
    thin, descriptors = placed.thinned(config.depth_side), prediction.descriptors.float().cpu().half()

    def frame(view: int) -> ArchivedFrame:
        depth = thin.node_depth[view].float().cpu().nan_to_num(0, 0, 0)
        unit = float(depth.median().clamp_min(1e-6))
        return ArchivedFrame(
            keyframe=window.keyframes[view],
            stamp=window.stamps[view],
            node=placed.node,
            jpeg=_jpeg(window.images[view], config.jpeg_quality),
            depth=(depth / unit).clamp(0, HALF_MAX).half(),
            node_unit=unit,
            confidence=thin.confidence[view].float().cpu().nan_to_num(0).clamp(0, HALF_MAX).half(),
            intrinsics=thin.intrinsics[view].float().cpu(),
            full_intrinsics=None if window.intrinsics is None else window.intrinsics[view].float().cpu(),
            node_from_camera=thin.node_from_camera[view].float().cpu(),
            descriptor=descriptors[view],
            landmarks=Landmarks.seen(prediction, view, config.landmarks),
        )

    return [frame(view) for view in views.tolist()]


def placed_frames(frames: Sequence[ArchivedFrame]) -> PlacedFrames:
    """Remembered keyframes of one submap as something to align a window to, in the submap's own frame."""
    return PlacedFrames(
        tuple(frame.keyframe for frame in frames),
        Node(NO_WINDOW),
        _poses(frames),
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


def _reanchored(frame: ArchivedFrame, node: Node) -> ArchivedFrame:
    pose, unit = node.relative(frame.map_from_camera), frame.unit / node.map_from_node.scale
    landmarks = frame.landmarks.scaled(frame.node.map_from_node.scale / node.map_from_node.scale)
    return replace(frame, node=node, node_from_camera=pose, node_unit=unit, landmarks=landmarks)


def _poses(frames: Sequence[ArchivedFrame]) -> Float[Tensor, "n 4 4"]:
    """map_from_camera of each."""
    return place_each([frame.node for frame in frames], torch.stack([frame.node_from_camera for frame in frames]))


def _jpeg(image: Float[Tensor, "3 h w"], quality: int) -> UInt8[np.ndarray, " bytes"]:
    pixels = (image.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).cpu().numpy()
    good, data = cv2.imencode(".jpg", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])
    assert good
    return data.reshape(-1)


def view_distance(
    some: Sequence[ArchivedFrame], others: Sequence[ArchivedFrame], heading: float
) -> Float[Tensor, "n m"]:
    """How different the views of two frames of one submap are: their distance as a share of the nearer one's depth,
    and the difference of their viewing directions over `heading`."""
    poses, other_poses = _poses(some), _poses(others)
    reach, other_reach = (torch.tensor([frame.unit for frame in frames]) for frames in (some, others))
    apart = torch.cdist(poses[:, :3, 3], other_poses[:, :3, 3]) / torch.minimum(reach[:, None], other_reach[None])
    return apart + torch.cdist(poses[:, :3, 2], other_poses[:, :3, 2]) / heading


def _apart(frames: Sequence[ArchivedFrame], heading: float) -> Float[Tensor, "n n"]:
    """How different the views of two frames are; infinite across submaps and on the diagonal."""
    apart = view_distance(frames, frames, heading)
    submaps = torch.tensor([frame.submap for frame in frames])
    return apart.masked_fill((submaps[:, None] != submaps[None]), 1e6).fill_diagonal_(torch.inf)
