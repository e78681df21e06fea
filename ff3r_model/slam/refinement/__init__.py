"""Corrections of a window's predicted geometry: optical flow with bundle adjustment, sensors."""
