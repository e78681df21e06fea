"""What can be wrong with an evaluation and the user can mend."""

from __future__ import annotations


class EvaluationError(ValueError):
    """A range, a manifest, or a file of results that makes no sense."""
