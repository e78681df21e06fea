"""Trust in files of a cache or data folder, which only their user, or root, can have written; locks of programs."""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


def why_untrusted(path: Path) -> str:
    """What keeps `path` from being a file or folder that only this user, or root, can have written; "" for nothing."""
    try:
        status = path.lstat()
    except OSError as error:
        return f"{path} is damaged: {error.strerror}"
    if stat.S_IFMT(status.st_mode) not in (stat.S_IFREG, stat.S_IFDIR):
        return f"{path} is a link, a pipe or a device, and is not followed: remove it"
    if status.st_uid not in (os.geteuid(), 0):
        return f"{path} belongs to user {status.st_uid} and is not trusted: use a folder of your own"
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return f"{path} may be written by other users and is not trusted: `chmod go-w {path}`"
    return ""


def make_trusted_folder(path: Path) -> None:
    """Make a folder where there is none, for its user alone to write, whatever the umask. Raises OSError."""
    if not path.is_dir():
        path.mkdir(parents=True, exist_ok=True)
        path.chmod(0o755)


@contextmanager
def locked(path: Path, waiting: Callable[[], None]) -> Iterator[None]:
    """One program at a time; the lock goes with its holder, however that ends.

    `waiting` is called once where another program has it. Raises OSError for a file that cannot be a lock.
    """
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with os.fdopen(handle, "r+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            waiting()
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
