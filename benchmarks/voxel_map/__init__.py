"""Voxelization, maps and queries: speed and memory."""
