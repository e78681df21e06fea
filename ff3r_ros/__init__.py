"""FF3R as ROS 2 nodes: messages in, messages out."""
