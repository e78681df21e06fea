"""Write constraints.txt: the exact version, in this environment, of everything the project requires (`make lock`)."""

from __future__ import annotations

import importlib.metadata
import sys
from pathlib import Path

from packaging.requirements import Requirement

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from tools.environment import ROOT, normalised, requirements

HEADER = """\
# Exact versions of everything `make demo` and `make test` install. Written by `make lock`; do not edit.
"""


def closure(wanted: list[str]) -> dict[str, str]:
    """Normalised name → installed version of `wanted` and of all they need on this platform."""
    versions: dict[str, str] = {}
    seen: set[tuple[str, frozenset[str]]] = set()
    queue = [Requirement(text) for text in wanted]
    while queue:
        requirement = queue.pop()
        key = (normalised(requirement.name), frozenset(requirement.extras))
        if key in seen:
            continue
        seen.add(key)
        distribution = importlib.metadata.distribution(requirement.name)
        versions[key[0]] = distribution.version
        for text in distribution.requires or []:
            needed = Requirement(text)
            extras = requirement.extras or {""}
            if needed.marker is None or any(needed.marker.evaluate({"extra": extra}) for extra in {"", *extras}):
                queue.append(needed)
    return versions


if __name__ == "__main__":
    pinned = closure(requirements("ros-wheels", "dev", "eval", "export", "train"))
    lines = [f"{name}=={version}\n" for name, version in sorted(pinned.items())]
    (ROOT / "constraints.txt").write_text(HEADER + "".join(lines))
