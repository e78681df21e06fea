"""MCAP recordings that were not closed (power cut, crash): read up to where they break off."""

from __future__ import annotations

import io
from pathlib import Path

MAGIC = b"\x89MCAP0\r\n"
_HEAD = 9
"""Bytes before each record's content: its kind, and its length in eight."""
_DATA_END, _FOOTER = 0x0F, 0x02
_BLOCK = 2**20
_END = bytes([_DATA_END, 4]) + bytes(7 + 4) + bytes([_FOOTER, 20]) + bytes(7 + 20) + MAGIC
"""How a file without an index ends: end of data without a checksum, a footer that points nowhere, and the magic."""


def is_closed(path: Path) -> bool:
    """Whether an MCAP file ends as one does that was closed."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - len(MAGIC)))
        return file.read() == MAGIC


class CutMcap:
    """A path for bag readers at which a cut MCAP file looks like a closed one: its whole records, and an end."""

    suffix = ".mcap"

    def __init__(self, path: Path) -> None:
        self.path = path
        self.whole = _whole_records(path)

    def __str__(self) -> str:
        return str(self.path)

    def exists(self) -> bool:
        return self.path.exists()

    def is_dir(self) -> bool:
        return False

    def open(self, mode: str = "rb") -> io.BufferedReader:
        return io.BufferedReader(_WithEnd(self.path, self.whole))


class _WithEnd(io.RawIOBase):
    """The first bytes of a file, and the end of an MCAP file behind them."""

    def __init__(self, path: Path, length: int) -> None:
        self._file, self._length, self._place = path.open("rb"), length, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self._length + len(_END)}[whence]
        self._place = max(0, start + offset)
        return self._place

    def read(self, size: int = -1) -> bytes:
        if self._place >= self._length:
            behind = self._place - self._length
            data = _END[behind:] if size < 0 else _END[behind : behind + size]
        else:
            self._file.seek(self._place)
            data = self._file.read(self._length - self._place if size < 0 else min(size, self._length - self._place))
        self._place += len(data)
        return data

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        self._file.close()
        super().close()


def _whole_records(path: Path) -> int:
    """Bytes of the file up to the end of its last whole record of data."""
    place = len(MAGIC)
    with path.open("rb") as file:
        size = _written(file, path.stat().st_size)
        while place + _HEAD <= size:
            file.seek(place)
            head = file.read(_HEAD)
            behind = place + _HEAD + int.from_bytes(head[1:], "little")
            if head[0] in (_DATA_END, _FOOTER) or behind > size:
                break
            place = behind
    return place


def _written(file: io.BufferedReader, size: int) -> int:
    """Bytes of the file without the zeros at its end, space that was never written to."""
    while size > 0:
        start = max(0, size - _BLOCK)
        file.seek(start)
        if block := file.read(size - start).rstrip(b"\0"):
            return start + len(block)
        size = start
    return 0
