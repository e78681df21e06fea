"""What several test modules need and what takes long to make."""

from __future__ import annotations

from pathlib import Path

import pytest

from ff3r_model.checkpoint import load_checkpoint
from ff3r_model.engine.export import ExportConfig, export
from ff3r_model.engine.precision import Precision
from ff3r_model.pipeline import NANO_WEIGHTS


class Exports(dict[Precision, Path]):
    """The shipped nano for images of 56 × 84, exported when first asked for."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder

    def __missing__(self, precision: Precision) -> Path:
        self[precision] = self.folder / precision
        export(load_checkpoint(NANO_WEIGHTS).network, ExportConfig(56, 84, precision), self[precision])
        return self[precision]


@pytest.fixture(scope="session")
def nano_export(tmp_path_factory: pytest.TempPathFactory) -> Exports:
    """Folders of nano's ONNX graphs by precision."""
    return Exports(tmp_path_factory.mktemp("nano_export"))
