"""QoS profiles of our topics (quality of service: history, reliability, durability)."""

from __future__ import annotations

from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy

LATCHED = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL)
"""For maps and queries: who comes late sees the newest. Nav2 asks for exactly this."""
LATCHED_MANY = QoSProfile(depth=256, reliability=LATCHED.reliability, durability=LATCHED.durability)
"""For masks, of which one topic carries one per query."""
