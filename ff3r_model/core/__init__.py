"""What every room shares: the dataclasses that stages exchange, geometry, robust statistics, the text space."""
