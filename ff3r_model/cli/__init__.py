"""The `ff3r` command: one dataclass per subcommand, whose fields are the options and whose call does the work.

Heavy modules load in the call, so that help comes at once.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable
from typing import Any

import tyro

from ff3r_model import __version__
from ff3r_model.cli import stop_signals, terminal
from ff3r_model.cli.config import Config
from ff3r_model.cli.convert import Convert
from ff3r_model.cli.evaluate import Evaluate
from ff3r_model.cli.export import BuildEngine, Export
from ff3r_model.cli.query import Query
from ff3r_model.cli.reconstruct import Reconstruct
from ff3r_model.cli.train import Train
from ff3r_model.cli.view import View
from ff3r_model.cli.weights import Weights
from ff3r_model.cli.world import World
from ff3r_model.core.errors import UserError

EXIT_ERROR = 2
"""Something that the user can mend: said in one line."""
EXIT_INTERRUPTED = 130

COMMANDS: dict[str, Callable[..., Any]] = {
    "reconstruct": Reconstruct,
    "query": Query,
    "view": View,
    "weights": Weights,
    "convert": Convert,
    "eval": Evaluate,
    "train": Train,
    "world": World,
    "export": Export,
    "build-engine": BuildEngine,
    "config": Config,
}
"""Every subcommand: its name and the dataclass of its options, whose call returns what to print."""


ABOUT = """\
Camera frames in, a semantic map out that answers to words. `ff3r COMMAND --help` lists the options of a command.

-V, --version: say which version this is"""
VERSION_ASKED = ("--version", "-V", "version")


def main(arguments: list[str] | None = None) -> int:
    """Entry point of `ff3r`. Errors that the user can mend are one line and exit status 2."""
    arguments = sys.argv[1:] if arguments is None else arguments
    terminal.accept_any_text()
    logging.basicConfig(level=logging.WARNING, format="ff3r: %(message)s")
    logging.getLogger("ff3r_model.frames").setLevel(logging.INFO)  # which topics of a bag are used
    os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")  # unreadable files are our business to report
    try:
        with stop_signals.as_interrupts():
            if told := _command(arguments)():
                terminal.tell(told)
    except KeyboardInterrupt as stop:
        status = stop.exit_status if isinstance(stop, stop_signals.Stopped) else EXIT_INTERRUPTED
        terminal.complain("interrupted" if status == EXIT_INTERRUPTED else f"interrupted by {stop}")
        return status
    except (UserError, OSError) as error:
        terminal.complain(_told(error))
        return EXIT_ERROR
    return 0


def _command(arguments: list[str]) -> Callable[[], str | None]:
    """The work that the arguments ask for. Exits after help, and with status 2 for arguments that are none."""
    if arguments[:1] and arguments[0] in VERSION_ASKED:
        return lambda: f"ff3r {__version__}"
    if arguments[:1] == ["help"]:
        arguments = [*arguments[1:], "--help"]
    try:
        return tyro.extras.subcommand_cli_from_dict(
            COMMANDS, prog="ff3r", description=ABOUT, args=arguments or ["--help"], sort_subcommands=False
        )
    except SystemExit:  # the help was printed, or what is wrong with the arguments
        _flushed()
        raise
    except BrokenPipeError:
        _flushed()
        raise SystemExit(0) from None


def _flushed() -> None:
    for stream in filter(None, (sys.stdout, sys.stderr)):
        try:
            stream.flush()
        except OSError:
            terminal.discard(stream)


def _told(error: Exception) -> str:
    """An error's message; without Python's number where the system names a file."""
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        return f"{os.fspath(error.filename)}: {error.strerror}"
    return str(error) if not isinstance(error, OSError) or error.filename is not None else error.strerror or str(error)
