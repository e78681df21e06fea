"""What a run of the network costs: floating-point operations, memory by shapes alone, and the rate of a product."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from ff3r_model.network import FF3R, FF3RConfig
from ff3r_model.network.decode import predict

Size = tuple[int, int, int]
"""Views, height and width."""
CPU_ATTENTION = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
MATMUL = {"cpu": 1024}
"""Side of the square product whose rate is the device's, where 8192 is too much to wait for."""


class LiveBytes(TorchDispatchMode):
    """The most bytes of tensors that were alive at one time, made while it is active and no views of `before`."""

    def __init__(self, before: Iterable[Tensor]) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._known = {tensor.untyped_storage()._cdata for tensor in before}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                self._count(tensor)
        return result

    def _count(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key in self._known:
            return
        self._known.add(key)
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._gone, key, size)

    def _gone(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.now -= size


def tie(network: nn.Module) -> None:
    """All blocks of a transformer share the first one's weights: the same arithmetic in a fraction of the memory."""
    for stack in network.modules():
        if isinstance(stack, nn.ModuleList | nn.Sequential) and len(stack) > 1 and hasattr(stack[0], "attn"):
            for index in range(1, len(stack)):
                stack[index] = stack[0]


def build(config: FF3RConfig, device: torch.device | str = "cpu", tied: bool = False) -> FF3R:
    """The network with weights without meaning, made without the slow initialisation."""
    with torch.device("meta"):
        network = FF3R(config)
    if tied:
        tie(network)
    network.to_empty(device=device).eval().requires_grad_(False)
    for name, tensor in network.state_dict().items():
        tensor.fill_(1) if "running_var" in name else tensor.zero_()
    network.aggregator.normalise.mean.fill_(0.5)
    network.aggregator.normalise.std.fill_(0.25)
    return network


def available_bytes() -> float:
    """Memory that could be had now (Linux; no limit known elsewhere)."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return float("inf")
    return next(1024.0 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable"))


def flops(run: Callable[[], Any]) -> int:
    """Floating-point operations of a call: products, convolutions, and attention also where a CPU runs it."""
    with FlopCounterMode(display=False, custom_mapping={CPU_ATTENTION: _attention_flops}) as counter:
        run()
    return counter.get_total_flops()


def _attention_flops(query: Sequence[int], key: Sequence[int], value: Sequence[int], *_: Any, **__: Any) -> int:
    """Q Kᵀ, and the weights times V; shapes are [batch heads tokens dim]. Torch's own table leaves this kernel out."""
    batch, heads, tokens, width = query
    return 2 * batch * heads * tokens * key[2] * (width + value[3])


def computed_bytes(config: FF3RConfig, size: Size, bfloat16: bool) -> tuple[int, int]:
    """(weights, most bytes alive at once beside them) from images to Gaussians, by shapes alone."""
    views, height, width = size
    with torch.device("meta"):
        network = FF3R(config).eval().requires_grad_(False)
    with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad():
        network.to_empty(device="cpu")
        weights = list(network.state_dict().values())
        images = torch.rand(1, views, 3, height, width)
        with LiveBytes([*weights, images]) as live:
            with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
                output = network(images, semantics=False)
            predict(output, images=images[0])
    return sum(tensor.nbytes for tensor in weights), live.peak


def product(device: torch.device, dtype: torch.dtype) -> tuple[Callable[[], Any], float]:
    """A square matrix product on the device, and its floating-point operations."""
    side = MATMUL.get(device.type, 8192)
    a, b = torch.randn(2, side, side, device=device).to(dtype)
    return lambda: a @ b, 2.0 * side**3
