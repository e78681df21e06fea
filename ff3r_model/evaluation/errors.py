"""What users are told of evaluations that cannot be made."""

from __future__ import annotations

from ff3r_model.core.errors import UserError


class EvaluationError(UserError):
    """A range, a manifest, or a file of results that makes no sense."""
