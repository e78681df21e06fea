"""Running the network: PyTorch, or a TensorRT plan built from ONNX graphs."""
