"""What several test modules need and what takes long to make."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import jaxtyping

from ff3r_model.engine.onnx.export import ExportConfig, export
from ff3r_model.engine.onnx.manifest import Manifest
from ff3r_model.engine.onnx.precision import Precision
from ff3r_model.network import FF3R
from ff3r_model.network.checkpoint import NANO_WEIGHTS, load_checkpoint


@contextmanager
def unchecked() -> Iterator[None]:
    """Without the checks of types and shapes: while a network is traced, sizes are symbols and no ints."""
    jaxtyping.config.update("jaxtyping_disable", True)
    try:
        yield
    finally:
        jaxtyping.config.update("jaxtyping_disable", False)


def export_unchecked(network: FF3R, config: ExportConfig, folder: Path) -> Manifest:
    """`export` without the checks of types and shapes."""
    with unchecked():
        return export(network, config, folder)


class Exports(dict[Precision, Path]):
    """The shipped nano for images of 56 × 84, exported when first asked for."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder

    def __missing__(self, precision: Precision) -> Path:
        self[precision] = self.folder / precision
        export_unchecked(load_checkpoint(NANO_WEIGHTS).network, ExportConfig(56, 84, precision), self[precision])
        return self[precision]
