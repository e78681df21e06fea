"""Windows of synthetic rooms with exact poses, as `posed_pictures` has them of real ones."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from benchmarks.slam.posed_pictures import VIEWS
from ff3r_model.core.geometry import invert_rigid
from ff3r_model.core.types import Window
from ff3r_model.frames.prepare import prepare, prepare_picture
from ff3r_model.synthetic import make_room, make_trajectory
from ff3r_model.synthetic.sequences import Sequence, room_sequence

WIDTH = 448
"""Pixels of the pictures."""
STEP = 0.15
"""Metres between the views of a window."""
FRAMES = 20
"""Of a room."""
FIRST_SEED = 30
"""Rooms that the weights have not seen."""


@dataclass(frozen=True)
class PosedRoom:
    """A walk through a room, by hand in every second one."""

    seed: int
    name: str = "rooms"

    @cached_property
    def sequence(self) -> Sequence:
        """The rendered pictures."""
        room, kind = make_room(self.seed), ("robot", "handheld")[self.seed % 2]
        return room_sequence(room, make_trajectory(room, self.seed, FRAMES, kind, STEP), WIDTH)

    def windows(self) -> list[tuple[int, ...]]:
        """The frame numbers of all windows, one per frame that begins one."""
        return [tuple(range(first, first + VIEWS)) for first in range(FRAMES - VIEWS + 1)]

    def window(self, numbers: tuple[int, ...], long_side: int, patch: int) -> tuple[Window, Float[Tensor, "views 4 4"]]:
        """A window as the pipeline would cut it, and its true cameras."""
        return window_of(self.sequence, numbers, long_side, patch)


def window_of(
    sequence: Sequence, numbers: tuple[int, ...], long_side: int, patch: int
) -> tuple[Window, Float[Tensor, "views 4 4"]]:
    """A window of a sequence's frames as the pipeline would cut it, and its true cameras."""
    frames = list(sequence.select(list(numbers)).frames())
    prepared = [prepare(frame.image, frame.intrinsics, long_side, patch) for frame in frames]
    pictures = [prepare_picture(frame.image, crop) for frame, (_, _, crop) in zip(frames, prepared, strict=True)]
    intrinsics = torch.stack([matrix for _, matrix, _ in prepared if matrix is not None])
    images = torch.stack([image for image, _, _ in prepared])
    window = Window(images, numbers, numbers, intrinsics, pictures=torch.stack(pictures))
    return window, invert_rigid(sequence.world_from_camera[list(numbers)])


def open_rooms(count: int) -> list[PosedRoom]:
    """So many rooms."""
    return [PosedRoom(FIRST_SEED + place) for place in range(count)]
