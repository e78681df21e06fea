"""TensorRT or TensorRT-RTX, whichever this machine has: import, version, and its log passed on to `logging`."""

from __future__ import annotations

import importlib
import logging
import re
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ff3r_model.core.errors import UserError

log = logging.getLogger(__name__)

OLDEST: dict[str, tuple[int, ...]] = {"tensorrt": (10, 3), "tensorrt_rtx": (1, 0)}
"""Modules to look for, in this order, and the versions from which on they have what is used here."""
NEWEST_TRIED: dict[str, tuple[int, ...]] = {"tensorrt": (11,), "tensorrt_rtx": (1,)}
"""Later major versions may have changed: said in a warning."""
FUSED_ATTENTION_FROM: dict[str, tuple[int, ...]] = {"tensorrt": (10, 14), "tensorrt_rtx": (1, 2)}
PRODUCTS = {"tensorrt": "TensorRT", "tensorrt_rtx": "TensorRT-RTX"}
REMEMBERED = 5
"""Of the library's errors, to quote in exceptions."""


class TensorRTError(UserError, RuntimeError):
    """TensorRT is missing, too old, or failed; the message names the way out."""


@dataclass(frozen=True)
class TensorRTLibrary:
    """An imported TensorRT. Both products share the names that are used here."""

    module: Any
    name: str
    """Of the Python module."""
    version: str
    logger: Any
    """The ILogger that all of TensorRT's objects get."""
    errors: deque[str]
    """What it complained of last."""

    def __str__(self) -> str:
        return f"{PRODUCTS[self.name]} {self.version}"

    @property
    def fuses_attention(self) -> bool:
        """Whether its ONNX parser reads attention as one operator."""
        return numbers(self.version) >= FUSED_ATTENTION_FROM[self.name]

    def complaint(self) -> str:
        """Its last errors as half a sentence."""
        return "; ".join(self.errors) or "it gave no reason"


def load_library(names: tuple[str, ...] = tuple(OLDEST)) -> TensorRTLibrary:
    """The first usable module of `names`. Raises TensorRTError saying why none is."""
    reasons = []
    for name in names:
        try:
            return _checked(name, _imported(name))
        except TensorRTError as error:
            reasons.append(str(error))
    raise TensorRTError("; ".join(reasons) + ". docs/engines.md says what to install where")


def numbers(version: str) -> tuple[int, ...]:
    """10.3.0.30 as (10, 3, 0, 30)."""
    return tuple(int(part) for part in re.findall(r"\d+", version))


def _imported(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise TensorRTError(f"{PRODUCTS[name]} is not installed ({error})") from error
    except Exception as error:  # its own loader raises what it likes where a shared library is missing
        raise TensorRTError(f"{PRODUCTS[name]} is installed and does not load ({error})") from error


def _checked(name: str, module: Any) -> TensorRTLibrary:
    version = str(getattr(module, "__version__", ""))
    found = numbers(version)
    if not found or not hasattr(module, "Builder"):
        raise TensorRTError(f"the module {name} is an empty shell without {PRODUCTS[name]} itself")
    if found < OLDEST[name]:
        oldest = ".".join(map(str, OLDEST[name]))
        raise TensorRTError(f"{PRODUCTS[name]} {version} is too old: {oldest} or later is needed")
    if found[:1] > NEWEST_TRIED[name]:
        log.warning("%s %s is newer than any that this program knows", PRODUCTS[name], version)
    errors: deque[str] = deque(maxlen=REMEMBERED)
    return TensorRTLibrary(module, name, version, _logger(module, errors.append), errors)


def _logger(trt: Any, remember: Callable[[str], None]) -> Any:
    levels = {
        trt.ILogger.Severity.INTERNAL_ERROR: logging.ERROR,
        trt.ILogger.Severity.ERROR: logging.ERROR,
        trt.ILogger.Severity.WARNING: logging.WARNING,
    }

    class Bridge(trt.ILogger):
        """TensorRT's log as records of `logging`; errors come back in exceptions, so none is louder than a warning."""

        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, text: str) -> None:
            level = levels.get(severity, logging.DEBUG)
            if level == logging.ERROR:
                remember(text)
            log.log(logging.DEBUG if level < logging.ERROR else logging.WARNING, "%s: %s", trt.__name__, text)

    return Bridge()
