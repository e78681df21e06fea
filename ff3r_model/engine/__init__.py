"""One interface, several ways to run the network."""

from ff3r_model.engine.base import Engine
from ff3r_model.engine.device import device_named
from ff3r_model.engine.torch_engine import TorchEngine

__all__ = ["Engine", "TorchEngine", "device_named"]
