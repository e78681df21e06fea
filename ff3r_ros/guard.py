"""Guard of callbacks: whatever a message holds, what it breaks is that message, and it is counted and named."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from typing import Any

SHOWN_SECONDS = 5.0
"""How long diagnostics show a failure."""
SHOWN_LENGTH = 300
"""Characters of an error that are shown; a message can make it hold a megabyte."""


class CallbackGuard:
    """Wraps a node's callbacks so that an exception in one neither ends the process nor goes unseen.

    `log(text)` is called for the first failure of each kind.
    """

    def __init__(self, log: Callable[[str], object]) -> None:
        self._log = log
        self._known: set[tuple[str, type]] = set()
        self._last, self._when = "", float("-inf")
        self.failed: Counter[str] = Counter()
        """Messages that a callback failed on, by the callback's name."""

    def __call__(self, name: str, callback: Callable[..., Any]) -> Callable[..., None]:
        """The callback, guarded."""

        def guarded(*arguments: Any) -> None:
            try:
                callback(*arguments)
            except Exception as error:  # anything at all: messages come from anybody
                self._note(name, error)

        return guarded

    @property
    def recent(self) -> str:
        """The last failure in words while it is fresh; empty otherwise."""
        return self._last if time.monotonic() - self._when < SHOWN_SECONDS else ""

    def _note(self, name: str, error: Exception) -> None:
        self.failed[name] += 1
        self._last = f"{name} dropped: {type(error).__name__}: {error}"[:SHOWN_LENGTH]
        self._when = time.monotonic()
        if (name, type(error)) not in self._known:
            self._known.add((name, type(error)))
            self._log(self._last)
