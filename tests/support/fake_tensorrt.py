"""A stand-in for TensorRT on the CPU: the same names and rules, onnxruntime for the arithmetic, real memory addresses.

It keeps what the real one demands: shapes within a profile, every address set, memory given before a run.
"""

from __future__ import annotations

import ctypes
import enum
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch

MAGIC = b"FAKEPLAN"


class DataType(enum.Enum):
    FLOAT = 1
    HALF = 10
    INT64 = 7

    @property
    def numpy(self) -> np.dtype:
        return np.dtype(onnx.helper.tensor_dtype_to_np_dtype(self.value))


class TensorIOMode(enum.Enum):
    INPUT = 0
    OUTPUT = 1


class ILogger:
    class Severity(enum.IntEnum):
        INTERNAL_ERROR = 0
        ERROR = 1
        WARNING = 2
        INFO = 3


class IProgressMonitor:
    pass


@dataclass
class Faults:
    """What goes wrong."""

    reject_plans: int = 0
    """So many deserialisations fail."""
    fail_runs: bool = False
    fail_build: bool = False
    distort: Callable[[str, np.ndarray], np.ndarray] = lambda name, value: value
    """What becomes of an output, by its name."""
    most_views: int = 64
    """Memory suffices for so many."""
    builds: int = 0
    """Counted, not a fault."""


@dataclass
class Tensor:
    name: str
    dtype: DataType
    shape: tuple[int, ...]


def tensors_of(values: Any) -> list[Tensor]:
    return [
        Tensor(x.name, DataType(x.type.tensor_type.elem_type), tuple(d.dim_value or -1 for d in dims(x)))
        for x in values
    ]


def dims(value: Any) -> Any:
    return value.type.tensor_type.shape.dim


@dataclass
class Network:
    source: bytes = b""
    inputs: list[Tensor] = field(default_factory=list)
    outputs: list[Tensor] = field(default_factory=list)
    num_layers: int = 0

    @property
    def num_inputs(self) -> int:
        return len(self.inputs)

    def get_input(self, index: int) -> Tensor:
        return self.inputs[index]


class Parser:
    def __init__(self, network: Network, logger: Any) -> None:
        self.network, self.error = network, ""

    @property
    def num_errors(self) -> int:
        return int(bool(self.error))

    def get_error(self, index: int) -> Any:
        return SimpleNamespace(desc=lambda: self.error)

    def parse_from_file(self, path: str) -> bool:
        try:
            model = onnx.load(path)
        except Exception:
            self.error = "no ONNX"
            return False
        self.network.source = Path(path).read_bytes()
        self.network.inputs = tensors_of(model.graph.input)
        self.network.outputs = tensors_of(model.graph.output)
        return True


@dataclass
class Profile:
    shapes: dict[str, list[list[int]]] = field(default_factory=dict)

    def set_shape(self, name: str, low: Any, best: Any, high: Any) -> None:
        self.shapes[name] = [list(low), list(best), list(high)]


@dataclass
class BuilderConfig:
    progress_monitor: Any = None
    profiles: list[Profile] = field(default_factory=list)

    def add_optimization_profile(self, profile: Profile) -> int:
        self.profiles.append(profile)
        return len(self.profiles) - 1

    def set_preview_feature(self, feature: str, on: bool) -> None:
        assert feature == "activation resize" and on


class Context:
    def __init__(self, engine: Predict) -> None:
        self.engine, self.profile = engine, 0
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.addresses: dict[str, int] = {}
        self.memory = 0

    def set_optimization_profile_async(self, index: int, stream: int) -> bool:
        self.profile = index
        return index < len(self.engine.profiles)

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        low, _, high = self.engine.profiles[self.profile][name]
        self.shapes[name] = shape
        return all(a <= b <= c for a, b, c in zip(low, shape, high, strict=True))

    def set_tensor_address(self, name: str, address: int) -> bool:
        self.addresses[name] = address
        return name in self.engine.tensors

    def update_device_memory_size_for_shapes(self) -> int:
        assert set(self.shapes) == {x.name for x in self.engine.inputs}
        if self.views > self.engine.faults.most_views:
            raise torch.OutOfMemoryError("no memory")
        return self.views * 1024

    def set_device_memory(self, address: int, size: int) -> None:
        self.memory = size

    @property
    def views(self) -> int:
        return next(iter(self.shapes.values()))[0]

    def execute_async_v3(self, stream: int) -> bool:
        if self.engine.faults.fail_runs:
            return False
        assert self.memory >= self.views * 1024 and set(self.addresses) == set(self.engine.tensors)
        feed = {x.name: self._memory(x, self.shapes[x.name]).copy() for x in self.engine.inputs}
        for tensor, value in zip(self.engine.outputs, self.engine.session.run(None, feed), strict=True):
            self._memory(tensor, value.shape)[...] = self.engine.faults.distort(tensor.name, value)
        return True

    def _memory(self, tensor: Tensor, shape: tuple[int, ...]) -> np.ndarray:
        count = int(np.prod(shape)) * tensor.dtype.numpy.itemsize
        raw = (ctypes.c_char * count).from_address(self.addresses[tensor.name])
        return np.frombuffer(raw, dtype=tensor.dtype.numpy).reshape(shape)


class Engine:
    def __init__(self, plan: bytes, faults: Faults) -> None:
        size = int.from_bytes(plan[len(MAGIC) : len(MAGIC) + 8], "big")
        start = len(MAGIC) + 8
        self.profiles: list[Any] = json.loads(plan[start : start + size])
        source = plan[start + size :]
        graph = onnx.load_from_string(source).graph
        self.inputs, self.outputs = tensors_of(graph.input), tensors_of(graph.output)
        self.tensors = {x.name: x for x in [*self.inputs, *self.outputs]}
        self.session = onnxruntime.InferenceSession(source, session_options())
        self.faults = faults

    @property
    def num_io_tensors(self) -> int:
        return len(self.tensors)

    @property
    def num_optimization_profiles(self) -> int:
        return len(self.profiles)

    def get_tensor_name(self, index: int) -> str:
        return list(self.tensors)[index]

    def get_tensor_mode(self, name: str) -> TensorIOMode:
        return TensorIOMode.INPUT if name in {x.name for x in self.inputs} else TensorIOMode.OUTPUT

    def get_tensor_dtype(self, name: str) -> DataType:
        return self.tensors[name].dtype

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return self.tensors[name].shape

    def get_tensor_profile_shape(self, name: str, profile: int) -> Any:
        return self.profiles[profile][name]

    def create_execution_context(self, strategy: str) -> Context:
        assert strategy == "user managed"
        return Context(self)


def session_options() -> onnxruntime.SessionOptions:
    """One thread: there are few cores in CI."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return options


def module(name: str = "tensorrt", version: str = "10.14.1.48") -> Any:
    """What `import tensorrt` would give; `faults` on it says what goes wrong."""
    faults = Faults()

    class Builder:
        def __init__(self, logger: Any) -> None:
            self.logger = logger

        def create_network(self, flags: int) -> Network:
            assert flags == 1 << 2, "strongly typed"
            return Network()

        def create_builder_config(self) -> BuilderConfig:
            return BuilderConfig()

        def create_optimization_profile(self) -> Profile:
            return Profile()

        def build_serialized_network(self, network: Network, config: BuilderConfig) -> bytes | None:
            faults.builds += 1
            if faults.fail_build:
                self.logger.log(ILogger.Severity.ERROR, "no tactic")
                return None
            watch = config.progress_monitor
            if watch is not None:
                watch.phase_start("Building", None, 4)
                watch.phase_start("Tactics", "Building", 7)
                if not all(watch.step_complete("Building", step) for step in range(4)):
                    return None
                watch.phase_finish("Building")
            header = json.dumps([profile.shapes for profile in config.profiles]).encode()
            return MAGIC + len(header).to_bytes(8, "big") + header + network.source

    class Runtime:
        def __init__(self, logger: Any) -> None:
            self.logger = logger

        def deserialize_cuda_engine(self, plan: bytes) -> Engine | None:
            if faults.reject_plans or not plan.startswith(MAGIC):
                faults.reject_plans = max(0, faults.reject_plans - 1)
                self.logger.log(ILogger.Severity.ERROR, "the plan was built for another GPU")
                return None
            return Engine(plan, faults)

    return SimpleNamespace(
        __name__=name,
        __version__=version,
        faults=faults,
        Builder=Builder,
        Runtime=Runtime,
        OnnxParser=Parser,
        ILogger=ILogger,
        IProgressMonitor=IProgressMonitor,
        TensorIOMode=TensorIOMode,
        NetworkDefinitionCreationFlag=SimpleNamespace(STRONGLY_TYPED=2),
        PreviewFeature=SimpleNamespace(RUNTIME_ACTIVATION_RESIZE_10_10="activation resize"),
        ExecutionContextAllocationStrategy=SimpleNamespace(USER_MANAGED="user managed"),
    )
