"""Manifest of an ONNX export: a JSON file beside the graphs, for those who build engines from them."""

from __future__ import annotations

import dataclasses
import json
import re
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from ff3r_model.core.checked import read_json, record
from ff3r_model.core.errors import UserError, shown
from ff3r_model.core.ranges import Range, check_range
from ff3r_model.core.tensor_digest import tensors_digest
from ff3r_model.engine.onnx.precision import Precision

MANIFEST = "manifest.json"
FRAMES = "frames"
WINDOW = "window"
GRAPHS = (FRAMES, WINDOW)
"""Of each view alone, and of the window."""
FORMAT = 1
"""Grows when an older program could not use the files."""
SHA256 = re.compile("[0-9a-f]{64}")


class ExportError(UserError, RuntimeError):
    """A network that cannot be exported, or exported files that cannot be used; the message gives the reason."""


@dataclass(frozen=True)
class Graph:
    """One ONNX file's tensors, in order. The first dimension of each is the number of views."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


@dataclass(frozen=True)
class Manifest:
    """Which network, for which images, in which form."""

    network: str
    """The configuration's name."""
    weights: str
    """`weights_hash` of the network."""
    height: int
    """Of the images, pixels; fixed."""
    width: int
    precision: Precision
    attention: str
    """fused: one operator (opset 23); decomposed: products and softmax."""
    opset: int
    frames: Graph
    window: Graph
    format: int = FORMAT

    def __post_init__(self) -> None:
        check_range(self, Range(1, 2**16), "height", "width")
        check_range(self, Range(1, 1000), "opset")
        if self.format != FORMAT:
            raise ValueError(f"format is {self.format}, and this program reads {FORMAT}")
        if not SHA256.fullmatch(self.weights):
            raise ValueError(f"weights must be 64 hex digits, not {shown(self.weights)}")

    def write(self, folder: Path) -> None:
        """As `folder`/manifest.json."""
        (folder / MANIFEST).write_text(json.dumps(dataclasses.asdict(self), indent=1) + "\n")

    @staticmethod
    def read(folder: Path) -> Manifest:
        """Of an export's folder. Raises ExportError for anything else."""
        path = folder / MANIFEST
        try:
            return record(Manifest, read_json(path), "its manifest")
        except (OSError, ValueError) as error:
            raise ExportError(f"{path} does not describe an export ({error}); make one with `ff3r export`") from error


def graph_path(folder: Path, graph: str) -> Path:
    """The ONNX file of `frames` or `window`."""
    return folder / f"{graph}.onnx"


def weights_hash(network: nn.Module) -> str:
    """SHA-256 over names, shapes and values of all weights: equal for equal networks, wherever they lie."""
    return tensors_digest(network.state_dict(), heading="{name} {dtype} {shape}")
