"""TensorRT: plans built, cached and run."""
