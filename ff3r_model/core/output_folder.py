"""Output folders of commands: nothing is overwritten or removed that the command has not written itself."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from ff3r_model.core.errors import UserError
from ff3r_model.core.files import replaced, replaced_folder

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

    def __init__(self, path: Path, command: str) -> None:
        """Raises OutputError where `path` is a file, cannot be written, or holds what `command` did not write."""
        self.path, self.command = path.expanduser().resolve(), command
        self._files = self._listed()
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._write_list(self.path, self._files)
        except OSError as error:
            raise OutputError(f"{path} cannot be written to: {error.strerror or error}") from error

    def _listed(self) -> set[str]:
        if self.path.exists() and not self.path.is_dir():
            raise OutputError(f"{self.path} is a file: give a folder, new or empty")
        found = {each.name for each in self.path.iterdir()} if self.path.is_dir() else set()
        known = _read_list(self.path / LIST, self.command)
        if foreign := sorted(found - known - {LIST}):
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
    def whole(self) -> Iterator[Path]:
        """Atomic write of all files at once: yields an empty folder that takes the place of this one."""
        with replaced_folder(self.path) as fresh:
            yield fresh
            self._files = {each.name for each in fresh.iterdir()}
            self._write_list(fresh, self._files)

    def _write_list(self, folder: Path, files: set[str]) -> None:
        with replaced(folder / LIST) as temporary:
            temporary.write_text(json.dumps({"command": self.command, "files": sorted(files)}, indent=1) + "\n")


def _read_list(path: Path, command: str) -> set[str]:
    """What `command` has written beside its list; nothing where the list is another command's, or damaged."""
    try:
        content = json.loads(path.read_text())
        if content["command"] != command:
            return set()
        return {name for name in content["files"] if isinstance(name, str) and name == Path(name).name}
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return set()
