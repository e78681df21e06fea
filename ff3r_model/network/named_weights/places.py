"""Where named weights lie, and the one rule by which a name or a path becomes a checkpoint file."""

from __future__ import annotations

import os
from pathlib import Path

from ff3r_model.core.errors import UserError
from ff3r_model.core.trusted import why_untrusted
from ff3r_model.network.named_weights.recipes import NANO, RECIPES

NANO_WEIGHTS = Path(__file__).parents[1] / "weights" / "nano.safetensors"
"""The small FF3R that comes with the package."""
NAMES = (NANO, *RECIPES)
"""All names of weights."""


class WeightsError(UserError):
    """Named weights that are not there, or cannot be had; the message says what to do."""


def weights_folder() -> Path:
    """For converted weights: $FF3R_WEIGHTS, else $XDG_DATA_HOME/ff3r/weights, else ~/.local/share/ff3r/weights."""
    if own := os.environ.get("FF3R_WEIGHTS"):
        return Path(own).expanduser()
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "ff3r" / "weights"


def place_of(name: str) -> Path:
    """The file of the weights with this name, there or not."""
    return NANO_WEIGHTS if name == NANO else weights_folder() / f"{name}.safetensors"


def find_weights(given: str | os.PathLike[str] | None = None) -> Path:
    """The checkpoint file that is meant: by a name of `ff3r weights list`, or by its path; None is nano.

    A text that is exactly one of the names is a name, also where a file of that name exists: write ./apache for that
    file. Every other text, and every Path, is a path. Raises WeightsError for a name whose weights are not installed,
    or lie where others can write.
    """
    if given is None:
        return NANO_WEIGHTS
    if not isinstance(given, str) or given not in NAMES:
        return Path(given).expanduser()
    path = place_of(given)
    if given == NANO:
        return path
    if not path.exists():
        here = f". For the file of that name in this folder write ./{given}" if Path(given).exists() else ""
        raise WeightsError(
            f"the weights {given!r} are not installed (no {path}): `ff3r weights get {given}` fetches them{here}"
        )
    for each in (path.parent.resolve(), path):
        if reason := why_untrusted(each):
            raise WeightsError(reason)
    return path
