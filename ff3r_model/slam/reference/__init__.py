"""What ties the map to the world: metric scale, gravity, the floor."""
