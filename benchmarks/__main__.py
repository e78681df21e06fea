"""`python -m benchmarks [--quick] [--json FILE] [ROOM.NAME …]`: every benchmark, each in a process of its own."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

ALL = (
    "voxel_map.voxelize", "voxel_map.query", "voxel_map.million", "ros.conversions", "network.engine", "network.sparse",
    "ros.node_overhead", "slam.accuracy", "slam.refinement", "slam.moving", "slam.long_run",
)  # fmt: skip
ROOT = Path(__file__).parents[1]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", default=ALL, metavar="NAME", help=f"of {', '.join(ALL)}; default all")
    parser.add_argument("--json", type=Path, help="write all figures to this file, under flat keys")
    parser.add_argument("--quick", action="store_true", help="small sizes, figures without meaning")
    options = parser.parse_args()
    if unknown := set(options.names) - set(ALL):
        parser.error(f"no benchmark is called {', '.join(sorted(unknown))}; there are {', '.join(ALL)}")
    figures: dict[str, float] = {}
    failed = [name for name in options.names if not _run(name, options.quick, figures)]
    if options.json is not None:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return len(failed)


def _run(name: str, quick: bool, figures: dict[str, float]) -> bool:
    """One benchmark; its table goes to the terminal, its figures are added to `figures`."""
    with tempfile.NamedTemporaryFile(suffix=".json") as file:
        command = [sys.executable, "-m", f"benchmarks.{name}", "--json", file.name, *(["--quick"] if quick else [])]
        if subprocess.run(command, cwd=ROOT, check=False).returncode:
            return False
        figures |= json.loads(Path(file.name).read_text())
        return True


if __name__ == "__main__":
    sys.exit(main())
