"""A plan's tensors: their names, directions, dtypes and ranges, and whether given torch tensors fit them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ff3r_model.engine.tensorrt.library import TensorRTError

DTYPES = {
    "FLOAT": torch.float32,
    "HALF": torch.float16,
    "BF16": torch.bfloat16,
    "INT32": torch.int32,
    "INT64": torch.int64,
    "BOOL": torch.bool,
}
"""TensorRT's names of the dtypes that torch has too."""


@dataclass(frozen=True)
class Binding:
    """One input or output. Its first dimension is the number of views."""

    name: str
    dtype: torch.dtype
    rest: tuple[int, ...]
    """The shape after the views."""


@dataclass(frozen=True)
class Bindings:
    """All of a plan's, and for each of its profiles the fewest and the most views."""

    inputs: tuple[Binding, ...]
    outputs: tuple[Binding, ...]
    ranges: tuple[tuple[int, int], ...]

    @staticmethod
    def of(trt: Any, engine: Any) -> Bindings:
        """Of a deserialised engine. Raises TensorRTError where it is none that we built."""
        names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
        inputs = [name for name in names if engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT]
        if not inputs or len(inputs) == len(names):
            raise TensorRTError(f"the plan has the tensors {names}: no plan of this program")
        profiles = range(engine.num_optimization_profiles)
        shapes = [engine.get_tensor_profile_shape(inputs[0], index) for index in profiles]
        return Bindings(
            inputs=tuple(_binding(engine, name) for name in inputs),
            outputs=tuple(_binding(engine, name) for name in names if name not in inputs),
            ranges=tuple((int(low[0]), int(high[0])) for low, _, high in shapes),
        )

    def profile(self, views: int) -> int:
        """The narrowest profile that takes so many views. Raises TensorRTError where none does."""
        fitting = [(high, index) for index, (low, high) in enumerate(self.ranges) if low <= views <= high]
        if not fitting:
            limits = ", ".join(f"{low} to {high}" for low, high in self.ranges)
            raise TensorRTError(f"the plan takes {limits} views, not {views}; build one with a larger --max-views")
        return min(fitting)[1]

    def check(self, tensors: Mapping[str, Tensor]) -> int:
        """The number of views in these inputs, which must be the plan's own; raises TensorRTError where not."""
        views = {tensors[binding.name].shape[0] for binding in self.inputs if binding.name in tensors}
        for binding in self.inputs:
            given = tensors.get(binding.name)
            if given is None:
                raise TensorRTError(f"the plan wants {binding.name}; given were {', '.join(tensors) or 'no tensors'}")
            if given.dtype != binding.dtype or tuple(given.shape[1:]) != binding.rest or len(views) != 1:
                raise TensorRTError(
                    f"{binding.name} is {given.dtype} {list(given.shape)}, and the plan wants {binding.dtype} "
                    f"[views, {', '.join(map(str, binding.rest))}] with the same views in all inputs"
                )
        return views.pop()

    def empty(self, views: int, device: torch.device, names: Sequence[str] = ()) -> dict[str, Tensor]:
        """Memory for the outputs (or the inputs of these names)."""
        wanted = [x for x in self.inputs if x.name in names] if names else self.outputs
        return {x.name: torch.empty(views, *x.rest, dtype=x.dtype, device=device) for x in wanted}


def _binding(engine: Any, name: str) -> Binding:
    dtype = DTYPES.get(engine.get_tensor_dtype(name).name)
    rest = tuple(int(size) for size in tuple(engine.get_tensor_shape(name))[1:])
    if dtype is None or min(rest, default=0) < 0:
        raise TensorRTError(f"the plan's {name} is {engine.get_tensor_dtype(name)} {rest}: no plan of this program")
    return Binding(name, dtype, rest)
