"""Regular files opened for reading, atomic file replacement (write, fsync, rename), and a digest of tensors."""

from __future__ import annotations

import errno
import glob
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path

LEFTOVER_SECONDS = 3600
"""Age at which `remove_leftovers` takes a temporary file for that of a killed writer."""
PART = ".part"
"""How the names of temporary files end, which begin with a dot and the name of the file to be."""
_OTHERS = {
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFDIR: "a folder",
    stat.S_IFLNK: "a symbolic link",
}
"""What a path may lead to besides a regular file."""


def regular_file(path: Path, follow_links: bool = True) -> BufferedReader:
    """Open a regular file for reading bytes. Never waits, whatever lies at `path`.

    Raises OSError for a named pipe, a socket, a device or a folder (and a link, without `follow_links`), whose
    `strerror` says which; and as `open` does.
    """
    refuse_others(path.stat() if follow_links else path.lstat(), path)  # before it is opened: that may do something
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | (0 if follow_links else os.O_NOFOLLOW)
    file = os.fdopen(os.open(path, flags), "rb")
    try:
        refuse_others(os.fstat(file.fileno()), path)
    except OSError:
        file.close()
        raise
    return file


def refuse_others(status: os.stat_result, path: Path) -> None:
    """Raise OSError for what is no regular file."""
    if not stat.S_ISREG(status.st_mode):
        what = _OTHERS.get(stat.S_IFMT(status.st_mode), "no file")
        raise OSError(errno.EINVAL, f"it is {what}; only regular files are read and written", str(path))


@contextmanager
def replaced(path: Path) -> Iterator[Path]:
    """Atomic write: yields a temporary path beside `path`, whose file takes the place of `path` after the body.

    Whenever the body raises, or the process is killed, or the power fails, `path` holds what was there before or the
    new file, whole. Raises OSError, for instance where the folder is missing, or `path` is a device or a pipe.
    """
    if path.exists():
        refuse_others(path.stat(), path)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=PART, dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o644)
        sync(temporary)
        temporary.replace(path)
        sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def replaced_folder(path: Path) -> Iterator[Path]:
    """Atomic write of a folder of files: yields an empty one beside `path`, which takes its place after the body.

    As `replaced`, but between two renames there is nothing at `path`: a folder cannot be put in a full one's place.
    """
    with tempfile.TemporaryDirectory(prefix=f".{path.name}.", suffix=PART, dir=path.parent) as scratch:
        new, old = Path(scratch, "new"), Path(scratch, "old")
        new.mkdir()
        yield new
        for each in [*new.rglob("*"), new]:
            sync(each)
        if path.is_dir():
            path.rename(old)  # goes with the scratch folder
        new.rename(path)
        sync(path.parent)


def remove_leftovers(path: Path) -> None:
    """Remove what killed writers of `path` have left beside it, file or folder; young ones may be at work still.

    For what is replaced again and again: it looks through all names of the parent folder.
    """
    for rest in path.parent.glob(f".{glob.escape(path.name)}.*{PART}"):
        if time.time() - rest.stat().st_mtime > LEFTOVER_SECONDS:
            shutil.rmtree(rest) if rest.is_dir() else rest.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Let a file's content, or a folder's names, outlive a power cut."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
