"""What can be done with a set of 3D Gaussians: transform, voxelize, render, write as PLY."""
