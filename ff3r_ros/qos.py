"""Quality-of-service profiles of all topics, one for each kind of stream."""

from __future__ import annotations

from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy

LATCHED = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL)
"""For the map and the queries: who comes late sees the newest. Nav2 asks for exactly this."""
LATCHED_MANY = QoSProfile(depth=256, reliability=LATCHED.reliability, durability=LATCHED.durability)
"""For masks, of which one topic carries one per query."""
CAMERA_QOS = QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT)
"""Best effort matches reliable and best-effort cameras alike."""
TF_QOS = QoSProfile(depth=100)
TF_STATIC_QOS = QoSProfile(depth=100, durability=DurabilityPolicy.TRANSIENT_LOCAL)
QUERY_QOS = QoSProfile(history=HistoryPolicy.KEEP_ALL)
"""Reliable, and nothing is overwritten here: a burst of queries is refused one by one. What a sender overwrites
before it is sent, the middleware reports as lost."""
