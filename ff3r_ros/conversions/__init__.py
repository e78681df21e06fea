"""ROS messages from and to plain types; stateless."""
