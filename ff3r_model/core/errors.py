"""The base class of errors that the user can mend, and values in their messages."""

from __future__ import annotations

import reprlib
from typing import Any

SHOWN = 60
"""Characters of a text in a message."""
_SHORT = reprlib.Repr()
for _limit in ("maxstring", "maxother", "maxlong"):
    setattr(_SHORT, _limit, SHOWN)


class UserError(Exception):
    """Something that the user can mend: the message shows the offending value and the way out, in one line.

    Commands print it without a traceback and exit with status 2; nodes log it.
    """


def shown(value: Any) -> str:
    """A value for a message, cut to some characters, however large it is or deeply nested."""
    try:
        text = _SHORT.repr(value)
    except ValueError:  # a whole number of thousands of digits
        text = f"a {type(value).__name__} of thousands of digits"
    return text if len(text) <= 2 * SHOWN else f"{text[: 2 * SHOWN]}…"
