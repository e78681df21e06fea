"""Time stamps of ROS messages in nanoseconds."""

from __future__ import annotations

from typing import Any


def nanoseconds_from_time(time: Any) -> int:
    """Nanoseconds since the clock's zero, of anything with the fields of builtin_interfaces/Time."""
    return int(time.sec) * 1_000_000_000 + int(time.nanosec)


def stamp_by_arrival(header: Any, received: int) -> None:
    """Give a header without a stamp the time at which its message came (ns)."""
    if nanoseconds_from_time(header.stamp) == 0:
        header.stamp.sec, header.stamp.nanosec = divmod(received, 1_000_000_000)
