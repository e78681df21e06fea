"""Training objectives: the paper's, without annotation, and the supervised one for rooms with known truth."""
