"""ROS parameters of the perception node, with defaults from the pipeline's configuration classes."""

from __future__ import annotations

from dataclasses import dataclass

from ff3r_model.engine.choose import EngineConfig
from ff3r_model.frames.windows import WindowConfig
from ff3r_model.pipeline import PipelineConfig
from ff3r_model.slam.config import MappingConfig
from ff3r_model.voxel_map.config import MapConfig
from ff3r_model.voxel_map.queries import QueryConfig
from ff3r_ros.parameters import parameter


@dataclass(frozen=True)
class NodeParameters:
    """Of the perception node. Names and meanings are documented by their descriptions."""

    weights: str = parameter(
        "",
        "Checkpoint: a name of `ff3r weights list`, or a file (safetensors). Empty: nano, which comes along.",
    )
    config_file: str = parameter(
        "",
        "YAML file of the pipeline's configuration, as `ff3r config` prints it. Parameters that do not stand at their "
        "default go before it. Empty: none.",
    )
    device: str = parameter("auto", "Where the network runs: auto (an accelerator if there is one), or torch's name.")
    engine: str = parameter(
        "auto",
        "What runs the network. tensorrt: a plan, where the GPU and TensorRT allow, else torch with a warning. auto: "
        "the same without a warning where there is no NVIDIA GPU.",
        choices=("auto", "torch", "tensorrt"),
    )
    build_engine: bool = parameter(
        EngineConfig.build,
        "Build a missing TensorRT plan in configure, minutes to an hour. false: torch until there is one.",
    )
    engine_image_size: str = parameter(
        "{}x{}".format(*EngineConfig.image_size),
        "Width x height of the camera's images, for whose shape a plan is made; torch runs others.",
    )
    engine_max_views: int = parameter(EngineConfig.max_views, "Largest window that a plan takes.", low=2, high=64)
    image_transport: str = parameter(
        "raw",
        "raw: `image` is sensor_msgs/Image. compressed: sensor_msgs/CompressedImage.",
        choices=("raw", "compressed"),
    )
    image_is_rectified: bool = parameter(
        False, "The images are free of distortion already (image_rect topics): use P of camera_info, undo nothing."
    )
    camera_height: float = parameter(
        MappingConfig.camera_height or 0.0,
        "Height of the camera above the floor in metres; makes the map metric. 0: unknown.",
        low=0.0,
        high=100.0,
    )
    map_frame: str = parameter("map", "Frame of the map: the first camera's place, axes as in REP-103.")
    camera_frame: str = parameter("", "Optical frame that TF places in the map. Empty: the images' frame_id.")
    publish_tf: bool = parameter(
        True, "Publish TF: map -> odom with an odom_frame, map -> camera without, unless the camera has a parent."
    )
    odom_frame: str = parameter(
        "", "Frame of the odometry in TF (REP-105): its camera poses give the map its scale. Empty: no odometry."
    )
    use_depth: bool = parameter(
        False, "Subscribe to `depth`, registered to the image: 16UC1 millimetres or 32FC1 metres; gives the scale."
    )
    geometry: str = parameter(
        PipelineConfig.geometry,
        "sensor: measured depth and odometry take the place of the network's depth and poses, where there are any.",
        choices=("predicted", "sensor"),
    )
    depth: str = parameter(
        PipelineConfig.depth,
        "Where depth comes from: network; bent: that, bent to the points of tracks; dense: plane sweeps where there is "
        "texture, twice the time. (The topic of depth images is `depth` too: remap that with -r.)",
        choices=("network", "bent", "dense"),
    )
    use_imu: bool = parameter(False, "Subscribe to `imu` (sensor_msgs/Imu) to know where up is.")
    sync_tolerance: float = parameter(
        0.02, "Seconds by which the stamps of an image and its depth may differ.", low=0.0, high=10.0
    )
    sync_wait: float = parameter(
        0.3, "Seconds that an image waits for its depth and its TF; then it is used without.", low=0.0, high=10.0
    )
    views: int = parameter(WindowConfig.views, "Views per window of the network.", low=2, high=64)
    overlap: int = parameter(
        WindowConfig.overlap or 0,
        "Keyframes shared with the window before (less than `views`). 0: half of `views`.",
        low=0,
        high=63,
    )
    min_motion: float = parameter(
        WindowConfig.min_motion,
        "Parallax for the next keyframe, as a share of the picture's long side; turns count by 0.4. 0: no least.",
        low=0.0,
        high=1.0,
    )
    max_keyframe_rate: float = parameter(
        WindowConfig.max_keyframe_rate,
        "Keyframes per second at most, whatever `min_motion` is.",
        low=0.01,
        high=1000.0,
    )
    long_side: int = parameter(
        WindowConfig.long_side or 0,
        "Long side of the network's images, pixels. 0: the checkpoint's own, 112 nano, 448 full.",
        low=0,
        high=1024,
    )
    voxel_size: float = parameter(
        MapConfig.voxel_size,
        "Edge of the map's voxels: metres once the map is metric, window units before.",
        low=1e-4,
        high=10.0,
    )
    max_map_bytes: int = parameter(
        MapConfig.max_map_bytes, "The map never holds more; what is evicted first is documented.", low=2**20, high=2**40
    )
    queries: list[str] = parameter([""], "Text queries that the node starts with; empty texts are skipped.")
    max_queries: int = parameter(QueryConfig.max_queries, "One more query than this is refused.", low=1, high=1000)
    threshold: float = parameter(
        QueryConfig.threshold,
        "Voxels whose score is at least this belong to a query's mask.",
        low=0.0,
        high=1.0,
        change="always",
    )
    max_cloud_points: int = parameter(
        200_000, "Larger maps are thinned evenly to this many points in the cloud.", low=1, high=10**8, change="always"
    )
    map_file: str = parameter(
        "", "File for the services ~/save_map and ~/load_map; it lies within the folder for maps.", change="always"
    )
    map_folder: str = parameter(
        "",
        "Folder for maps: what map_file may be set to lies in it. Empty: that of the map_file given at start.",
        change="never",
    )
    grid_resolution: float = parameter(
        0.0, "Edge of the grids' cells in metres. 0: the voxels' edge.", low=0.0, high=10.0, change="always"
    )
    grid_low: float = parameter(
        -100.0,
        "Voxels below this z of the map are left out of the queries' grids.",
        low=-1e4,
        high=1e4,
        change="always",
    )
    grid_high: float = parameter(
        100.0, "Voxels above this z of the map are left out of the queries' grids.", low=-1e4, high=1e4, change="always"
    )
    mask_value: int = parameter(
        100,
        "Value of a query's cells in its grid; 100 is lethal to a keepout filter. 0: 100 times the score.",
        low=0,
        high=100,
        change="always",
    )
    obstacle_low: float = parameter(
        0.15,
        "Metres above the floor from which voxels are obstacles in the occupancy grid.",
        low=0.0,
        high=100.0,
        change="always",
    )
    obstacle_high: float = parameter(
        1.5,
        "Metres above the floor up to which voxels are obstacles, the robot's height.",
        low=0.0,
        high=100.0,
        change="always",
    )
    inbox_frames: int = parameter(
        64, "Images that wait while the network runs; beyond, every second one is dropped.", low=2, high=4096
    )
    time_jump_reset: float = parameter(
        1.0, "Seconds that stamps must jump back (a bag that loops) for frames to start over.", low=0.0, high=1e6
    )
    diagnostics_period: float = parameter(1.0, "Seconds between diagnostics.", low=0.05, high=60.0, change="never")
