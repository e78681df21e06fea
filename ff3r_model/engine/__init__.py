"""Running the network: PyTorch, or a TensorRT plan built from ONNX graphs."""

from ff3r_model.engine.choose import EngineConfig, ExpectedWindow, in_words, make_engine
from ff3r_model.engine.device import device_named
from ff3r_model.engine.torch_engine import TorchConfig, TorchEngine

__all__ = ["EngineConfig", "ExpectedWindow", "TorchConfig", "TorchEngine", "device_named", "in_words", "make_engine"]
