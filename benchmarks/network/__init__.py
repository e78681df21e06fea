"""The network's engines: speed, cost, and parity with published code."""
