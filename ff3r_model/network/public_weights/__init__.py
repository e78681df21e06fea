"""Conversion of public checkpoints (VGGT, LSeg, CLIP) into FF3R's own."""
