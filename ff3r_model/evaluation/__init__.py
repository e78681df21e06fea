"""Measuring a network against known geometry and classes."""
