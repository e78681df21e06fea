"""Where windows lie: alignment, submaps, pose graph, loop closure, refinement, scale, up and floor."""
