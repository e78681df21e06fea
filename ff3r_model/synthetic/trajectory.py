"""Camera trajectories through a room: a robot's tour, a hand-held walk, and overlapping viewpoints for training."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ff3r_model.synthetic.camera import look_along
from ff3r_model.synthetic.furnished.room import FurnishedRoom
from ff3r_model.synthetic.raytracer import trace
from ff3r_model.synthetic.rooms import Room
from ff3r_model.synthetic.tour import Tour, plan_tour
from ff3r_model.synthetic.viewpoints import FirstHits, overlapping_viewpoints

DEFAULT_STEP: dict[str, float] = {"robot": 0.05, "handheld": 0.08, "random": 0.4}
DEGREES_PER_METRE = 60.0
"""A step of s metres turns the camera by at most 60·s degrees (5 cm, 3°)."""
ROBOT_HEIGHT = (0.6, 1.3)
HANDHELD_HEIGHT = (1.2, 1.8)
LOOK_AHEAD = 0.8
"""Metres along the tour to the point that the camera faces."""
SPACING = 0.02
"""Metres between the points at which the tour is laid out before frames are drawn from it."""


def make_trajectory(
    room: Room | FurnishedRoom, seed: int, views: int, kind: str = "robot", step: float | None = None
) -> Float[Tensor, "views 4 4"]:
    """Poses world_from_camera (OpenCV axes, metres) of a smooth tour, or of overlapping viewpoints for training.

    `step` is metres of path per frame for "robot" and "handheld" (tours repeat after a lap); for "random" it is
    the largest step as a share of the scene's depth (the smallest is a quarter of it). ValueError for an unknown kind.
    """
    if kind not in DEFAULT_STEP:
        raise ValueError(f"unknown kind of trajectory {kind!r}; use one of {', '.join(DEFAULT_STEP)}")
    if views < 1:
        raise ValueError(f"a trajectory needs at least one view, not {views}")
    step = DEFAULT_STEP[kind] if step is None else step
    rng = np.random.default_rng([room.seed, seed, len(kind)])
    if kind == "random":
        return overlapping_viewpoints(room.to("cpu"), _first_hits(room), rng, views, step)
    handheld = kind == "handheld"
    height = float(rng.uniform(*(HANDHELD_HEIGHT if handheld else ROBOT_HEIGHT)))
    tour = plan_tour(room, rng, HANDHELD_HEIGHT[1] if handheld else height)
    lap = _handheld_lap(tour, rng) if handheld else _robot_lap(tour, rng, height)
    return _frames(*lap, views, step)


def _first_hits(room: Room | FurnishedRoom) -> FirstHits:
    if isinstance(room, FurnishedRoom):
        return room.first_hits
    here = room.to("cpu")
    return lambda rays: trace(here, rays)[0]


def _robot_lap(tour: Tour, rng: np.random.Generator, height: float) -> tuple[np.ndarray, np.ndarray]:
    """Positions and yaw, pitch, roll (radians) along one lap of a robot with a fixed camera."""
    xy, yaw = _lay_out(tour)
    position = np.column_stack([xy, np.full(len(xy), height)])
    pitch = np.full(len(xy), np.radians(rng.uniform(-12, -2)))
    return position, np.column_stack([yaw, pitch, np.zeros(len(xy))])


def _handheld_lap(tour: Tour, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """The same with a camera that sways in height and in all three angles."""
    xy, yaw = _lay_out(tour)
    low, high = HANDHELD_HEIGHT
    height = (low + high) / 2 + (high - low) / 2 * _sway(rng, len(xy))
    yaw = yaw + np.radians(35) * _sway(rng, len(xy))
    pitch = np.radians(-12) + np.radians(12) * _sway(rng, len(xy))
    roll = np.radians(5) * _sway(rng, len(xy))
    return np.column_stack([xy, height]), np.column_stack([yaw, pitch, roll])


def _lay_out(tour: Tour) -> tuple[np.ndarray, np.ndarray]:
    """Points of the closed tour SPACING apart, and the unwrapped yaw towards a point further along."""
    xy = tour.resampled(SPACING)
    ahead = np.roll(xy, -max(1, min(int(LOOK_AHEAD / SPACING), len(xy) // 4)), axis=0) - xy
    if tour.length < 4 * SPACING:
        return xy, np.linspace(0, 2 * np.pi, len(xy), endpoint=False)
    return xy, np.unwrap(np.arctan2(ahead[:, 1], ahead[:, 0]))


def _sway(rng: np.random.Generator, count: int) -> np.ndarray:
    """Smooth periodic noise in [-1, 1]."""
    phase = np.linspace(0, 2 * np.pi, count, endpoint=False)
    laps = rng.permutation(np.arange(1, 6))[:3]
    waves = [np.sin(lap * phase + rng.uniform(0, 2 * np.pi)) / (1 + 0.2 * lap) for lap in laps]
    total = np.sum(waves, axis=0)
    return total / max(1.0, np.abs(total).max())


def _frames(position: np.ndarray, angles: np.ndarray, views: int, step: float) -> Tensor:
    """Poses at equal effort along laps: each frame moves at most `step` and turns in proportion."""
    turns = np.diff(angles, axis=0, append=angles[:1])
    turns = np.abs((turns + np.pi) % (2 * np.pi) - np.pi).sum(1)
    moves = np.linalg.norm(np.diff(position, axis=0, append=position[:1]), axis=1)
    effort = np.maximum(moves / step, np.degrees(turns) / (DEGREES_PER_METRE * step))
    along = np.concatenate([[0.0], np.cumsum(effort)])
    wanted = np.arange(views) % max(along[-1], 1.0)
    closed_angles = np.unwrap(np.concatenate([angles, angles[:1]]), axis=0)
    closed_position = np.concatenate([position, position[:1]])
    centre = np.column_stack([np.interp(wanted, along, closed_position[:, k]) for k in range(3)])
    yaw, pitch, roll = (np.interp(wanted, along, closed_angles[:, k]) for k in range(3))
    forward = np.column_stack([np.cos(pitch) * np.cos(yaw), np.cos(pitch) * np.sin(yaw), np.sin(pitch)])
    as_tensor = (torch.tensor(values, dtype=torch.float32) for values in (centre, forward, roll))
    return look_along(*as_tensor)
