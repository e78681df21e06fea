"""One TensorRT plan on one GPU: torch's tensors in and out, all memory but the weights from torch's allocator."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ff3r_model.engine.device import SideStream
from ff3r_model.engine.tensorrt.bindings import Bindings
from ff3r_model.engine.tensorrt.library import TensorRTError, TensorRTLibrary

log = logging.getLogger(__name__)

GRAPHS_KEPT = 2
"""CUDA graphs, each with inputs, outputs and workspace of its own: of the usual window and one more size."""


class BadPlan(TensorRTError):
    """A plan that TensorRT does not accept here: damaged, or of another version or GPU."""


@dataclass(frozen=True)
class Captured:
    """A run with fixed memory, to be replayed."""

    inputs: dict[str, Tensor]
    outputs: dict[str, Tensor]
    workspace: Tensor
    replay: Callable[[], None]


class PlanRunner:
    """Runs a plan for any number of views that it was built for, on `stream`.

    A number of views that comes a second time is captured as a CUDA graph and replayed from then on.
    """

    def __init__(self, library: TensorRTLibrary, path: Path, stream: SideStream) -> None:
        """Raises BadPlan for a file that TensorRT does not take."""
        library.errors.clear()
        self.library, self.path, self.stream = library, path, stream
        self._runtime = library.module.Runtime(library.logger)
        self._engine = self._runtime.deserialize_cuda_engine(path.read_bytes())
        if self._engine is None:
            raise BadPlan(f"{library} does not accept {path}: {library.complaint()}")
        self.bindings = Bindings.of(library.module, self._engine)
        self._contexts: dict[int, Any] = {}
        self._seen: set[int] = set()
        self._captured: OrderedDict[int, Captured] = OrderedDict()
        self._graphs = True
        """Until a capture fails."""

    def __call__(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The outputs, which hold until the next call. Must be called with the stream entered.

        Raises torch.OutOfMemoryError before anything runs where memory does not suffice, TensorRTError where TensorRT
        fails.
        """
        views = self.bindings.check(inputs)
        inputs = {binding.name: inputs[binding.name].contiguous() for binding in self.bindings.inputs}
        captured = self._captured.get(views)
        if captured is None:
            captured = self._capture(views, inputs) if views in self._seen else None
        if captured is None:
            return self._run(views, inputs)
        self._captured.move_to_end(views)
        for name, tensor in captured.inputs.items():
            tensor.copy_(inputs[name])
        captured.replay()
        return captured.outputs

    def forget_graphs(self) -> None:
        """Give back the graphs' memory."""
        self._captured.clear()
        self._seen.clear()

    def _run(self, views: int, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        outputs = self.bindings.empty(views, self.stream.device)
        workspace = self._prepare(views, inputs, outputs)
        self._execute(views)
        del workspace  # later work on this stream may have it: torch's allocator keeps the order
        self._seen.add(views)
        return outputs

    def _capture(self, views: int, inputs: Mapping[str, Tensor]) -> Captured | None:
        """Capture a size that has run once, as TensorRT asks; None where that is not to be had."""
        if not self._graphs:
            return None
        own = self.bindings.empty(views, self.stream.device, [binding.name for binding in self.bindings.inputs])
        outputs = self.bindings.empty(views, self.stream.device)
        workspace = self._prepare(views, own, outputs)
        try:
            replay = self.stream.capture(lambda: self._execute(views))
        except (RuntimeError, TensorRTError) as error:
            if isinstance(error, torch.OutOfMemoryError):
                raise
            log.warning("%s runs without CUDA graphs: %s", self.path.name, error)
            replay = None
        if replay is None:
            self._graphs = False
            return None
        self._captured[views] = Captured(own, outputs, workspace, replay)
        while len(self._captured) > GRAPHS_KEPT:
            self._captured.popitem(last=False)
        return self._captured[views]

    def _prepare(self, views: int, inputs: Mapping[str, Tensor], outputs: Mapping[str, Tensor]) -> Tensor:
        """Tell TensorRT shapes and addresses; returns the workspace, which must live until the run is queued."""
        context = self._context(views)
        for binding in self.bindings.inputs:
            if not context.set_input_shape(binding.name, tuple(inputs[binding.name].shape)):
                raise self._failure(f"does not take {binding.name} {list(inputs[binding.name].shape)}")
        for name, tensor in (*inputs.items(), *outputs.items()):
            context.set_tensor_address(name, tensor.data_ptr())
        size = max(1, int(context.update_device_memory_size_for_shapes()))
        workspace = torch.empty(size, dtype=torch.uint8, device=self.stream.device)
        context.set_device_memory(workspace.data_ptr(), size)
        return workspace

    def _context(self, views: int) -> Any:
        """The context of the narrowest profile, which stays with it: switching profiles would have to be waited for."""
        profile = self.bindings.profile(views)
        if profile not in self._contexts:
            managed = self.library.module.ExecutionContextAllocationStrategy.USER_MANAGED
            context = self._engine.create_execution_context(managed)
            if context is None:
                raise self._failure("gives no execution context")
            if profile and not context.set_optimization_profile_async(profile, self.stream.handle):
                raise self._failure(f"does not switch to its profile {profile}")
            self._contexts[profile] = context
        return self._contexts[profile]

    def _execute(self, views: int) -> None:
        if not self._context(views).execute_async_v3(self.stream.handle):
            raise self._failure(f"failed on {views} views")

    def _failure(self, what: str) -> TensorRTError:
        return TensorRTError(f"{self.library}: {self.path.name} {what}: {self.library.complaint()}")
