"""`ff3r export` and `ff3r build-engine`: from a checkpoint to ONNX, and from ONNX to a TensorRT plan."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from ff3r_model.cli.steps_shown import steps_shown


@dataclass(frozen=True)
class Export:
    """Write the network as two ONNX graphs: frames.onnx (each view alone) and window.onnx (what views say together).

    The number of views stays open, 2 to 64; the images' size is fixed. Needs the packages of the extra "export".
    """

    checkpoint: Positional[str]
    """Weights to export: a name of `ff3r weights list`, or a file."""
    output: Annotated[Path, arg(aliases=["-o", "--out"])]
    """Folder to write: new, empty, or of an earlier export, which is replaced."""
    image_size: tuple[int, int] | None = None
    """Width and height of the camera's images; the network's own size follows as in the node; if not given, as in
    --config, else 640 480."""
    long_side: int | None = None
    """Pixels of the network's images along their long side; what the checkpoint is meant for if not given."""
    precision: Literal["float32", "float16"] | None = None
    """Of the matrix products; norms and the camera and depth heads stay float32; if not given, as in --config, else
    float16."""
    attention: Literal["fused", "decomposed"] = "fused"
    """fused: one operator, opset 23, for TensorRT 10.14 or later and TensorRT-RTX; decomposed: for older."""
    config: Path | None = None
    """YAML file of the pipeline's configuration for which to export; `ff3r config` prints one."""

    def __call__(self) -> str:
        """Write the graphs; returns the summary."""
        from ff3r_model.engine.choose import network_size
        from ff3r_model.engine.onnx.export import ExportConfig, export
        from ff3r_model.network.checkpoint import load_checkpoint
        from ff3r_model.pipeline import PipelineConfig

        options = {
            "engine.image_size": self.image_size,
            "engine.precision": self.precision,
            "window.long_side": self.long_side,
        }
        config = PipelineConfig.from_yaml(self.config, options)
        network = load_checkpoint(self.checkpoint).network
        side = config.window.long_side or network.config.image_side
        height, width = network_size(config.engine.image_size, side, network.config.encoder.patch)
        with steps_shown("ff3r_model.engine.onnx.export"):
            settings = ExportConfig(height, width, config.engine.precision, self.attention)
            manifest = export(network, settings, self.output)
        return (
            f"{self.output}: {manifest.network}, images of {width}x{height}, {manifest.precision}, "
            f"opset {manifest.opset}, {_megabytes(self.output)}"
        )


@dataclass(frozen=True)
class BuildEngine:
    """Build a TensorRT plan of what `ff3r export` wrote, for the GPU of this machine.

    The node with the same weights, camera and views finds it and starts at once. Takes minutes to an hour.
    """

    exported: Positional[Path]
    """Folder that `ff3r export` wrote."""
    views: int | None = None
    """Views per window that the plan is tuned for; if not given, as in --config, else 8."""
    max_views: int | None = None
    """Largest window that it takes; if not given, as in --config, else 64."""
    cache: Path | None = None
    """Folder of the plans; if not given, as in --config, else ~/.cache/ff3r/engines."""
    device: str = "auto"
    """The GPU: auto, or one of torch's names."""
    config: Path | None = None
    """YAML file of the pipeline's configuration for which to build; `ff3r config` prints one."""

    def __call__(self) -> str:
        """Build or find the plan; returns where it is."""
        from ff3r_model.core.types import MAX_VIEWS, MIN_VIEWS
        from ff3r_model.engine.device import device_named, gpu_name, is_nvidia
        from ff3r_model.engine.onnx.manifest import ExportError, Manifest
        from ff3r_model.engine.tensorrt.library import TensorRTError, load_library
        from ff3r_model.engine.tensorrt.plan_cache import PlanKey, default_cache, obtain
        from ff3r_model.engine.tensorrt.progress import Progress
        from ff3r_model.pipeline import PipelineConfig

        config = PipelineConfig.from_yaml(self.config, {"engine.cache": self.cache, "engine.max_views": self.max_views})
        views, max_views = self.views or config.window.views, config.engine.max_views
        if not MIN_VIEWS <= views <= MAX_VIEWS or self.views == 0:
            raise ExportError(f"--views must be {MIN_VIEWS} to {MAX_VIEWS}, not {self.views}")
        manifest, library, device = Manifest.read(self.exported), load_library(), device_named(self.device)
        if not is_nvidia(device):
            raise TensorRTError(
                f"the device is {device}: a plan is made on the machine that runs it, with its NVIDIA GPU and a torch "
                "that sees it"
            )
        key = PlanKey(
            weights=manifest.weights,
            network=manifest.network,
            height=manifest.height,
            width=manifest.width,
            precision=manifest.precision,
            views=views,
            max_views=max(max_views, views),
            tensorrt=str(library),
            gpu=gpu_name(device),
        )
        cache = config.engine.cache or default_cache()
        with Progress(bars=True) as report:
            found = obtain(cache, key, library, lambda scratch: self.exported, report)
        return f"{found.folder}: {key.tensorrt} on {key.gpu}, {_megabytes(found.folder)}"


def _megabytes(folder: Path) -> str:
    return f"{sum(path.stat().st_size for path in folder.iterdir()) / 1e6:,.1f} MB"
