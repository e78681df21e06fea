"""Output folders of commands: nothing is overwritten or removed that the command has not written itself."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from ff3r_model.core.checked import read_json
from ff3r_model.core.errors import UserError
from ff3r_model.core.files import PART, remove_leftovers, replaced, sync

LIST = ".ff3r_output.json"
"""The file in which a folder lists what a command has written to it."""
SHOWN = 3
"""Foreign files that a refusal names."""


class OutputError(UserError):
    """A folder that cannot be written to, or holds what is not the command's."""


class OutputFolder:
    """A folder for a command's files: new, empty, or holding only what the same command wrote before.

    Made, listed and found writable at once, before hours of work go into what is to be written there.
    """

    def __init__(self, path: Path, command: str, adopted: Collection[str] = ()) -> None:
        """Raises OutputError where `path` is a file, cannot be written, or holds what `command` did not write.

        Files of the names `adopted` count as its own without a list, which a copy of a folder may have lost.
        """
        self.path, self.command = path.expanduser().resolve(), command
        self._files = self._listed(set(adopted))
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._write_list(self.path, self._files)
        except OSError as error:
            raise OutputError(f"{path} cannot be written to: {error.strerror or error}") from error

    def _listed(self, adopted: set[str]) -> set[str]:
        if self.path.exists() and not self.path.is_dir():
            raise OutputError(f"{self.path} is a file: give a folder, new or empty")
        found = {each.name for each in self.path.iterdir()} if self.path.is_dir() else set()
        known = _read_list(self.path / LIST, self.command) | (found & adopted)
        if foreign := sorted(name for name in found - known - {LIST} if not _is_left_over(name, known)):
            rest = f" and {len(foreign) - SHOWN} more" if len(foreign) > SHOWN else ""
            raise OutputError(
                f"{self.path} holds {', '.join(foreign[:SHOWN])}{rest}, which `ff3r {self.command}` has not written: "
                "choose another folder, new or empty"
            )
        return known

    def file(self, name: str) -> Path:
        """Where to write a file of the command's, which is listed as its own from now on. Raises OSError."""
        if name not in self._files:
            self._write_list(self.path, self._files | {name})
            self._files.add(name)
        return self.path / name

    def keep_only(self, names: Collection[str]) -> None:
        """Remove what the command wrote earlier and has not now. Raises OSError."""
        for name in sorted(self._files.difference(names)):
            (self.path / name).unlink(missing_ok=True)
            self._files.remove(name)
        self._write_list(self.path, self._files)

    @contextmanager
    def whole(self, seal: str) -> Iterator[Path]:
        """Write all files as one: yields an empty folder whose files take the place of all that are in this one.

        `seal` is the file without which the others count for nothing: it goes first and comes last, so that whoever
        finds it finds all of them. The folder itself stays where it is: it may be somebody's present one, or a mount.
        """
        remove_leftovers(self.path / LIST)
        with tempfile.TemporaryDirectory(prefix=f".{LIST}.", suffix=PART, dir=self.path) as scratch:
            yield Path(scratch)
            fresh = sorted(Path(scratch).iterdir(), key=lambda each: each.name == seal)
            for each in fresh:
                sync(each)
            old = self._files
            self._files = old | {each.name for each in fresh}
            self._write_list(self.path, self._files)
            for name in sorted(old, key=lambda name: name != seal):
                (self.path / name).unlink(missing_ok=True)
            for each in fresh:
                each.replace(self.path / each.name)
            self._files = {each.name for each in fresh}
            self._write_list(self.path, self._files)

    def _write_list(self, folder: Path, files: set[str]) -> None:
        with replaced(folder / LIST) as temporary:
            temporary.write_text(json.dumps({"command": self.command, "files": sorted(files)}, indent=1) + "\n")


def _read_list(path: Path, command: str) -> set[str]:
    """What `command` has written beside its list; nothing where the list is another command's, or damaged."""
    try:
        content = read_json(path)
        if content["command"] != command:
            return set()
        return {name for name in content["files"] if isinstance(name, str) and name == Path(name).name}
    except (OSError, ValueError, KeyError, TypeError):
        return set()


def _is_left_over(name: str, known: set[str]) -> bool:
    """Whether a killed writer of one of the `known` files, or of the list, has left this."""
    return name.endswith(PART) and any(name.startswith(f".{written}.") for written in (*known, LIST))


def check_output_file(path: Path) -> None:
    """Find out before the work whether its result can be written: the folder is made if need be. Raises OutputError."""
    target = path.expanduser()
    if target.is_dir():
        raise OutputError(f"{path} is a folder: give the name of a file to write")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.exists() and not os.access(target, os.W_OK):
            raise PermissionError(None, "no permission to write")
        if not target.exists() or target.is_file():
            tempfile.TemporaryFile(dir=target.parent).close()
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error.strerror or error}") from error
