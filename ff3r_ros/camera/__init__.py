"""The camera node: a simulated or recorded camera as a publisher of images."""
