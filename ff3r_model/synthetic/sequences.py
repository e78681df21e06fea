"""Views with exact depth and poses, small enough to hold: what oracle windows are made from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ff3r_model.core.geometry import transform_points, unproject
from ff3r_model.core.types import Frame, Window
from ff3r_model.frames.prepare import prepare, prepare_depth
from ff3r_model.frames.rgbd import RgbdSource
from ff3r_model.synthetic import Room, pinhole, render
from ff3r_model.synthetic.walker import Walker

PATCH = 14
FRAME_NANOSECONDS = 100_000_000
"""Between the frames of synthetic sequences."""


@dataclass(frozen=True)
class Sequence:
    """Frames in order of time, with what is true of them."""

    name: str
    images: Float[Tensor, "n 3 h w"]
    depth: Float[Tensor, "n h w"]
    """z in metres, 0 where nobody knows it."""
    world_from_camera: Float[Tensor, "n 4 4"]
    intrinsics: Float[Tensor, "3 3"]
    stamps: tuple[int, ...]
    """Nanoseconds, strictly growing."""
    world_up: Float[Tensor, " 3"] | None = None
    classes: Int[Tensor, "n h w"] | None = None
    """Indices into synthetic.CLASSES, where known."""
    moving: Bool[Tensor, "n h w"] | None = None
    """Pixels that show a figure which walks, where there is one."""

    def __len__(self) -> int:
        return len(self.stamps)

    @property
    def path_length(self) -> float:
        """Metres."""
        return float(self.world_from_camera[:, :3, 3].diff(dim=0).norm(dim=1).sum())

    def select(self, index: list[int]) -> Sequence:
        """Some of the frames, in that order, with new stamps so that time still grows."""
        stamps = tuple(range(0, len(index) * FRAME_NANOSECONDS, FRAME_NANOSECONDS))
        classes = None if self.classes is None else self.classes[index]
        moving = None if self.moving is None else self.moving[index]
        return replace(
            self,
            images=self.images[index],
            depth=self.depth[index],
            world_from_camera=self.world_from_camera[index],
            classes=classes,
            moving=moving,
            stamps=stamps,
        )

    def window(self, index: list[int], measured: bool = False) -> Window:
        """The frames of `index` as a window; keyframe ids are the indices. `measured`: with depth, odometry, up."""
        poses = self.world_from_camera[index]
        up = None if self.world_up is None else poses[:, :3, :3].mT @ self.world_up
        return Window(
            images=self.images[index],
            keyframes=tuple(index),
            stamps=tuple(self.stamps[i] for i in index),
            intrinsics=self.intrinsics.expand(len(index), 3, 3),
            depth=self.depth[index] if measured else None,
            odom_from_camera=poses if measured else None,
            up=up if measured else None,
        )

    def windows(self, views: int = 8, overlap: int = 4, measured: bool = False) -> Iterator[Window]:
        """All windows in turn; the last may be short."""
        for start in range(0, max(1, len(self) - overlap), views - overlap):
            index = list(range(start, min(start + views, len(self))))
            if len(index) > 1:
                yield self.window(index, measured)

    def frames(self) -> Iterator[Frame]:
        """As a camera would give them, RGB alone."""
        for image, stamp in zip(self.images, self.stamps, strict=True):
            yield Frame((image * 255).round().byte().permute(1, 2, 0).contiguous(), stamp, self.intrinsics)

    def points(self, stride: int = 2) -> Float[Tensor, "m 3"]:
        """Every surface point that some frame saw, in the world, one pixel of stride²."""
        local = unproject(self.depth, self.intrinsics[None])[:, ::stride, ::stride].flatten(1, 2)
        known = self.depth[:, ::stride, ::stride].flatten(1) > 0
        return transform_points(self.world_from_camera, local)[known]


def rgbd_sequence(path: Path, long_side: int = 56, limit: int | None = None) -> Sequence:
    """A real sequence at the size that oracle windows have. Depth is picked at pixel centres, never averaged."""
    source = RgbdSource(path)
    images, depths, intrinsics = [], [], None
    entries = source.entries[:limit]
    for entry in entries:
        frame = source.read(entry)
        assert frame.depth is not None
        image, intrinsics, crop = prepare(frame.image, frame.intrinsics, long_side, PATCH)
        images.append(image)
        depths.append(prepare_depth(frame.depth, crop))
    if intrinsics is None:
        raise ValueError(f"{path} says nothing of its camera's intrinsics")
    poses = torch.stack([entry.world_from_camera for entry in entries])
    stamps = tuple(entry.stamp for entry in entries)
    return Sequence(source.name, torch.stack(images), torch.stack(depths), poses, intrinsics, stamps, source.world_up)


def room_sequence(
    room: Room,
    world_from_camera: Float[Tensor, "n 4 4"],
    width: int = 56,
    name: str = "",
    walker: Walker | None = None,
) -> Sequence:
    """What a camera of 70° sees along a path through a synthetic world, images 4:3.

    The `walker` is in it, the frames' numbers being the time.
    """
    height, views = width * 3 // 4, len(world_from_camera)
    intrinsics = pinhole(height, width)
    if walker is None:
        parts = [render(room, world_from_camera, intrinsics.expand(views, 3, 3), height, width)]
    else:
        rooms = (walker.room_at(room, time) for time in range(views))
        parts = [
            render(now, pose[None], intrinsics[None], height, width)
            for now, pose in zip(rooms, world_from_camera, strict=True)
        ]
    return Sequence(
        name=name or f"room{room.seed}",
        images=torch.cat([part.images for part in parts]).permute(0, 3, 1, 2).float() / 255,
        depth=torch.cat([part.depth for part in parts]),
        world_from_camera=world_from_camera.clone(),
        intrinsics=intrinsics,
        stamps=tuple(range(0, views * FRAME_NANOSECONDS, FRAME_NANOSECONDS)),
        world_up=torch.tensor([0.0, 0.0, 1.0]),
        classes=torch.cat([part.classes for part in parts]).long(),
        moving=None if walker is None else torch.cat([part.instances for part in parts]) == len(room.instances),
    )
