"""FF3R: camera poses, depth and language-carrying 3D Gaussians from plain RGB views. Knows no ROS."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ff3r_model.frames.open_source import open_source
    from ff3r_model.frames.windows import FrameRejected
    from ff3r_model.pipeline import Pipeline, PipelineConfig

__all__ = ["FrameRejected", "Pipeline", "PipelineConfig", "__version__", "open_source"]
__version__ = "0.1.0"
_HOMES = {
    "FrameRejected": "ff3r_model.frames.windows",
    "Pipeline": "ff3r_model.pipeline",
    "PipelineConfig": "ff3r_model.pipeline",
    "open_source": "ff3r_model.frames.open_source",
}
"""Where the package's few public names live; loaded when first asked for, since torch takes seconds."""


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
