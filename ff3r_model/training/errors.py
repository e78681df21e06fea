"""What can go wrong with a training run by no fault of the program."""

from __future__ import annotations


class TrainingError(ValueError):
    """The message names the file, option or batch, and the way out."""


class DataError(TrainingError):
    """Training data that cannot be used."""


class RunError(TrainingError):
    """A run that cannot start, go on, or continue."""
