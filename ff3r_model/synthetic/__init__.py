"""Procedural rooms with exact ground truth, and a simulated network (oracle) that knows it."""

from ff3r_model.synthetic.camera import look_along, pinhole
from ff3r_model.synthetic.cloud import RoomCloud, room_cloud
from ff3r_model.synthetic.raytracer import RenderConfig, Views, render
from ff3r_model.synthetic.rooms import Instance, Room, make_room
from ff3r_model.synthetic.trajectory import make_trajectory
from ff3r_model.synthetic.vocabulary import CLASS_ID, CLASSES, COLOR_ID, COLORS

__all__ = [
    "CLASSES", "CLASS_ID", "COLORS", "COLOR_ID", "Instance", "RenderConfig", "Room", "RoomCloud", "Views",
    "look_along", "make_room", "make_trajectory", "pinhole", "render", "room_cloud",
]  # fmt: skip
