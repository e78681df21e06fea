"""Fetching the furniture: Debian's package of Sweet Home 3D's additional models, checked and unpacked."""

from __future__ import annotations

import hashlib
import logging
import shutil
import subprocess
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

from ff3r_model.core.errors import UserError
from ff3r_model.core.files import replaced, replaced_folder
from ff3r_model.synthetic.furnished.models import ARCHIVES, MODELS, Archive, credits, load_catalogue

log = logging.getLogger(__name__)

PACKAGE = "sweethome3d-furniture"
INSTALLED = Path("/usr/share/sweethome3d/furniture")
"""Where the package puts its archives."""
CREDITS = "CREDITS.md"
MAX_BYTES = 2**30
"""Of one archive, unpacked."""


class FetchError(UserError):
    """The furniture cannot be had, or is not what it should be."""


def fetch(folder: Path, files: Sequence[Path] = ()) -> int:
    """Put the models into `folder`, and the credits beside them; returns how many models there are.

    `files`: the Debian package, or .sh3f archives that somebody has fetched already. Without them the package is taken
    from where it is installed, else downloaded by apt-get, which needs no root. What is there already stays. Raises
    FetchError naming the file that is missing or is another one than expected.
    """
    models = folder / MODELS
    wanted = [archive for archive in ARCHIVES if not (models / archive.name).is_dir()]
    if wanted:
        models.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory() as scratch:
            given = _archives(files, Path(scratch))
            for archive in wanted:
                _unpack(_checked(archive, given), models / archive.name)
    found = load_catalogue(folder)
    with replaced(folder / CREDITS) as part:
        part.write_text(credits(found))
    return len(found)


def _archives(files: Sequence[Path], scratch: Path) -> dict[str, Path]:
    """The .sh3f files by the names of their catalogues."""
    places = [path for path in files if path.suffix == ".sh3f"]
    packages = [path for path in files if path.suffix == ".deb"]
    if strange := [path for path in files if path not in places and path not in packages]:
        raise FetchError(f"{strange[0]} is neither a .deb nor an .sh3f file: give {PACKAGE}_….deb or its archives")
    if not files:
        if INSTALLED.is_dir():
            places = list(INSTALLED.glob("*.sh3f"))
        else:
            packages = [_download(scratch)]
    for package in packages:
        places += _extract(package, scratch / "package")
    return {path.stem: path for path in places}


def _download(scratch: Path) -> Path:
    """The Debian package, by apt-get."""
    if shutil.which("apt-get") is None:
        raise FetchError(
            f"there is no apt-get here: fetch {PACKAGE} from packages.debian.org (120 MB) and give the file, "
            f"`ff3r world fetch {PACKAGE}_1.8-1_all.deb`"
        )
    log.info("downloading %s (120 MB)", PACKAGE)
    _run(["apt-get", "download", PACKAGE], scratch, "apt-get update may help, or give the file itself")
    return next(scratch.glob("*.deb"))


def _extract(package: Path, target: Path) -> list[Path]:
    """The archives in a Debian package."""
    if not package.is_file():
        raise FetchError(f"{package} is no file")
    if shutil.which("dpkg-deb") is None:
        raise FetchError("a .deb needs dpkg-deb, which is missing: unpack it yourself and give its .sh3f files")
    _run(["dpkg-deb", "-x", str(package.resolve()), str(target)], package.parent, "is it the whole file?")
    return list(target.rglob("*.sh3f"))


def _run(command: list[str], folder: Path, hint: str) -> None:
    ended = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if ended.returncode:
        said = " ".join((ended.stderr or ended.stdout).split())[-200:]
        raise FetchError(f"{' '.join(command[:2])} failed: {said}; {hint}")


def _checked(archive: Archive, given: dict[str, Path]) -> Path:
    if archive.name not in given:
        raise FetchError(f"{archive.name}.sh3f is missing: give the package {PACKAGE} 1.8, or all five of its archives")
    path = given[archive.name]
    if not path.is_file():
        raise FetchError(f"{path} is no file")
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != archive.sha256:
        raise FetchError(
            f"{path} is another file than the one whose licences were looked at (SHA-256 {digest[:12]}…, and "
            f"{archive.sha256[:12]}… is wanted): take version 1.8 of {PACKAGE}"
        )
    return path


def _unpack(path: Path, target: Path) -> None:
    """All files of an archive, whose names stay below `target`."""
    with zipfile.ZipFile(path) as archive, replaced_folder(target) as scratch:
        if sum(entry.file_size for entry in archive.infolist()) > MAX_BYTES:
            raise FetchError(f"{path} unpacks to more than {MAX_BYTES >> 20} MiB")
        archive.extractall(scratch)
    log.info("%s is unpacked", target.name)
