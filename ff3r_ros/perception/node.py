"""The perception node: a lifecycle node that feeds camera images to the worker and says what the map holds.

All its topics and services are private names (`~/semantic_cloud`), so a node called `ff3r` has `/ff3r/semantic_cloud`,
one in the namespace `/robot1` has `/robot1/ff3r/semantic_cloud`, and remapping works as usual. `image` and
`camera_info` are relative, as image_transport's are.
"""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.clock import Clock, ClockType
from rclpy.executors import ExternalShutdownException
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.task import Future
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, Imu
from std_msgs.msg import String
from std_srvs.srv import Trigger
from tf2_msgs.msg import TFMessage

from ff3r_model.pipeline import Pipeline
from ff3r_ros import parameters as ros_parameters
from ff3r_ros.parameters import ParameterError
from ff3r_ros.perception.camera_input import CameraInput
from ff3r_ros.perception.diagnostics import diagnostics
from ff3r_ros.perception.parameters import NodeParameters
from ff3r_ros.perception.pipeline_factory import pipeline_from_parameters
from ff3r_ros.perception.publishers import MapPublishers
from ff3r_ros.perception.sensor_sync import AssemblyConfig, FrameAssembler
from ff3r_ros.perception.transform_buffer import TransformBuffer
from ff3r_ros.perception.worker import Command, Worker, WorkerStatus

CAMERA_QOS = QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT)
"""Best effort matches reliable and best-effort cameras alike."""
TF_QOS = QoSProfile(depth=100)
TF_STATIC_QOS = QoSProfile(depth=100, durability=DurabilityPolicy.TRANSIENT_LOCAL)
TICK = 0.05
"""Seconds between looks at frames that wait; also how often map -> odom is said."""
QUERY_QOS = QoSProfile(depth=1000)
"""Reliable; deep, so that a burst of queries is refused one by one and none is lost without a word."""

MakePipeline = Callable[[NodeParameters], Pipeline]
SUCCESS, FAILURE = TransitionCallbackReturn.SUCCESS, TransitionCallbackReturn.FAILURE


class PerceptionNode(LifecycleNode):
    """`configure` loads the weights, `activate` subscribes, `deactivate` and `cleanup` undo the two.

    The map lives from configure to cleanup. A configure that fails says why and can be tried again.
    """

    def __init__(self, make_pipeline: MakePipeline | None = None, name: str = "ff3r", **node_options: Any) -> None:
        super().__init__(name, **node_options)
        self._make_pipeline = make_pipeline or pipeline_from_parameters
        self._settings: NodeParameters = ros_parameters.declare(self, NodeParameters)
        self.add_on_set_parameters_callback(
            ros_parameters.on_set(NodeParameters, lambda: self._worker is not None, self._apply)
        )
        self._worker: Worker | None = None
        self._topics: MapPublishers | None = None
        self._camera = CameraInput(self._warn, self._now)
        self._transforms = TransformBuffer()
        self._assembler: FrameAssembler | None = None
        self._inputs: list[Any] = []
        self._triggers: list[Any] = []
        self._trouble = ""
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        period = self._settings.diagnostics_period
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self.create_timer(period, self._publish_diagnostics, clock=steady)
        self.create_timer(TICK, self._tick, clock=steady)

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Load the weights and advertise the map's topics."""
        try:
            pipeline = self._make_pipeline(self._settings)
        except Exception as error:  # whatever is wrong with the weights or the device, the node must stay usable
            self._trouble = f"cannot configure: {error}"
            self.get_logger().error(self._trouble)
            return FAILURE
        self._trouble = ""
        self._camera = CameraInput(self._warn, self._now, self._settings.image_is_rectified)
        self._transforms = TransformBuffer()
        self._topics = MapPublishers(self, self._settings, self._transforms)
        self._worker = Worker(
            pipeline,
            self._topics.publish,
            inbox_frames=self._settings.inbox_frames,
            time_jump_reset=self._settings.time_jump_reset,
        )
        self._worker.start()
        self._assembler = FrameAssembler(
            _assembly(self._settings), self._transforms, self._worker.offer, self._warn, self._camera.rectify_depth
        )
        for text in filter(None, self._settings.queries):
            self._add_query(text)
        return SUCCESS

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Subscribe to the camera and to queries, offer the services."""
        kind = Image if self._settings.image_transport == "raw" else CompressedImage
        self._inputs = [
            self.create_subscription(kind, "image", self._on_image, CAMERA_QOS),
            self.create_subscription(CameraInfo, "camera_info", self._camera.take_info, CAMERA_QOS),
            self.create_subscription(String, "~/query", lambda text: self._add_query(text.data), QUERY_QOS),
            self.create_subscription(String, "~/query/remove", self._on_remove, QUERY_QOS),
        ]
        self._inputs += self._sensors()
        group = ReentrantCallbackGroup()
        self._triggers = [
            self.create_service(Trigger, f"~/{name}", self._trigger(command), callback_group=group)
            for name, command in self._commands().items()
        ]
        return super().on_activate(state)

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop listening. The map stays."""
        for subscription in self._inputs:
            self.destroy_subscription(subscription)
        for service in self._triggers:
            self.destroy_service(service)
        self._inputs, self._triggers = [], []
        return super().on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Let go of the network, the map and the topics."""
        self.release()
        return SUCCESS

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """As deactivate and cleanup."""
        self.on_deactivate(state)
        self.release()
        return SUCCESS

    def release(self) -> None:
        """Stop the worker and take the map's topics away; nothing to do where there are none."""
        if self._worker is not None and not self._worker.stop():
            self.get_logger().error("the worker does not stop; its window is still running")
        if self._topics is not None:
            self._topics.destroy()
        self._worker = self._topics = self._assembler = None

    def _on_image(self, message: Image | CompressedImage) -> None:
        arrival = time.monotonic()
        frame = self._camera.take_image(message)
        if frame is None or self._assembler is None or self._topics is None:
            return
        self._topics.camera_frame = self._settings.camera_frame or frame.frame_id
        self._assembler.take_frame(frame, arrival)

    def _sensors(self) -> list[Any]:
        """What says where the camera and up are, as far as it is asked for."""
        assert self._assembler is not None
        subscriptions = [
            self.create_subscription(TFMessage, "/tf", lambda tf: self._transforms.add(tf.transforms), TF_QOS),
            self.create_subscription(
                TFMessage, "/tf_static", lambda tf: self._transforms.add(tf.transforms, static=True), TF_STATIC_QOS
            ),
        ]
        if self._settings.use_depth:
            subscriptions.append(self.create_subscription(Image, "depth", self._assembler.take_depth, CAMERA_QOS))
        if self._settings.use_imu:
            subscriptions.append(self.create_subscription(Imu, "imu", self._assembler.take_imu, CAMERA_QOS))
        return subscriptions

    def _tick(self) -> None:
        """Frames whose company has come go on, and the map's place in the tree is said again."""
        if self._assembler is not None:
            self._assembler.pump(time.monotonic())
        if self._topics is not None and self._topics.tf is not None:
            self._topics.tf.repeat()

    def _add_query(self, text: str) -> None:
        self._submit(lambda pipeline: pipeline.queries.add(text))

    def _on_remove(self, message: String) -> None:
        """By text, or by id where no query has this text."""
        self._submit(lambda pipeline: _remove_query(pipeline, message.data))

    def _commands(self) -> dict[str, Command]:
        """What the Trigger services do to the pipeline."""
        return {
            "clear_queries": lambda pipeline: pipeline.queries.clear(),
            "reset": lambda pipeline: pipeline.reset(),
            "save_map": lambda pipeline: pipeline.save(self._map_file()),
            "load_map": lambda pipeline: pipeline.load(self._map_file()),
        }

    def _map_file(self) -> Path:
        if not self._settings.map_file:
            raise ParameterError("the parameter map_file is empty: set it to the file to save to or load from")
        return Path(self._settings.map_file).expanduser()

    def _submit(self, command: Command) -> None:
        if self._worker is None or not self._worker.submit(command):
            self.get_logger().warning("command dropped: too many wait already", throttle_duration_sec=1.0)

    def _trigger(self, command: Command) -> Callable[[Trigger.Request, Trigger.Response], Any]:
        """A service that answers once the worker has run the command; meanwhile the executor is free.

        rclpy polls a waiting coroutine when something wakes the executor, and blocks its callback group meanwhile:
        hence the `wake`, and the services' own group.
        """

        async def answer(request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
            done: Future[BaseException | None] = Future()

            def finish(error: BaseException | None) -> None:
                done.set_result(error)
                if self.executor is not None:
                    self.executor.wake()

            if self._worker is None or not self._worker.submit(command, finish):
                response.message = "too many commands wait already"
                return response
            error = await done
            response.success, response.message = error is None, "done" if error is None else str(error)
            return response

        return answer

    def _apply(self, changes: dict[str, Any]) -> None:
        """Take over parameters that were set and checked."""
        self._settings = dataclasses.replace(self._settings, **changes)
        if self._topics is not None:
            self._topics.parameters = self._settings
        if "threshold" in changes and self._worker is not None:
            self._submit(lambda pipeline: pipeline.queries.set_threshold(changes["threshold"]))

    def _publish_diagnostics(self) -> None:
        status = self._worker.status if self._worker is not None else WorkerStatus()
        state = self._state_machine.current_state[1]
        notes = {
            "frames received": str(self._camera.received),
            "map bytes allowed": str(self._settings.max_map_bytes),
            "frames without calibration": str(self._camera.uncalibrated),
            "grids": self._topics.grids.withheld if self._topics is not None else "",
            "tf": self._topics.tf.withheld if self._topics is not None and self._topics.tf is not None else "",
            **(_missing(self._assembler) if self._assembler is not None else {}),
            "problem": self._trouble or self._camera.problem or self._silence(state),
        }
        now = self.get_clock().now().to_msg()
        self._diagnostics.publish(diagnostics(now, self.get_name(), state, status, self._camera.dropped, notes))

    def _silence(self, state: str) -> str:
        """Why no image comes, as far as the graph tells."""
        if state != "active" or self._camera.received:
            return ""
        topic, wanted = self.resolve_topic_name("image"), self._settings.image_transport
        types = sorted({info.topic_type for info in self.get_publishers_info_by_topic(topic)})
        publishers = f"its publishers send {', '.join(types)}" if types else "nobody publishes it"
        return f"no image on {topic} yet (image_transport {wanted}): {publishers}"

    def _warn(self, text: str) -> None:
        self.get_logger().warning(text)

    def _now(self) -> int:
        return int(self.get_clock().now().nanoseconds)


def _assembly(settings: NodeParameters) -> AssemblyConfig:
    return AssemblyConfig(
        use_depth=settings.use_depth,
        odom_frame=settings.odom_frame,
        use_imu=settings.use_imu,
        tolerance=settings.sync_tolerance,
        max_wait=settings.sync_wait,
        jump_back=settings.time_jump_reset,
    )


def _missing(assembler: FrameAssembler) -> dict[str, str]:
    """What frames had to go without, for the diagnostics."""
    return {f"frames with {reason}": str(count) for reason, count in sorted(assembler.missing.items())}


def _remove_query(pipeline: Pipeline, text: str) -> None:
    texts = {query.text for query in pipeline.queries.active}
    pipeline.queries.remove(int(text) if text not in texts and text.strip().isdigit() else text)


class _RosLogs(logging.Handler):
    """Passes the library's log records to the node's logger."""

    def __init__(self, node: PerceptionNode) -> None:
        super().__init__()
        self._logger = node.get_logger()

    def emit(self, record: logging.LogRecord) -> None:
        # rclpy ties a severity to a line of code, so each severity has its own
        if record.levelno >= logging.ERROR:
            self._logger.error(record.getMessage())
        elif record.levelno >= logging.WARNING:
            self._logger.warning(record.getMessage())
        else:
            self._logger.info(record.getMessage())


def main(arguments: list[str] | None = None) -> None:
    """Entry point of `perception_node`."""
    rclpy.init(args=arguments)
    try:
        node = PerceptionNode()
    except ParameterError as error:
        rclpy.logging.get_logger("ff3r").fatal(str(error))
        raise SystemExit(2) from error
    for name in ("ff3r_model", "ff3r_ros"):
        logging.getLogger(name).addHandler(_RosLogs(node))
        logging.getLogger(name).setLevel(logging.INFO)
    try:
        rclpy.spin(node)
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    finally:
        node.release()
        rclpy.try_shutdown()


if __name__ == "__main__":
    main()
