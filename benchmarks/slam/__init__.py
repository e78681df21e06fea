"""Mapping accuracy against the truth."""
