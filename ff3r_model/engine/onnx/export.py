"""ONNX export of the network as two graphs: what depends on each view alone, and what on the whole window.

The number of views stays open, 2 to 64; the images' size is fixed. Needs the packages of the extra `export`.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ff3r_model.core.output_folder import OutputFolder
from ff3r_model.core.types import MAX_VIEWS, MIN_VIEWS
from ff3r_model.engine.onnx.manifest import (
    FRAMES,
    MANIFEST,
    WINDOW,
    ExportError,
    Graph,
    Manifest,
    graph_path,
    weights_hash,
)
from ff3r_model.engine.onnx.precision import Precision, in_precision
from ff3r_model.network.encoder import VisionTransformer
from ff3r_model.network.frame_features import FrameFeatures
from ff3r_model.network.layers import Rotary
from ff3r_model.network.model import FF3R

log = logging.getLogger(__name__)

Attention = Literal["fused", "decomposed"]
OPSETS: dict[Attention, int] = {"fused": 23, "decomposed": 18}
"""Attention is one operator from opset 23 on, which TensorRT reads from 10.14 on."""
TRACED_VIEWS = 3
"""Views of the example that is traced: not 1 or 2, which tracing would take for constants."""
IMAGES = "images"
POSES, DEPTH, CONFIDENCE, GAUSSIANS, DESCRIPTORS = (
    "pose_encodings",
    "depth",
    "depth_confidence",
    "gaussians",
    "descriptors",
)
LARGEST_INLINE = 1 << 30
"""Bytes of weights that still go into the .onnx file; protobuf allows 2 GB."""


@dataclass(frozen=True)
class ExportConfig:
    """Options of the ONNX export: image size in pixels, precision of matrix products, form of attention."""

    height: int
    width: int
    precision: Precision = "float16"
    attention: Attention = "fused"


class FramesGraph(nn.Module):
    """images → FrameFeatures' tensors, all with one row per view."""

    def __init__(self, network: FF3R) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Float[Tensor, "views 3 h w"]) -> tuple[Tensor, ...]:
        return tuple(x[0] for x in self.network.encode_frames(images[None]).tensors().values())


class WindowGraph(nn.Module):
    """images and FrameFeatures' tensors → the last pose encodings, depth, confidence, raw Gaussians, descriptors."""

    def __init__(self, network: FF3R, features: tuple[str, ...]) -> None:
        super().__init__()
        self.network = network
        self.features = features

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of what `forward` returns; lifting mode has no Gaussians."""
        gaussians = (GAUSSIANS,) if self.network.config.decode_gaussians else ()
        return (POSES, DEPTH, CONFIDENCE, *gaussians, DESCRIPTORS)

    def forward(self, images: Float[Tensor, "views 3 h w"], *features: Tensor) -> tuple[Tensor, ...]:
        named = {name: x[None] for name, x in zip(self.features, features, strict=True)}
        output = self.network.decode_window(images[None], FrameFeatures(**named))
        raw = output.gaussians
        gaussians = () if raw is None else (torch.cat([x[0] for x in vars(raw).values()], dim=1),)
        descriptors = output.tokens[0].float().mean(dim=1)
        return output.pose_encodings[-1, 0], output.depth[0], output.depth_confidence[0], *gaussians, descriptors


def export(network: FF3R, config: ExportConfig, folder: Path) -> Manifest:
    """Write frames.onnx, window.onnx and manifest.json; the manifest is there only when the graphs are whole.

    Raises ExportError for a missing package or a size that the network cannot take, OutputError for the folder.
    """
    _check(network, config)
    with OutputFolder(folder, "export").whole(MANIFEST) as half_made:
        return _write(network, config, half_made)


def _check(network: FF3R, config: ExportConfig) -> None:
    try:
        network.check(torch.empty(1, MIN_VIEWS, 3, config.height, config.width, device="meta"))
    except ValueError as error:
        raise ExportError(str(error)) from error
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ExportError(f"{error}: exporting needs more packages, pip install 'ff3r_ros[export]'") from error


def _write(network: FF3R, config: ExportConfig, folder: Path) -> Manifest:
    ready = prepared(network, config)
    images = torch.zeros(TRACED_VIEWS, 3, config.height, config.width)
    with torch.no_grad():
        features = ready.encode_frames(images[None]).tensors()
        names = tuple(features)
        frames = _trace(FramesGraph(ready), (images,), (IMAGES,), names, config, graph_path(folder, FRAMES), low=1)
        inputs = (images, *(x[0] for x in features.values()))
        graph = WindowGraph(ready, names)
        window = _trace(graph, inputs, (IMAGES, *names), graph.outputs, config, graph_path(folder, WINDOW))
    manifest = Manifest(
        network=network.config.name,
        weights=weights_hash(network),
        height=config.height,
        width=config.width,
        precision=config.precision,
        attention=config.attention,
        opset=OPSETS[config.attention],
        frames=frames,
        window=window,
    )
    manifest.write(folder)
    return manifest


def prepared(network: FF3R, config: ExportConfig) -> FF3R:
    """The network as it is traced: in the precision asked for, with what depends on the image size alone computed.

    All views go through the heads at once: a number of chunks that depends on the views cannot be traced.
    """
    ready = in_precision(network.cpu(), config.precision)
    ready.config = replace(ready.config, head_chunk=MAX_VIEWS)
    for module in ready.modules():
        if isinstance(module, VisionTransformer):
            module.positions = partial(_known, module.positions, {})  # type: ignore[method-assign]
    aggregator: Any = ready.aggregator
    rope: Rotary = aggregator.rope(config.height, config.width, torch.device("cpu"))
    aggregator.rope = lambda height, width, device: rope
    with torch.no_grad():
        ready.encode_frames(torch.zeros(1, 1, 3, config.height, config.width))  # fills the positions
    return ready


def _known(function: Any, memory: dict[tuple[int, ...], Tensor], *key: int) -> Tensor:
    """`function(*key)`, computed once."""
    if key not in memory:
        memory[key] = function(*key).detach()
    return memory[key]


def _trace(
    module: nn.Module,
    example: tuple[Tensor, ...],
    inputs: tuple[str, ...],
    outputs: tuple[str, ...],
    config: ExportConfig,
    path: Path,
    low: int = MIN_VIEWS,
) -> Graph:
    """Write one graph and return which of `inputs` it reads: TensorRT forgets those that nothing uses."""
    log.info("tracing %s", path.name)
    views = torch.export.Dim("views", min=low, max=MAX_VIEWS)
    shapes: Any = tuple({0: views} for _ in example)
    with _quiet():
        program = torch.onnx.export(
            module,
            example,
            dynamo=True,
            verbose=False,
            opset_version=OPSETS[config.attention],
            input_names=inputs,
            output_names=outputs,
            dynamic_shapes=shapes if len(example) == 1 else (shapes[0], shapes[1:]),
        )
    assert program is not None
    model = program.model
    for value in list(model.graph.inputs):
        if not value.uses():
            model.graph.inputs.remove(value)
    anonymise(model)
    weights = sum(value.const_value.nbytes for value in model.graph.initializers.values() if value.const_value)
    program.save(path, external_data=weights > LARGEST_INLINE)
    return Graph(tuple(str(value.name) for value in model.graph.inputs), outputs)


def anonymise(model: Any) -> None:
    """Take away where the exporter notes source files, stack traces and comments (`model`: an onnx_ir.Model)."""
    graphs = [model.graph, *model.functions.values()]
    nodes = [node for graph in graphs for node in graph.all_nodes()]
    values = [value for node in nodes for value in node.outputs]
    values += [*model.graph.inputs, *model.graph.initializers.values()]
    for thing in (model, *graphs, *nodes, *values):
        thing.metadata_props.clear()
        thing.doc_string = None


@contextmanager
def _quiet() -> Iterator[None]:
    """The exporter's own remarks are about itself."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
