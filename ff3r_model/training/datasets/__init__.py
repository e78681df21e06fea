"""Training data: one file per layout, and the sampling of windows from any of them."""
