"""Create the virtual environment of `make demo` and `make test`: everything pinned, ROS from wheels, messages built."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import sysconfig
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from ff3r_ros.wheels import MixedRosError, refuse_native_ros
from tools.environment import ROOT, SetupError, create_venv, main, requirements, run

VERSIONS = ((3, 11), (3, 12))
"""The Pythons that the ROS wheels are made for."""
EXTRAS = ("ros-wheels", "dev")


def check_machine() -> None:
    """Raise SetupError naming the first thing that is missing to build the messages."""
    if sys.version_info[:2] not in VERSIONS:
        raise SetupError(f"Python 3.11 or 3.12 is needed, and {sys.executable} is {sys.version.split()[0]}")
    compiler = os.environ.get("CXX", "c++").split()[0]
    if shutil.which(compiler) is None:
        raise SetupError(f"no C++ compiler ({compiler} not found). On Debian and Ubuntu: sudo apt install g++")
    header = Path(sysconfig.get_path("include"), "Python.h")
    if not header.is_file():
        raise SetupError(f"{header} is missing. On Debian and Ubuntu: sudo apt install python3-dev")


def set_up(folder: Path, stamp: Path) -> None:
    """Create or update the environment in `folder`; touches `stamp` when all is done."""
    check_machine()
    print(f"[1/4] virtual environment {folder}", flush=True)
    python = create_venv(folder)
    pip = (python, "-m", "pip", "install", "--no-input", "--disable-pip-version-check")
    print("[2/4] packages, pinned by constraints.txt (some 3 GB the first time, most of it torch)", flush=True)
    run(*pip, "-c", "constraints.txt", *requirements(*EXTRAS))
    built_here = ("-q", "--no-build-isolation", "--no-deps")
    print("[3/4] tf2_msgs and of nav2_msgs what is published, which the ROS wheels lack", flush=True)
    run(*pip, *built_here, "./tools/tf2_msgs", "./tools/nav2_msgs")
    print("[4/4] this package and its messages", flush=True)
    run(*pip, *built_here, "-e", ".")
    show_checkout(folder)
    stamp.touch()
    print("ready", flush=True)


def show_checkout(folder: Path) -> None:
    """Let the environment import `benchmarks` from the checkout, so that its files also run as scripts."""
    for packages in folder.glob("lib/python3.*/site-packages"):
        (packages / "ff3r_checkout.pth").write_text(f"{ROOT}\n")


def check_shell(folder: Path) -> None:
    """Raise SetupError if a native ROS is sourced."""
    try:
        refuse_native_ros(os.environ, folder)
    except MixedRosError as error:
        raise SetupError(str(error)) from error


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="where the virtual environment goes")
    parser.add_argument("--check-shell", action="store_true", help="only refuse a shell that has sourced a native ROS")
    options = parser.parse_args()
    where = ROOT / options.folder
    main(lambda: check_shell(where) if options.check_shell else set_up(where, where / ".ready"))
