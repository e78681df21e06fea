"""Time stamps of ROS messages in nanoseconds, and what tells a wrong one from a clock that has jumped."""

from __future__ import annotations

from typing import Any, Literal

LEAP = 3600 * 10**9
"""Nanoseconds by which a stamp may be ahead of those before; one further off has to be confirmed by a second."""
MOST_NANOSECONDS = 10**9
"""Of builtin_interfaces/Time.nanosec, exclusive."""


def nanoseconds_from_time(time: Any) -> int:
    """Nanoseconds since the clock's zero, of anything with the fields of builtin_interfaces/Time."""
    return int(time.sec) * 1_000_000_000 + int(time.nanosec)


def is_time(time: Any) -> bool:
    """Whether the fields are those of a moment: no negative seconds, and nanoseconds less than a second."""
    return time.sec >= 0 and 0 <= time.nanosec < MOST_NANOSECONDS


def stamp_by_arrival(header: Any, received: int) -> None:
    """Give a header without a stamp the time at which its message came (ns)."""
    if nanoseconds_from_time(header.stamp) == 0:
        header.stamp.sec, header.stamp.nanosec = divmod(received, 1_000_000_000)


class StampGate:
    """Outlier check for the stamps of one stream: a lone stamp far from those before is refused.

    A clock that really jumps brings more: a second stamp that lies nearer to the refused one than to those before is a
    jump, and the stream goes on from there. `ahead` and `behind` are the nanoseconds that still count as near.
    """

    def __init__(self, ahead: int, behind: int) -> None:
        self._ahead, self._behind = ahead, behind
        self._newest: int | None = None
        self._stray: int | None = None

    def judge(self, stamp: int) -> Literal["near", "stray", "jump"]:
        """What the stamp is beside those before: near them, far from them, or the proof that the clock has jumped."""
        newest, stray = self._newest, self._stray
        if newest is None or newest - self._behind <= stamp <= newest + self._ahead:
            self._newest, self._stray = (stamp if newest is None else max(stamp, newest)), None
            return "near"
        if stray is None or abs(stamp - stray) >= abs(stamp - newest):
            self._stray = stamp
            return "stray"
        self._newest, self._stray = stamp, None
        return "jump"
