"""TensorRT builder, from an ONNX graph to a plan: one code path for TensorRT 10.3 to 11 and for TensorRT-RTX."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ff3r_model.core.types import MAX_VIEWS, MIN_VIEWS
from ff3r_model.engine.onnx.manifest import FRAMES, WINDOW
from ff3r_model.engine.tensorrt.library import TensorRTError, TensorRTLibrary

OnProgress = Callable[[str, float], None]
"""Gets the name of the builder's outermost phase and the share of it that is done, 0 to 1."""


@dataclass(frozen=True)
class Profile:
    """Numbers of views that a plan takes, and the one that it is tuned for."""

    low: int
    best: int
    high: int


def profiles(views: int, max_views: int = MAX_VIEWS) -> dict[str, tuple[Profile, ...]]:
    """Per graph, for windows of `views`; windows up to `max_views` run too.

    Older TensorRT takes a profile's memory for its largest size, hence several: half the window, the window, and all.
    """
    highs = sorted({max(views // 2, MIN_VIEWS), views, max(max_views, views)})
    return {
        FRAMES: tuple(Profile(1, min(max(1, views // 2), high), high) for high in highs),
        WINDOW: tuple(Profile(MIN_VIEWS, min(views, high), high) for high in highs),
    }


def build_plan(
    library: TensorRTLibrary, onnx: Path, ranges: Sequence[Profile], report: OnProgress | None = None
) -> memoryview:
    """The plan for the GPU of this machine, as bytes. Raises TensorRTError with TensorRT's own reason.

    Precision is in the graph: the network is strongly typed. TensorRT-RTX also builds where there is no GPU.
    """
    trt = library.module
    library.errors.clear()
    builder = trt.Builder(library.logger)
    network = builder.create_network(_strong_typing(trt))
    _parse(library, network, onnx)
    _let_attention_decompose(trt, network)
    config = builder.create_builder_config()
    if report is not None:
        config.progress_monitor = monitor = _monitor(trt, report)
    _fit_memory_to_shapes(trt, config)
    for views in ranges:
        config.add_optimization_profile(_profile(builder, network, views))
    plan = builder.build_serialized_network(network, config)
    if report is not None and monitor.failure is not None:
        raise monitor.failure
    if plan is None:
        raise TensorRTError(f"{library} cannot build {onnx.name}: {library.complaint()}")
    return memoryview(plan)


def _strong_typing(trt: Any) -> int:
    """The flag where there is one; TensorRT 11 types strongly by itself."""
    flag = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    return 0 if flag is None else 1 << int(flag)


def _parse(library: TensorRTLibrary, network: Any, onnx: Path) -> None:
    parser = library.module.OnnxParser(network, library.logger)
    if parser.parse_from_file(str(onnx)):
        return
    reasons = [parser.get_error(index).desc() for index in range(parser.num_errors)]
    hint = "" if library.fuses_attention else "; it is too old for fused attention: export with --attention decomposed"
    raise TensorRTError(f"{library} cannot read {onnx}: {'; '.join(reasons) or library.complaint()}{hint}")


def _let_attention_decompose(trt: Any, network: Any) -> None:
    """Attention for which there is no fused kernel (float32) is then computed in steps, not refused."""
    kind = getattr(trt, "IAttentionInputLayer", None)
    for index in range(network.num_layers if kind else 0):
        layer = network.get_layer(index)
        if layer.type == trt.LayerType.ATTENTION_INPUT:
            layer.__class__ = kind  # get_layer gives the base class; so NVIDIA's samples reach the rest
            layer.attention.decomposable = True


def _fit_memory_to_shapes(trt: Any, config: Any) -> None:
    """From 10.10 on a run's memory follows its shapes where this is asked for."""
    feature = getattr(trt.PreviewFeature, "RUNTIME_ACTIVATION_RESIZE_10_10", None)
    if feature is not None:
        config.set_preview_feature(feature, True)


def _profile(builder: Any, network: Any, views: Profile) -> Any:
    profile = builder.create_optimization_profile()
    for index in range(network.num_inputs):
        tensor = network.get_input(index)
        rest = tuple(tensor.shape)[1:]
        profile.set_shape(tensor.name, *((count, *rest) for count in (views.low, views.best, views.high)))
    return profile


def _monitor(trt: Any, report: OnProgress) -> Any:
    class Monitor(trt.IProgressMonitor):
        """Follows the outermost phase; an exception of `report` (Ctrl-C) ends the build and is kept."""

        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self.failure: BaseException | None = None
            self.outermost: tuple[str, int] | None = None
            self.lock = threading.Lock()

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            with self.lock:
                if parent_phase is None:
                    self.outermost = (phase_name, max(1, num_steps))

        def step_complete(self, phase_name: str, step: int) -> bool:
            with self.lock:
                if self.outermost is not None and phase_name == self.outermost[0]:
                    self._tell(phase_name, min(1.0, (step + 1) / self.outermost[1]))
                return self.failure is None

        def phase_finish(self, phase_name: str) -> None:
            with self.lock:
                if self.outermost is not None and phase_name == self.outermost[0]:
                    self._tell(phase_name, 1.0)

        def _tell(self, phase_name: str, share: float) -> None:
            try:
                report(phase_name, share)
            except BaseException as error:  # nothing may pass through TensorRT's threads
                self.failure = error

    return Monitor()
