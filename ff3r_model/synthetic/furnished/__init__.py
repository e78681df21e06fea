"""Furnished rooms: real furniture models (CC0 and CC-BY) in procedural rooms, ray-traced, with exact ground truth."""

from ff3r_model.synthetic.furnished.camera_response import CameraResponse
from ff3r_model.synthetic.furnished.classes import CLASSES
from ff3r_model.synthetic.furnished.library import open_library
from ff3r_model.synthetic.furnished.models import MissingModels
from ff3r_model.synthetic.furnished.render import render_furnished
from ff3r_model.synthetic.furnished.room import FurnishedRoom, make_furnished_room

__all__ = [
    "CLASSES",
    "CameraResponse",
    "FurnishedRoom",
    "MissingModels",
    "make_furnished_room",
    "open_library",
    "render_furnished",
]
