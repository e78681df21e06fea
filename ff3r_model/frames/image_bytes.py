"""Truncated image files: whether the bytes of a JPEG, PNG, WebP or BMP end before the picture does.

Decoders differ in what they make of such bytes (some fill up with grey and say nothing), so they are asked first.
"""

from __future__ import annotations

import re

_MARKER = re.compile(rb"\xff+([\x01-\xcf\xd8-\xfe])", re.DOTALL)
"""A JPEG marker; FF 00 is a byte of the picture and FF D0 to FF D7 are restarts in the midst of it."""
_JPEG, _JPEG_END, _JPEG_ALONE = b"\xff\xd8\xff", 0xD9, (0x01, 0xD8)
_PNG = b"\x89PNG\r\n\x1a\n"


def is_cut(data: bytes) -> bool:
    """Whether image bytes are truncated, by the format's own end marker or length; False for other formats."""
    if data.startswith(_JPEG):
        return _jpeg_is_cut(data)
    if data.startswith(_PNG):
        return _png_is_cut(data)
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return int.from_bytes(data[4:8], "little") + 8 > len(data)
    if data.startswith(b"BM"):
        return int.from_bytes(data[2:6], "little") > len(data)
    return False


def _jpeg_is_cut(data: bytes) -> bool:
    """Whether no end marker comes after the segments (a thumbnail inside one of them has an end of its own)."""
    place = 2
    while (found := _MARKER.search(data, place)) is not None:
        marker = found[1][0]
        if marker == _JPEG_END:
            return False
        place = found.end()
        if marker not in _JPEG_ALONE:
            place += int.from_bytes(data[place : place + 2], "big")
    return True


def _png_is_cut(data: bytes) -> bool:
    """Whether a chunk ends behind the data, or the last one is missing."""
    place = len(_PNG)
    while place + 12 <= len(data):
        length, kind = int.from_bytes(data[place : place + 4], "big"), data[place + 4 : place + 8]
        place += 12 + length
        if kind == b"IEND":
            return place > len(data)
    return True
