"""Install named weights: licences, downloads, conversion, and the checked file at its place, all or nothing."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Collection, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import torch

from ff3r_model.core.files import PART, remove_leftovers, sync
from ff3r_model.core.trusted import locked, make_trusted_folder, why_untrusted
from ff3r_model.network.checkpoint import load_checkpoint
from ff3r_model.network.named_weights.hub import fetch
from ff3r_model.network.named_weights.licences import Licence
from ff3r_model.network.named_weights.places import NAMES, WeightsError, find_weights, place_of
from ff3r_model.network.named_weights.recipes import NANO, RECIPES, Recipe, Source
from ff3r_model.network.public_weights.convert import convert
from ff3r_model.network.public_weights.read_weights import weights_files
from ff3r_model.network.public_weights.sources import Sources

log = logging.getLogger(__name__)

WAITING = "another program installs %s; waiting for it"


@dataclass(frozen=True)
class Conversion:
    """How a checkpoint is written."""

    channels: int = 64
    """Width of the compact semantic features."""
    dtype: torch.dtype | None = None
    """Of the stored weights; None: float32."""


def convert_files(recipe: Recipe, files: Mapping[str, Path], output: Path, conversion: Conversion) -> None:
    """Write the checkpoint of a recipe from its public files, by the keys of its sources.

    Raises CheckpointError naming what does not fit.
    """
    sources = Sources(**{source.key: files[source.key] for source in recipe.sources})
    convert(sources, output, channels=conversion.channels, dtype=conversion.dtype)


def recipe_named(name: str) -> Recipe:
    """Raises WeightsError for a name that is none, or that needs no fetching."""
    if name == NANO:
        raise WeightsError("nano comes with the package: there is nothing to fetch")
    if name not in RECIPES:
        raise WeightsError(f"there are no weights named {name!r}: `ff3r weights list` has {', '.join(NAMES)}")
    return RECIPES[name]


def licences_to_accept(recipe: Recipe, accepted: Collection[str]) -> list[Licence]:
    """Licences of a recipe that need consent and have not got it. Raises WeightsError for consent to what is none."""
    known = {licence.name for each in RECIPES.values() for licence in each.licences}
    if strange := [name for name in accepted if name not in known]:
        raise WeightsError(f"--accept-licence {strange[0]!r}: the licences are {', '.join(sorted(known))}")
    return [licence for licence in recipe.licences if licence.consent and licence.name not in accepted]


def install(
    recipe: Recipe,
    accepted: Collection[str] = (),
    given: Mapping[str, Path] | None = None,
    conversion: Conversion | None = None,
    again: bool = False,
) -> tuple[Path, bool]:
    """The file of a recipe's weights, and whether it was made just now: fetched, converted and read back.

    `given` are files that are there already, by key. Whatever goes wrong, an earlier file stays as it is. Two programs
    that want the same make it once. Raises WeightsError, CheckpointError and OutputError.
    """
    _check_consent(recipe, accepted)
    _check_given(recipe, given or {})
    path = place_of(recipe.name)
    with ExitStack() as stack:
        try:
            make_trusted_folder(path.parent)
            stack.enter_context(locked(path.parent / f".{recipe.name}.lock", lambda: log.warning(WAITING, recipe.name)))
        except OSError as error:
            raise WeightsError(
                f"{path.parent} cannot be written ({error.strerror or error}): set FF3R_WEIGHTS to a folder of your own"
            ) from error
        if reason := why_untrusted(path.parent.resolve()):
            raise WeightsError(reason)
        if path.exists() and not again:
            return find_weights(recipe.name), False
        files = {source.key: (given or {}).get(source.key) or fetch(source) for source in recipe.sources}
        _convert(recipe, files, path, conversion or Conversion())
    return path, True


def _check_consent(recipe: Recipe, accepted: Collection[str]) -> None:
    if waiting := licences_to_accept(recipe, accepted):
        named = ", ".join(f"{licence.title} ({licence.url})" for licence in waiting)
        options = " ".join(f"--accept-licence {licence.name}" for licence in waiting)
        raise WeightsError(
            f"{recipe.name} is under a licence that must be accepted first: {named}. Read it, and if you accept it: "
            f"`ff3r weights get {recipe.name} {options}`"
        )


def _check_given(recipe: Recipe, given: Mapping[str, Path]) -> None:
    """Before anything is fetched: the given files are there and wanted, and those that only people can fetch given."""
    keys = [source.key for source in recipe.sources]
    if strange := [key for key in given if key not in keys]:
        raise WeightsError(f"--file {strange[0]}=…: {recipe.name} is made of {', '.join(keys)}")
    for path in given.values():
        weights_files(path)
    for source in recipe.sources:
        if not source.repository and source.key not in given:
            raise WeightsError(_by_hand(recipe, source))


def _by_hand(recipe: Recipe, source: Source) -> str:
    return (
        f"{source.file} cannot be fetched by a program: {source.by_hand}; then `ff3r weights get {recipe.name} "
        f"--file {source.key}=PATH` with the path of the downloaded file, and the other options as now"
    )


def _convert(recipe: Recipe, files: Mapping[str, Path], path: Path, conversion: Conversion) -> None:
    """Convert beside, read the result back as the pipeline will, and only then put it at its place."""
    try:
        remove_leftovers(path)
        with tempfile.TemporaryDirectory(prefix=f".{path.name}.", suffix=PART, dir=path.parent) as scratch:
            made = Path(scratch, path.name)
            convert_files(recipe, files, made, conversion)
            log.info("reading %s back", recipe.name)
            load_checkpoint(made)
            made.replace(path)
        sync(path.parent)
    except OSError as error:
        raise WeightsError(f"{path} cannot be written ({error.strerror or error}): is the disk full?") from error
