"""FF3R as ROS 2 nodes: messages in, messages out."""

import os
import sys
from pathlib import Path

from ff3r_ros import wheels

wheels.prepare(os.environ, Path(sys.prefix))
