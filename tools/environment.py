"""What the two set-ups share: the project's requirements, running a command, and stopping with a reason."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
import venv
from collections.abc import Callable, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BOOTSTRAPPED = "_ROS_WHEELS_BOOTSTRAP_COMPLETE"
"""Set inside a Python that has ROS wheels; inherited by another environment's Python it would hide its libraries."""


class SetupError(RuntimeError):
    """Why the set-up cannot go on, and what to do about it."""


def requirements(*extras: str) -> list[str]:
    """The project's dependencies, and those of `extras`, as pyproject.toml states them."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    found = list(project["dependencies"])
    for extra in extras:
        found += project["optional-dependencies"][extra]
    return found


def constraints() -> list[str]:
    """The lines `name==version` of constraints.txt."""
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def normalised(requirement: str) -> str:
    """The normalised name of the project that a requirement or constraint asks for."""
    return re.sub(r"[-_.]+", "-", re.split(r"[^\w.-]", requirement, maxsplit=1)[0]).lower()


def run(*command: str | Path, environ: Mapping[str, str] = os.environ) -> None:
    """Run a command with its output shown; raises SetupError when it fails."""
    clean = {key: value for key, value in environ.items() if key != BOOTSTRAPPED}
    line = " ".join(map(str, command))
    try:
        subprocess.run([str(part) for part in command], check=True, cwd=ROOT, env=clean, stdin=subprocess.DEVNULL)
    except subprocess.CalledProcessError as error:
        raise SetupError(f"exit code {error.returncode}, with the output above, of:\n  {line}") from error


def create_venv(folder: Path, *, system_site_packages: bool = False) -> Path:
    """Make a virtual environment that colcon does not look into, unless a working one is there; returns its Python."""
    python = folder / "bin/python"
    if not _works(python, folder):
        try:
            venv.create(folder, clear=True, with_pip=True, symlinks=True, system_site_packages=system_site_packages)
        except subprocess.CalledProcessError as error:
            raise SetupError(
                f"{sys.executable} cannot create virtual environments with pip: {error}. "
                "On Debian and Ubuntu: sudo apt install python3-venv"
            ) from error
    (folder / "COLCON_IGNORE").touch()
    return python


def _works(python: Path, folder: Path) -> bool:
    """Whether `python` runs, is of this version and believes to be in `folder`, which one that was moved does not."""
    code = "import sys, pip; print(sys.prefix, *sys.version_info[:2])"
    try:
        said = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return False
    return said == f"{folder} {sys.version_info[0]} {sys.version_info[1]}"


def main(set_up: Callable[[], None]) -> None:
    """Run a set-up; print why it stopped and exit with 1 where it cannot go on."""
    try:
        set_up()
    except SetupError as error:
        sys.exit(f"\nset-up stopped: {error}")
