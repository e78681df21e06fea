"""The base class of errors that the user can mend, and values in their messages."""

from __future__ import annotations

from typing import Any

SHOWN = 60
"""Characters of a value in a message."""


class UserError(Exception):
    """Something that the user can mend: the message shows the offending value and the way out, in one line.

    Commands print it without a traceback and exit with status 2; nodes log it.
    """


def shown(value: Any) -> str:
    """A value for a message, cut to some characters."""
    try:
        text = repr(value)
    except (RecursionError, ValueError):  # nested deeply; thousands of digits
        text = f"a {type(value).__name__}"
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"
