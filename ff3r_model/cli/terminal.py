"""Standard output and standard error of commands: any terminal, any reader, one line per error."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from typing import IO

MAX_LINE = 1500
"""Characters of an error's line; the rest of a longer one is left out."""


def accept_any_text() -> None:
    """Let both streams take every character: what a terminal's encoding lacks is escaped."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # None where a stream is closed
            stream.reconfigure(errors="backslashreplace")


def tell(text: str) -> None:
    """Print a command's answer. A reader that has gone, as `head`, is no error; OSError for a full disk."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        discard(sys.stdout)
    except OSError as error:
        discard(sys.stdout)
        raise OSError(error.errno, f"standard output cannot be written: {error.strerror}") from error


def complain(text: str) -> None:
    """Print an error or a note as one line, whatever file names hold; silent where nobody can read it."""
    if sys.stderr is None:  # closed; print would take stdout
        return
    line = "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)
    with suppress(OSError):
        print(f"ff3r: {line if len(line) <= MAX_LINE else line[:MAX_LINE] + ' …'}", file=sys.stderr, flush=True)


def discard(stream: IO[str]) -> None:
    """Send what is still to be written nowhere, so that the interpreter's end finds nothing to fail at."""
    with suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
