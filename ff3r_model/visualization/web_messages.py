"""Messages of browsers that the web viewer takes: camera moves and values of controls, checked before viser sees them.

viser has many more, some of which are not for everybody who may look: with one a browser publishes the page on the
internet, with others it uploads files, or sets any attribute of a control.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import msgspec

MAX_MESSAGE_BYTES = 16 * 1024
MAX_TEXT = 1000
"""Letters of a text that is typed into the page."""
CAMERA = {"wxyz": 4, "position": 3, "look_at": 3, "up_direction": 3, "fov": 0, "near": 0, "far": 0}
"""Fields of a camera message that are numbers, and how many; 0: one, not in a list."""
SIZES = ("image_height", "image_width")
LARGEST = 1e12
"""Of a camera's numbers: their squares and products stay finite."""


class MessageRejected(ValueError):
    """Bytes that are no message of a viewer's page."""


def acceptable(data: bytes) -> bool:
    """Whether a message is one of the two that count here; others are left out. MessageRejected for what is none."""
    try:
        message = msgspec.msgpack.decode(data)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise MessageRejected(f"no msgpack: {error}") from error
    if not isinstance(message, dict) or not isinstance(message.get("type"), str):
        raise MessageRejected("a message without a type")
    check = {"ViewerCameraMessage": _is_camera, "GuiUpdateMessage": _is_value}.get(message["type"])
    return check is not None and check(message)


def _is_camera(message: Mapping[str, Any]) -> bool:
    if message.keys() != {"type", *CAMERA, *SIZES}:
        return False
    numbers = all(_numbers(message[name], count) for name, count in CAMERA.items())
    return numbers and all(_is_size(message[name]) for name in SIZES)


def _is_value(message: Mapping[str, Any]) -> bool:
    """The new value of one control, and nothing else of it."""
    if message.keys() != {"type", "uuid", "updates"} or not isinstance(message["uuid"], str):
        return False
    updates = message["updates"]
    if not isinstance(updates, dict) or updates.keys() != {"value"}:
        return False
    value = updates["value"]
    return isinstance(value, bool) or _is_number(value) or (isinstance(value, str) and len(value) <= MAX_TEXT)


def _numbers(value: Any, count: int) -> bool:
    if count == 0:
        return _is_number(value)
    return isinstance(value, list) and len(value) == count and all(map(_is_number, value))


def _is_number(value: Any) -> bool:
    return (
        isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and abs(value) < LARGEST
    )


def _is_size(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**31
