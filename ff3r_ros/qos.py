"""ff3r_ros.qos."""

from __future__ import annotations

from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy

LATCHED = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL)
LATCHED_MANY = QoSProfile(depth=256, reliability=LATCHED.reliability, durability=LATCHED.durability)
"""For masks, of which one topic carries one per query."""
