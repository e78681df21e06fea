"""What only a GPU can show, measured by one command: `python -m benchmarks.gpu`."""
