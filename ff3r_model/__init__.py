"""FF3R: camera poses, depth and language-carrying 3D Gaussians from plain RGB views. Knows no ROS."""

__version__ = "0.1.0"
