"""Conversion of public checkpoints (VGGT, LSeg, CLIP, TIPSv2) into FF3R's own."""
