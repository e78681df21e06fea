"""Plans on disk: found again by what they were built for, rebuilt with a reason, whole or not there at all.

A plan is a program for the GPU. It is used only if nobody but its user, or root, can have written it: nothing in the
cache is a link, belongs to somebody else, or may be written by others.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from ff3r_model.core.checked import read_json, record
from ff3r_model.core.files import regular_file, replaced_folder
from ff3r_model.core.trusted import locked, make_trusted_folder, why_untrusted
from ff3r_model.core.types import MAX_VIEWS
from ff3r_model.engine.onnx.manifest import GRAPHS, MANIFEST, ExportError, Manifest, graph_path
from ff3r_model.engine.tensorrt.build import OnProgress, build_plan, profiles
from ff3r_model.engine.tensorrt.library import TensorRTError, TensorRTLibrary

log = logging.getLogger(__name__)

DESCRIPTION = "plan.json"
WAITING = "another program builds this plan (%s); waiting for it"
MEANINGS = {
    "weights": "the weights",
    "network": "the network",
    "height": "the images' height",
    "width": "the images' width",
    "precision": "the precision",
    "views": "the views per window",
    "max_views": "the largest window",
    "tensorrt": "TensorRT",
    "gpu": "the GPU",
}
SHOWN = 12
"""Characters of a hash in a message."""


class PlanError(TensorRTError):
    """There is no plan that could be used; the message says why and how to get one."""


@dataclass(frozen=True)
class PlanKey:
    """All that a plan depends on. A plan is used where every field is equal."""

    weights: str
    network: str
    height: int
    width: int
    precision: str
    views: int
    tensorrt: str
    """Product and version."""
    gpu: str
    """Name and compute capability."""
    max_views: int = MAX_VIEWS

    @property
    def slot(self) -> str:
        """Where the plan lies in the cache: one per network, image size and precision; a newer one replaces it."""
        return f"{self.network}-{self.height}x{self.width}-{self.precision}"

    def changes(self, other: PlanKey) -> str:
        """What differs in `other`, in words; empty where nothing does."""
        mine, its = dataclasses.asdict(self), dataclasses.asdict(other)
        names = [name for name in mine if mine[name] != its[name]]
        return ", ".join(f"{MEANINGS[name]} (was {_short(mine[name])}, is {_short(its[name])})" for name in names)


@dataclass(frozen=True)
class Description:
    """The JSON beside a plan."""

    key: PlanKey
    sha256: dict[str, str]
    """By file name."""


@dataclass(frozen=True)
class CachedPlan:
    """A plan's folder that was found whole and made for this."""

    folder: Path
    manifest: Manifest

    def path(self, graph: str) -> Path:
        """The file of `frames` or `window`."""
        return self.folder / f"{graph}.plan"


def default_cache() -> Path:
    """Where plans lie unless told: $XDG_CACHE_HOME/ff3r/engines, else ~/.cache/ff3r/engines."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ff3r" / "engines"


def find(cache: Path, key: PlanKey) -> CachedPlan:
    """The plan for exactly `key`. Raises PlanError saying why there is none."""
    folder = cache / key.slot
    if not (folder / DESCRIPTION).exists():
        raise PlanError(f"there is no plan for {key.slot} in {cache} yet")
    for path in (cache.resolve(), folder, *(folder / name for name in (DESCRIPTION, MANIFEST))):
        check_trusted(path)
    try:
        described = record(Description, read_json(folder / DESCRIPTION, follow_links=False), "it")
        manifest = Manifest.read(folder)
    except (OSError, ValueError, ExportError) as error:
        raise PlanError(f"the description of the plan in {folder} is damaged ({error})") from error
    if changes := described.key.changes(key):
        raise PlanError(f"the plan in {folder} was built for something else: {changes} changed")
    plan = CachedPlan(folder, manifest)
    for path in (*map(plan.path, GRAPHS), folder / MANIFEST):
        check_trusted(path)
        if _sum(path) != described.sha256.get(path.name):
            raise PlanError(f"{path} is damaged: it is not what was written")
    return plan


def check_trusted(path: Path) -> None:
    """Raise PlanError unless `path` is a file or folder that only this user, or root, can have written."""
    if reason := why_untrusted(path):
        raise PlanError(reason)


def obtain(
    cache: Path,
    key: PlanKey,
    library: TensorRTLibrary,
    onnx: Callable[[Path], Path],
    report: OnProgress | None = None,
    rebuild_because: str = "",
) -> CachedPlan:
    """The plan for `key`, built where it is missing, which is said with its reason.

    `onnx` gets an empty folder and returns one with an export, that or another. `rebuild_because` is a
    reason to build in any case. Two programs that want one plan build it once. Raises TensorRTError, ExportError.
    """
    make_trusted_folder(cache)
    check_trusted(cache.resolve())
    with _locked(cache / f".{key.slot}.lock"):
        try:
            plan = find(cache, key)
            if not rebuild_because:
                return plan
            reason = rebuild_because
        except PlanError as error:
            reason = str(error)
        log.warning("%s: building one for %s on %s, which %s", reason, key.tensorrt, key.gpu, expectation(key))
        _build(cache, key, library, onnx, report)
        return find(cache, key)


def expectation(key: PlanKey) -> str:
    """How long building may take, in words. Estimates: no GPU has built one of these yet."""
    return "may take a few minutes" if key.network == "nano" else "may take from ten minutes to an hour"


def _build(
    cache: Path, key: PlanKey, library: TensorRTLibrary, onnx: Callable[[Path], Path], report: OnProgress | None
) -> None:
    for abandoned in cache.glob(f".{key.slot}.*/"):  # of a builder that was killed: we hold the lock
        shutil.rmtree(abandoned, ignore_errors=True)
    with (
        tempfile.TemporaryDirectory(dir=cache, prefix=f".{key.slot}.") as exported,
        replaced_folder(cache / key.slot) as folder,
    ):
        source = onnx(Path(exported))
        manifest = Manifest.read(source)
        sums = {}
        for graph, ranges in profiles(key.views, key.max_views).items():
            data = build_plan(library, graph_path(source, graph), ranges, _named(report, graph))
            (folder / f"{graph}.plan").write_bytes(data)
            sums[f"{graph}.plan"] = hashlib.sha256(data).hexdigest()
            data.release()
        manifest.write(folder)
        sums[MANIFEST] = _sum(folder / MANIFEST)
        description = Description(key, sums)
        (folder / DESCRIPTION).write_text(json.dumps(dataclasses.asdict(description), indent=1))
        for path in (folder, *folder.iterdir()):
            path.chmod(0o755 if path == folder else 0o644)  # whatever the umask


def _sum(path: Path) -> str:
    with regular_file(path, follow_links=False) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _named(report: OnProgress | None, graph: str) -> OnProgress | None:
    if report is None:
        return None
    return lambda phase, share: report(f"{graph}: {phase}", share)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """One program at a time. Raises PlanError."""
    with ExitStack() as stack:
        try:
            stack.enter_context(locked(path, lambda: log.warning(WAITING, path)))
        except OSError as error:
            raise PlanError(f"{path} cannot be locked: {error.strerror}; remove it") from error
        yield


def _short(value: object) -> str:
    text = str(value)
    return text[:SHOWN] if len(text) == 64 else text
