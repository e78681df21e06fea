"""Results that survive being cut off: JSON after every measurement, and a Markdown table of it."""

from __future__ import annotations

import json
import platform
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch

from ff3r_model import __version__
from ff3r_model.core.files import replaced

NO_TIME = "no time was left"
CUT_OFF = "cut off at the deadline"
UNFINISHED = (NO_TIME, CUT_OFF)
"""Reasons that another run may cure."""


class OtherMachine(SystemExit):
    """A file of results from another machine or version, which is not overwritten."""


@dataclass(frozen=True)
class Machine:
    """What figures depend on besides the code."""

    device: str
    memory_gib: float
    torch: str
    cuda: str
    python: str = field(default_factory=platform.python_version)
    ff3r: str = __version__

    @staticmethod
    def here(device: torch.device) -> Machine:
        """This machine's."""
        if device.type != "cuda":
            return Machine(f"{platform.processor() or platform.machine()}, no GPU", 0, torch.__version__, "none")
        properties = torch.cuda.get_device_properties(device)
        memory = round(properties.total_memory / 2**30, 1)
        return Machine(properties.name, memory, torch.__version__, str(torch.version.cuda))


@dataclass
class Results:
    """Figures by measurement, or why there are none; kept in a file from one run to the next."""

    path: Path
    machine: Machine
    figures: dict[str, dict[str, float]] = field(default_factory=dict)
    """Per measurement, in the units that the names end with."""
    not_measured: dict[str, str] = field(default_factory=dict)

    @staticmethod
    def resume(path: Path, machine: Machine) -> Results:
        """What an earlier run left in the file. Raises OtherMachine where that was another machine or version."""
        if not path.exists():
            return Results(path, machine)
        held = json.loads(path.read_text())
        if held["machine"] != asdict(machine):
            raise OtherMachine(
                f"{path} is of another machine or version ({held['machine']['device']}, torch "
                f"{held['machine']['torch']}): give another file with --json, or remove it"
            )
        return Results(path, machine, held["figures"])

    def add(self, name: str, figures: dict[str, float]) -> None:
        """Keep what was measured."""
        self.figures[name] = figures
        self.not_measured.pop(name, None)
        self.save()

    def miss(self, name: str, reason: str) -> None:
        """Say why something was not measured."""
        self.not_measured[name] = " ".join(reason.split())
        self.save()

    @property
    def complete(self) -> bool:
        """Whether another run could add nothing, on this machine."""
        return not any(reason in UNFINISHED for reason in self.not_measured.values())

    def save(self) -> None:
        """Write the JSON and, beside it, the table."""
        held = {"machine": asdict(self.machine), "figures": self.figures, "not_measured": self.not_measured}
        for path, text in ((self.path, json.dumps(held, indent=1)), (self.path.with_suffix(".md"), self.markdown())):
            with replaced(path) as part:
                part.write_text(f"{text}\n")

    def markdown(self) -> str:
        """A table with one row per measurement."""
        machine = self.machine
        lines = [
            f"{machine.device}, {machine.memory_gib:g} GiB; torch {machine.torch}, CUDA {machine.cuda}, "
            f"Python {machine.python}; FF3R {machine.ff3r}",
            "",
            "| measurement | figures |",
            "| --- | --- |",
        ]
        for name, figures in self.figures.items():
            lines.append(f"| {name} | {', '.join(f'{key} {value:.4g}' for key, value in figures.items())} |")
        lines += [f"| {name} | not measured: {reason} |" for name, reason in self.not_measured.items()]
        return "\n".join(lines)
