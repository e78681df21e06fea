"""Named weights: what `ff3r weights` lists and fetches, where it lies, and how a name becomes a file."""
