"""`make demo`: camera, perception node and viewer as processes, watched and checked."""
