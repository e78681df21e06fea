"""Crafted files: every damage of `tests/support/crafted.py` tried on the readers, counted in a table.

python -m tools.crafted_files [--only KIND] [--checkpoint FILE]
"""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
import time
import warnings
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch

from ff3r_model.network.checkpoint import NANO_WEIGHTS
from tests.support import crafted

LIMIT = 30.0
"""Seconds of a processor that a case may take."""


@dataclass
class Row:
    """What became of one kind of case."""

    outcomes: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    seconds: float = 0.0
    megabytes: float = 0.0


def main() -> int:
    """Exit status 1 where a case ends in trouble, in a wrong error, or takes too long."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="kinds of cases that contain this")
    parser.add_argument("--checkpoint", type=Path, default=NANO_WEIGHTS)
    given = parser.parse_args()
    torch.set_num_threads(1)  # more only wait for each other over small tensors
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    rows: dict[str, Row] = defaultdict(Row)
    bad = 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        base = crafted.base_map(folder)
        crafted.outcome_of_map(crafted.Case("", "", lambda path: path.write_bytes(base.read_bytes())), folder)  # warm
        work: list[tuple[crafted.Case, Callable[[crafted.Case, Path], str]]] = []
        work += [(case, crafted.outcome_of_map) for case in crafted.map_cases(base)]
        work += [(case, crafted.outcome_of_checkpoint) for case in crafted.checkpoint_cases(given.checkpoint)]
        try:
            for case, outcome_of in work:
                if given.only in case.kind:
                    bad += tried(case, outcome_of, folder, rows[case.kind])
        finally:
            print_table(rows)
    return int(bad > 0)


def tried(case: crafted.Case, outcome_of: Callable[[crafted.Case, Path], str], folder: Path, row: Row) -> bool:
    """Whether a case went wrong, which is said."""
    before, start = reset_peak(), time.process_time()
    said = outcome_of(case, folder)
    seconds = time.process_time() - start
    outcome = said.partition(":")[0]
    row.outcomes[outcome] += 1
    row.seconds, row.megabytes = max(row.seconds, seconds), max(row.megabytes, peak() - before)
    wrong = outcome not in ("refused", "harmless") or seconds > LIMIT
    if wrong:
        print(f"{case.kind}: {case.name}: {said} ({seconds:.1f} s)", file=sys.stderr, flush=True)
    return wrong


def print_table(rows: dict[str, Row]) -> None:
    """Markdown."""
    print(
        "| kind | tried | refused | read, harmless | read, trouble | wrong error | longest, CPU s | most memory, MB |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for kind, row in rows.items():
        counts = [row.outcomes[name] for name in ("refused", "harmless", "trouble", "wrong error")]
        print(f"| {kind} | {sum(counts)} | {' | '.join(map(str, counts))} | {row.seconds:.1f} | {row.megabytes:.0f} |")


def reset_peak() -> float:
    """Start to measure the peak of memory anew; megabytes now."""
    Path("/proc/self/clear_refs").write_text("5")
    return _status("VmRSS")


def peak() -> float:
    """Megabytes at most since."""
    return _status("VmHWM")


def _status(name: str) -> float:
    text = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) / 1024 for line in text.splitlines() if line.startswith(name))


if __name__ == "__main__":
    sys.exit(main())
