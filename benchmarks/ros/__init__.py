"""What ROS adds: message conversions, and the node around the pipeline."""
