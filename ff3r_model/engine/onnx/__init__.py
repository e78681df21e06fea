"""Export of the network as ONNX graphs with a manifest."""
