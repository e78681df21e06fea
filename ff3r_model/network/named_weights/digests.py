"""SHA-256 of public files: those that this package knows, and those that were learnt when a file came first.

Trust on first use: where the manifest has no digest of a file, the one of its first copy on this machine is remembered
in the user's cache, and any other copy is refused from then on.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from ff3r_model.core.checked import read_json
from ff3r_model.core.files import regular_file, replaced
from ff3r_model.core.trusted import make_trusted_folder, why_untrusted
from ff3r_model.network.named_weights.places import WeightsError
from ff3r_model.network.named_weights.recipes import Recipe

log = logging.getLogger(__name__)

MANIFEST = "hub_files.json"


@dataclass(frozen=True)
class Known:
    """What the manifest says of a file."""

    nbytes: int
    """Its size; for planning, not for checking: some are estimates."""
    sha256: str
    """64 hex digits; empty where nobody could know it."""


def manifest() -> dict[str, Known]:
    """The files of all recipes, by address."""
    text = resources.files(__package__).joinpath(MANIFEST).read_text(encoding="utf-8")
    return {address: Known(said["bytes"], said["sha256"]) for address, said in json.loads(text).items()}


def download_bytes(recipe: Recipe) -> int:
    """Of all public files of a recipe, about."""
    known = manifest()
    return sum(known[source.address].nbytes for source in recipe.sources)


def sha256_of(path: Path) -> str:
    """Of a file's bytes, 64 hex digits."""
    with regular_file(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def learnt_file() -> Path:
    """Where digests are remembered: $XDG_CACHE_HOME/ff3r/sha256.json, else ~/.cache/ff3r/sha256.json."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ff3r" / "sha256.json"


def check_digest(address: str, path: Path) -> str:
    """Compare a file with what is known of it, and learn where nothing is. Returns its SHA-256; raises WeightsError."""
    found = sha256_of(path)
    if known := manifest()[address].sha256:
        if known != found:
            raise WeightsError(
                f"{path} is not the {address} that this package knows: its SHA-256 is {found} and should be {known}. "
                "Remove it and fetch again; if its publisher has replaced it, a newer ff3r may know it"
            )
        return found
    learnt = _learnt()
    if address not in learnt:
        _learn(learnt | {address: found})
        log.info("%s: its SHA-256 is not known to this package; trusted as it came and remembered: %s", address, found)
    elif learnt[address] != found:
        raise WeightsError(
            f"{path} is another {address} than the one that came first: its SHA-256 is {found} and was "
            f"{learnt[address]}. If its publisher has replaced it and you trust the new one, remove that line from "
            f"{learnt_file()}"
        )
    return found


def _learnt() -> dict[str, str]:
    path = learnt_file()
    if not path.exists():
        return {}
    if reason := why_untrusted(path):
        raise WeightsError(reason)
    try:
        learnt = read_json(path, follow_links=False)
        if not isinstance(learnt, dict) or not all(isinstance(each, str) for each in learnt.values()):
            raise ValueError("it holds no digests")
    except (OSError, ValueError) as error:
        raise WeightsError(
            f"{path} is damaged ({error}): remove it, and files are trusted on first use again"
        ) from error
    return learnt


def _learn(learnt: dict[str, str]) -> None:
    path = learnt_file()
    try:
        make_trusted_folder(path.parent)
        with replaced(path) as temporary:
            temporary.write_text(json.dumps(learnt, indent=1, sort_keys=True) + "\n")
    except OSError as error:
        raise WeightsError(f"{path} cannot be written: {error.strerror or error}") from error
