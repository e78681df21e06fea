"""Plans on disk: found again by what they were built for, rebuilt with a reason, whole or not there at all."""

from __future__ import annotations

import dataclasses
import fcntl
import hashlib
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ff3r_model.core.files import replaced_folder
from ff3r_model.core.types import MAX_VIEWS
from ff3r_model.engine.onnx.manifest import GRAPHS, ExportError, Manifest, graph_path
from ff3r_model.engine.tensorrt.build import OnProgress, build_plan, profiles
from ff3r_model.engine.tensorrt.library import TensorRTError, TensorRTLibrary

log = logging.getLogger(__name__)

DESCRIPTION = "plan.json"
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
    if not (folder / DESCRIPTION).is_file():
        raise PlanError(f"there is no plan for {key.slot} in {cache} yet")
    try:
        described = json.loads((folder / DESCRIPTION).read_text())
        built_for, sums = PlanKey(**described["key"]), dict(described["sha256"])
        manifest = Manifest.read(folder)
    except (OSError, ValueError, TypeError, KeyError, ExportError) as error:
        raise PlanError(f"the description of the plan in {folder} is damaged ({error})") from error
    if changes := built_for.changes(key):
        raise PlanError(f"the plan in {folder} was built for something else: {changes} changed")
    plan = CachedPlan(folder, manifest)
    for graph in GRAPHS:
        if not plan.path(graph).is_file() or _sum(plan.path(graph)) != sums.get(graph):
            raise PlanError(f"{plan.path(graph)} is damaged: it is not what was written")
    return plan


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
    cache.mkdir(parents=True, exist_ok=True)
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
            sums[graph] = hashlib.sha256(data).hexdigest()
            data.release()
        manifest.write(folder)
        description = {"key": dataclasses.asdict(key), "sha256": sums}
        (folder / DESCRIPTION).write_text(json.dumps(description, indent=1))


def _sum(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _named(report: OnProgress | None, graph: str) -> OnProgress | None:
    if report is None:
        return None
    return lambda phase, share: report(f"{graph}: {phase}", share)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """One program at a time; the lock goes with its holder, however that ends."""
    with open(path, "a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log.warning("another program builds this plan (%s); waiting for it", path)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _short(value: object) -> str:
    text = str(value)
    return text[:SHOWN] if len(text) == 64 else text
