"""Everything that makes weights; nothing in the running pipeline imports it."""
