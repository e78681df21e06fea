"""Everything that makes weights. Nothing in the running pipeline imports it."""
