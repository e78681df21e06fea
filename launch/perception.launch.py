"""The perception node on a robot's camera, driven to active, with RViz on request.

ros2 launch ff3r_ros perception.launch.py image:=/camera/image_raw camera_info:=/camera/camera_info camera_height:=0.3
"""

from __future__ import annotations

from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, EmitEvent, LogInfo, OpaqueFunction, RegisterEventHandler
from launch.conditions import IfCondition
from launch.events import matches_action
from launch.launch_description_entity import LaunchDescriptionEntity
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import LifecycleNode, Node
from launch_ros.event_handlers import OnStateTransition
from launch_ros.events.lifecycle import ChangeState
from launch_ros.parameter_descriptions import ParameterValue
from launch_ros.substitutions import FindPackageShare
from lifecycle_msgs.msg import Transition

ARGUMENTS = {
    "image": ("image", "image topic; with transport:=compressed, with or without /compressed at its end"),
    "camera_info": ("camera_info", "camera_info topic of the same camera"),
    "transport": ("raw", "raw (sensor_msgs/Image) or compressed (sensor_msgs/CompressedImage); wins over params_file"),
    "name": ("ff3r", "name of the node, and so of its topics: /<namespace>/<name>/semantic_cloud"),
    "namespace": ("", "namespace of the node, for several robots"),
    "params_file": ("", "YAML file of parameters; the arguments below, where given, win over it"),
    "config_file": ("", "YAML file of the pipeline's configuration, as `ff3r config` prints; parameters win over it"),
    "weights": ("", "checkpoint, by a name of `ff3r weights list` or a file; empty: as in params_file, else nano"),
    "engine": ("", "auto, torch or tensorrt; empty: as in params_file, else auto"),
    "map_frame": ("", "frame of the map; empty: as in params_file, else map"),
    "camera_height": ("", "metres above the floor, makes the map metric; empty: as in params_file, else unknown"),
    "depth": ("", "depth topic registered to the image (16UC1 or 32FC1); empty: no depth"),
    "imu": ("", "imu topic, to know where up is; empty: none"),
    "odom_frame": ("", "frame of the odometry in TF; empty: as in params_file, else none"),
    "geometry": ("", "predicted, or sensor: depth and odometry replace the network's; empty: as in params_file"),
    "use_sim_time": ("false", "take the time from /clock, as with a bag or a simulator"),
    "autostart": ("true", "configure and activate the node"),
    "rviz": ("false", "show the map in RViz"),
}
"""Name → default and description."""
CHOICES = {"transport": ["raw", "compressed"]}
TYPES = {
    "config_file": str,
    "weights": str,
    "engine": str,
    "map_frame": str,
    "camera_height": float,
    "odom_frame": str,
    "geometry": str,
    "use_sim_time": bool,
}
"""Arguments that are parameters of the node, where given."""

SENSORS = ("depth", "imu")
"""Topics of other sensors, which the node subscribes to where they are given."""


def parameters(context: LaunchContext) -> list[str | dict[str, object]]:
    """Parameters of the node: the file, and over it the arguments that were given."""
    given = {name: LaunchConfiguration(name).perform(context) for name in ARGUMENTS}
    own: dict[str, object] = {
        name: ParameterValue(LaunchConfiguration(name), value_type=kind) for name, kind in TYPES.items() if given[name]
    }
    own["image_transport"] = given["transport"]
    own |= {f"use_{sensor}": True for sensor in SENSORS if given[sensor]}
    return [given["params_file"], own] if given["params_file"] else [own]


def image_topic(context: LaunchContext) -> str:
    """The topic to subscribe to: image_transport puts compressed images at <image>/compressed."""
    topic = LaunchConfiguration("image").perform(context)
    compressed = LaunchConfiguration("transport").perform(context) == "compressed"
    return f"{topic}/compressed" if compressed and not topic.endswith("/compressed") else topic


def remapped(context: LaunchContext, *names: str) -> list[tuple[str, str]]:
    """The remappings of the topics that were given."""
    topics = {name: LaunchConfiguration(name).perform(context) for name in names}
    return [(name, topic) for name, topic in topics.items() if topic]


def change(node: LifecycleNode, transition: int, condition: IfCondition | None = None) -> EmitEvent:
    """Ask the node for a transition."""
    event = ChangeState(lifecycle_node_matcher=matches_action(node), transition_id=transition)
    return EmitEvent(event=event, condition=condition)


def perception(context: LaunchContext) -> list[LaunchDescriptionEntity]:
    """The node and what drives it to active."""
    node = LifecycleNode(
        package="ff3r_ros",
        executable="perception_node",
        name=LaunchConfiguration("name"),
        namespace=LaunchConfiguration("namespace"),
        parameters=parameters(context),
        remappings=[("image", image_topic(context)), *remapped(context, "camera_info", *SENSORS)],
        output="screen",
        emulate_tty=True,
    )
    autostart = IfCondition(LaunchConfiguration("autostart"))
    configured = OnStateTransition(
        target_lifecycle_node=node,
        start_state="configuring",
        goal_state="inactive",
        entities=[change(node, Transition.TRANSITION_ACTIVATE)],
    )
    failed = OnStateTransition(
        target_lifecycle_node=node,
        start_state="configuring",
        goal_state="unconfigured",
        entities=[LogInfo(msg="the node could not be configured: its log above says why")],
    )
    return [
        RegisterEventHandler(configured, condition=autostart),
        RegisterEventHandler(failed, condition=autostart),
        node,
        change(node, Transition.TRANSITION_CONFIGURE, autostart),
    ]


def generate_launch_description() -> LaunchDescription:
    """What `ros2 launch` runs."""
    rviz_config = PathJoinSubstitution([FindPackageShare("ff3r_ros"), "rviz", "ff3r.rviz"])
    rviz = Node(
        package="rviz2",
        executable="rviz2",
        arguments=["-d", rviz_config],
        parameters=[{"use_sim_time": LaunchConfiguration("use_sim_time")}],
        condition=IfCondition(LaunchConfiguration("rviz")),
    )
    declared = [
        DeclareLaunchArgument(name, default_value=default, description=text, choices=CHOICES.get(name))
        for name, (default, text) in ARGUMENTS.items()
    ]
    return LaunchDescription([*declared, OpaqueFunction(function=perception), rviz])
