"""`make soak`: the demo's processes for hours, with drop-outs and restarts; memory, threads and latency on record."""
