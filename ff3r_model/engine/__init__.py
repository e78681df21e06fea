"""One interface, several ways to run the network."""

from ff3r_model.engine.base import Engine
from ff3r_model.engine.choose import EngineConfig, Use, make_engine
from ff3r_model.engine.device import device_named
from ff3r_model.engine.torch_engine import TorchConfig, TorchEngine

__all__ = ["Engine", "EngineConfig", "TorchConfig", "TorchEngine", "Use", "device_named", "make_engine"]
