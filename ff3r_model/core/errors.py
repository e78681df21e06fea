"""The base class of errors that the user can mend."""

from __future__ import annotations


class UserError(Exception):
    """Something that the user can mend: the message shows the offending value and the way out, in one line.

    Commands print it without a traceback and exit with status 2; nodes log it.
    """
