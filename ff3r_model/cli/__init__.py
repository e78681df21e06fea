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
from ff3r_model.cli.config import Config
from ff3r_model.cli.convert import Convert
from ff3r_model.cli.evaluate import Evaluate
from ff3r_model.cli.export import BuildEngine, Export
from ff3r_model.cli.query import Query
from ff3r_model.cli.reconstruct import Reconstruct
from ff3r_model.cli.train import Train
from ff3r_model.cli.view import View
from ff3r_model.core.errors import UserError

EXIT_ERROR = 2
"""Something that the user can mend: said in one line."""
EXIT_INTERRUPTED = 130

COMMANDS: dict[str, Callable[..., Any]] = {
    "reconstruct": Reconstruct,
    "query": Query,
    "view": View,
    "convert": Convert,
    "eval": Evaluate,
    "train": Train,
    "export": Export,
    "build-engine": BuildEngine,
    "config": Config,
}
"""Every subcommand: its name and the dataclass of its options, whose call returns what to print."""


def main(arguments: list[str] | None = None) -> int:
    """Entry point of `ff3r`. Errors that the user can mend are one line and exit status 2."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments == ["--version"]:
        print(f"ff3r {__version__}")
        return 0
    logging.basicConfig(level=logging.WARNING, format="ff3r: %(message)s")
    logging.getLogger("ff3r_model.frames").setLevel(logging.INFO)  # which topics of a bag are used
    os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")  # unreadable files are our business to report
    try:
        command = tyro.extras.subcommand_cli_from_dict(
            COMMANDS, prog="ff3r", args=arguments or ["--help"], sort_subcommands=False
        )
        if told := command():
            print(told)
    except KeyboardInterrupt:
        print("ff3r: interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
    except (UserError, OSError) as error:
        print(f"ff3r: {error}", file=sys.stderr)
        return EXIT_ERROR
    return 0
