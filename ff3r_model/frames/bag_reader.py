"""ROS bag reader (through `rosbags`): messages of ROS 1 and 2, as far as they can be read."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from rosbags.highlevel import AnyReader
from rosbags.interfaces import Connection
from rosbags.typesys import Stores, get_typestore

from ff3r_model.frames.bag_files import COMPRESSED, bag_to_open, recordings, repair
from ff3r_model.frames.cut_mcap import CutMcap, is_closed
from ff3r_model.frames.source import SourceError

log = logging.getLogger(__name__)


class DamagedBag(SourceError):
    """A bag that cannot be read any further."""


class DamagedMessage(ValueError):
    """Bytes that are not the message they should be."""


@contextmanager
def open_bag(path: Path | CutMcap) -> Iterator[AnyReader]:
    """A reader of the bag, or of what `opened_path` gave of an earlier one.

    Raises SourceError, with what helps, where rosbags cannot open it.
    """
    reader = _opened(path) if isinstance(path, CutMcap) else _found(bag_to_open(path))
    try:
        yield reader
    finally:
        reader.close()


def _found(path: Path) -> AnyReader:
    """A reader of the path; of the recording in it, where that is all that can be read."""
    try:
        return _opened(path)
    except SourceError as error:
        files = recordings(path) if path.is_dir() else [path]
        if len(files) != 1 or files[0].name.endswith(COMPRESSED):
            raise
        (file,) = files
        if file.suffix == ".mcap" and not is_closed(file):
            reader = _opened(CutMcap(file))
            if reader.message_count == 0:
                reader.close()
                raise
            log.warning("%s; what is there is read", error)
        elif file != path:
            reader = _opened(file)  # whose own damage is reported, where that is why
            log.warning("%s; read without metadata.yaml", error)
        else:
            raise
        return reader


def _opened(path: Path | CutMcap) -> AnyReader:
    try:
        reader = AnyReader([cast(Path, path)], default_typestore=get_typestore(Stores.LATEST))
        reader.open()
    except Exception as error:  # rosbags raises many kinds for damaged bags: its own, struct, yaml, sqlite, assertions
        raise SourceError(f"{path} cannot be read as a ROS bag: {_reason(error, Path(str(path)))}") from error
    return reader


def read_raw(
    reader: AnyReader, *topics: str, kind: str | None = None, start: int | None = None
) -> Iterator[tuple[Connection, int, bytes]]:
    """(connection, nanoseconds of its recording, bytes) of all messages on the topics, in the order of recording.

    Raises DamagedBag where the bag is.
    """
    connections = [item for item in reader.connections if item.topic in topics and kind in (None, item.msgtype)]
    if not connections:  # rosbags takes an empty list for "all"
        return
    messages = reader.messages(connections, start)
    try:
        yield from messages
    except Exception as error:  # as in opening
        path = Path(str(opened_path(reader)))
        raise DamagedBag(f"{path} is damaged, and read no further: {_reason(error, path)}") from error


def read_messages(reader: AnyReader, *topics: str, kind: str | None = None) -> Iterator[tuple[Connection, int, Any]]:
    """(connection, nanoseconds of its recording, message) as `read_raw`, as far as the bag can be read.

    What cannot be read is left out with a warning.
    """
    damaged, reason = 0, ""
    try:
        for connection, received, raw in read_raw(reader, *topics, kind=kind):
            try:
                message = deserialize(reader, connection, raw)
            except DamagedMessage as error:
                damaged, reason = damaged + 1, str(error)
                continue
            yield connection, received, message
    except DamagedBag as error:
        log.warning("%s", error)
    if damaged:
        log.warning("%s: %d messages cannot be read: %s", opened_path(reader), damaged, reason)


def deserialize(reader: AnyReader, connection: Connection, raw: bytes) -> Any:
    """The message in the bytes. Raises DamagedMessage."""
    try:
        return reader.deserialize(raw, connection.msgtype)
    except Exception as error:  # of rosbags, struct, numpy, unicode …
        raise DamagedMessage(f"damaged message on {connection.topic}: {_reason(error)}") from error


def _reason(error: Exception, path: Path | None = None) -> str:
    """What a library says in one line, and what helps the file."""
    reason = " ".join(str(error).split()) or type(error).__name__
    hint = repair(path, reason) if path else ""
    return f"{reason}; {hint}" if hint else reason


def opened_path(reader: AnyReader) -> Path | CutMcap:
    """What the reader has open, to open it again."""
    return cast(Path | CutMcap, reader.paths[0])


def count_messages(reader: AnyReader, topic: str) -> int:
    """How many messages the topic has."""
    return sum(connection.msgcount for connection in reader.connections if connection.topic == topic)


def listing(reader: AnyReader) -> str:
    """The topics, their types and how many messages they have, a line each."""
    rows = sorted({(item.topic, item.msgtype) for item in reader.connections})
    return "\n".join(f"  {topic}  {kind}  {count_messages(reader, topic)} messages" for topic, kind in rows) or "  none"
