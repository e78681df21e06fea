"""Procedural rooms with exact ground truth, and a simulated network (oracle) that knows it."""

from ff3r_model.synthetic.camera import look_along, pinhole
from ff3r_model.synthetic.raytracer import RayTracerConfig, RenderedViews, render
from ff3r_model.synthetic.rooms import Instance, Room, make_room
from ff3r_model.synthetic.trajectory import make_trajectory
from ff3r_model.synthetic.vocabulary import CLASS_ID, CLASSES, COLOR_ID, COLORS

__all__ = [
    "CLASSES",
    "CLASS_ID",
    "COLORS",
    "COLOR_ID",
    "Instance",
    "RayTracerConfig",
    "RenderedViews",
    "Room",
    "look_along",
    "make_room",
    "make_trajectory",
    "pinhole",
    "render",
]  # fmt: skip
