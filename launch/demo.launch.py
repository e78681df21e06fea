"""The demo in ROS terms: a simulated camera, the perception node and the web viewer.

ros2 launch ff3r_ros demo.launch.py source:=video.mp4
"""

from __future__ import annotations

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue
from launch_ros.substitutions import FindPackageShare

ARGUMENTS = {
    "source": ("", "video, folder of images or bag to play; empty: a synthetic room"),
    "camera_height": ("", "metres above the floor; empty: unknown, so the map is not metric"),
    "rviz": ("false", "show the map in RViz too"),
}
"""Name → default and description."""


def generate_launch_description() -> LaunchDescription:
    """What `ros2 launch` runs."""
    source = ParameterValue(LaunchConfiguration("source"), value_type=str)
    passed_on = {name: LaunchConfiguration(name) for name in ("camera_height", "rviz")}
    perception = PathJoinSubstitution([FindPackageShare("ff3r_ros"), "launch", "perception.launch.py"])
    declared = [
        DeclareLaunchArgument(name, default_value=default, description=text)
        for name, (default, text) in ARGUMENTS.items()
    ]
    return LaunchDescription(
        [
            *declared,
            Node(package="ff3r_ros", executable="camera_node", name="camera", parameters=[{"source": source}]),
            IncludeLaunchDescription(perception, launch_arguments=passed_on.items()),
            Node(package="ff3r_ros", executable="viewer_node", name="viewer", output="screen"),
        ]
    )
