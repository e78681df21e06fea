"""Fuzzing: run the tests of random input over and over, each time with other input (`make fuzz MINUTES=10`)."""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
import time


def main() -> int:
    """Exit status of the first run that failed; what failed is shown and is tried first the next time."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("paths", nargs="*", default=["tests"])
    given = parser.parse_args()
    until = time.monotonic() + 60 * given.minutes
    status = 0
    while status == 0 and (left := until - time.monotonic()) > 0:
        seed = random.randrange(2**32)
        print(f"seed {seed}, {left / 60:.1f} minutes left", flush=True)
        status = run(["--hypothesis-profile=fuzz", f"--hypothesis-seed={seed}", *given.paths], left)
    return status


def run(arguments: list[str], seconds: float) -> int:
    """Exit status of pytest on the fuzz tests; 0 where the time ran out before one failed."""
    command = [sys.executable, "-m", "pytest", "-m", "fuzz", "-x", "-q", "--timeout", "3600", *arguments]
    try:
        return subprocess.run(command, timeout=seconds).returncode
    except subprocess.TimeoutExpired:
        return 0


if __name__ == "__main__":
    sys.exit(main())
