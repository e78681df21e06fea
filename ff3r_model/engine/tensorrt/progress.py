"""Progress of building a TensorRT plan: bars on a terminal, or lines of the log."""

from __future__ import annotations

import logging
from types import TracebackType

from tqdm import tqdm

log = logging.getLogger(__name__)

BAR = "{desc} {percentage:3.0f}%|{bar}| {elapsed}"


class Progress:
    """A report of a build's phases: a bar per phase with `bars`, else a line of the log at every tenth."""

    def __init__(self, bars: bool = False) -> None:
        self._bars, self._phase, self._tenth = bars, "", -1
        self._bar: tqdm | None = None

    def __call__(self, phase: str, share: float) -> None:
        """`share` of the phase is done, 0 to 1."""
        if phase != self._phase:
            self._begin(phase)
        if self._bar is not None:
            self._bar.n = share
            self._bar.refresh()
        elif int(share * 10) != self._tenth:
            self._tenth = int(share * 10)
            log.info("TensorRT plan, %s: %d %%", phase, 10 * self._tenth)

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.close()

    def _begin(self, phase: str) -> None:
        self._phase, self._tenth = phase, -1
        if self._bars:
            if self._bar is not None:
                self._bar.close()
            self._bar = tqdm(total=1.0, desc=phase, bar_format=BAR)
