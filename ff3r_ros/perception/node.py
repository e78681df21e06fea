"""The perception node: a lifecycle node that feeds camera images to the worker and publishes the map.

All its topics and services are private names (`~/semantic_cloud`), so a node called `ff3r` has `/ff3r/semantic_cloud`,
one in the namespace `/robot1` has `/robot1/ff3r/semantic_cloud`, and remapping works as usual. `image` and
`camera_info` are relative, as image_transport's are.
"""

from __future__ import annotations

import dataclasses
import gc
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.clock import Clock, ClockType
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.task import Future
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, Imu
from std_msgs.msg import String
from std_srvs.srv import Trigger
from tf2_msgs.msg import TFMessage

from ff3r_model.pipeline import Pipeline
from ff3r_ros import parameters as ros_parameters
from ff3r_ros.parameters import ParameterError
from ff3r_ros.perception.diagnostics import diagnostics
from ff3r_ros.perception.parameters import NodeParameters
from ff3r_ros.perception.pipeline_factory import parameters_in_effect, pipeline_from_parameters
from ff3r_ros.perception.session import IDLE_NOTES, Session
from ff3r_ros.perception.worker import Command, Done, WorkerStatus
from ff3r_ros.qos import CAMERA_QOS, QUERY_QOS, TF_QOS, TF_STATIC_QOS
from ff3r_ros.run_node import run_node

TICK = 0.05
"""Seconds between looks at frames that wait; also how often map -> odom is said."""

MakePipeline = Callable[[NodeParameters], Pipeline]
SUCCESS, FAILURE = TransitionCallbackReturn.SUCCESS, TransitionCallbackReturn.FAILURE


class PerceptionNode(LifecycleNode):
    """`configure` loads the weights, `activate` subscribes, `deactivate` and `cleanup` undo the two.

    The map lives from configure to cleanup. A configure that fails logs the reason and can be tried again.
    """

    def __init__(self, make_pipeline: MakePipeline | None = None, name: str = "ff3r", **node_options: Any) -> None:
        super().__init__(name, **node_options)
        self._make_pipeline = make_pipeline or pipeline_from_parameters
        self._settings: NodeParameters = ros_parameters.declare(self, NodeParameters)
        self.session: Session | None = None
        """What exists from configure to cleanup."""
        self.add_on_set_parameters_callback(
            ros_parameters.on_set(NodeParameters, lambda: self.session is not None, self._apply)
        )
        self._inputs: list[Any] = []
        self._triggers: list[Any] = []
        self._trouble = ""
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self.create_timer(self._settings.diagnostics_period, self._publish_diagnostics, clock=steady)
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
        self.session = Session(self, pipeline, parameters_in_effect(self._settings, pipeline.config))
        for text in filter(None, self._settings.queries):
            self._add_query(text)
        return SUCCESS

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Subscribe to the camera and to queries, offer the services."""
        assert self.session is not None
        kind = Image if self._settings.image_transport == "raw" else CompressedImage
        self._inputs = [
            self.create_subscription(kind, "image", self.session.take_image, CAMERA_QOS),
            self.create_subscription(CameraInfo, "camera_info", self.session.camera.take_info, CAMERA_QOS),
            self.create_subscription(String, "~/query", lambda text: self._add_query(text.data), QUERY_QOS),
            self.create_subscription(String, "~/query/remove", self._on_remove, QUERY_QOS),
        ]
        self._inputs += self._sensors(self.session)
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

    def destroy_node(self) -> None:
        """Let go of everything, then destroy the node."""
        self.release()
        super().destroy_node()

    def release(self) -> None:
        """Stop the worker and take the map's topics away; nothing to do where there are none."""
        session, self.session = self.session, None
        if session is not None and not session.close():
            self.get_logger().error("the worker does not stop; its window is still running")
        session = None
        gc.collect()  # it is a circle of references, with the network in it: a second one must not come beside it

    def _sensors(self, session: Session) -> list[Any]:
        """Subscriptions to TF, and to depth and IMU where the parameters ask for them."""
        transforms = session.transforms
        subscriptions = [
            self.create_subscription(TFMessage, "/tf", lambda tf: transforms.add(tf.transforms), TF_QOS),
            self.create_subscription(
                TFMessage, "/tf_static", lambda tf: transforms.add(tf.transforms, static=True), TF_STATIC_QOS
            ),
        ]
        if self._settings.use_depth:
            subscriptions.append(self.create_subscription(Image, "depth", session.sync.take_depth, CAMERA_QOS))
        if self._settings.use_imu:
            subscriptions.append(self.create_subscription(Imu, "imu", session.sync.take_imu, CAMERA_QOS))
        return subscriptions

    def _tick(self) -> None:
        if self.session is not None:
            self.session.tick()

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

    def _submit(self, command: Command, done: Done | None = None) -> bool:
        """Hand the worker a command; False, with a warning, where it takes none."""
        taken = self.session is not None and self.session.worker.submit(command, done)
        if not taken:
            self.get_logger().warning("command dropped: too many wait already", throttle_duration_sec=1.0)
        return taken

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

            if not self._submit(command, finish):
                response.message = "too many commands wait already"
                return response
            error = await done
            response.success, response.message = error is None, "done" if error is None else str(error)
            return response

        return answer

    def _apply(self, changes: dict[str, Any]) -> None:
        """Take over parameters that were set and checked."""
        self._settings = dataclasses.replace(self._settings, **changes)
        if self.session is None:
            return
        self.session.publishers.parameters = dataclasses.replace(self.session.publishers.parameters, **changes)
        if "threshold" in changes:
            self._submit(lambda pipeline: pipeline.queries.set_threshold(changes["threshold"]))

    def _publish_diagnostics(self) -> None:
        if self.session is None:
            self._report(WorkerStatus(), {}, IDLE_NOTES)
        else:
            self._report(self.session.worker.status, self.session.camera.dropped, self.session.notes())

    def _report(self, status: WorkerStatus, dropped: Mapping[str, int], notes: Mapping[str, str]) -> None:
        state = self._state_machine.current_state[1]
        problem = self._trouble or notes["problem"] or self._silence(state)
        settings = self._settings if self.session is None else self.session.publishers.parameters
        notes = {**notes, "map bytes allowed": str(settings.max_map_bytes), "problem": problem}
        now = self.get_clock().now().to_msg()
        self._diagnostics.publish(diagnostics(now, self.get_name(), state, status, dropped, notes))

    def _silence(self, state: str) -> str:
        """Why no image comes, as far as the ROS graph shows."""
        if state != "active" or self.session is None or self.session.camera.received:
            return ""
        topic, wanted = self.resolve_topic_name("image"), self._settings.image_transport
        types = sorted({info.topic_type for info in self.get_publishers_info_by_topic(topic)})
        publishers = f"its publishers send {', '.join(types)}" if types else "nobody publishes it"
        return f"no image on {topic} yet (image_transport {wanted}): {publishers}"


def _remove_query(pipeline: Pipeline, text: str) -> None:
    texts = {query.text for query in pipeline.queries.active}
    pipeline.queries.remove(int(text) if text not in texts and text.strip().isdigit() else text)


def main(arguments: list[str] | None = None) -> None:
    """Entry point of `perception_node`."""
    run_node(PerceptionNode, "ff3r", arguments)


if __name__ == "__main__":
    main()
