#!/usr/bin/env bash
# ROS, the environment beside it and the workspace, then the command.
set -eo pipefail
source /opt/ros/jazzy/setup.bash
source /workspace/src/ff3r_ros/.venv-robot/bin/activate
source /workspace/install/setup.bash
exec "$@"
