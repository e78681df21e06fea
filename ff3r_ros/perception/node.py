"""The perception node: a lifecycle node that feeds camera images to the worker and publishes the map.

All its topics and services are private names (`~/semantic_cloud`), so a node called `ff3r` has `/ff3r/semantic_cloud`,
one in the namespace `/robot1` has `/robot1/ff3r/semantic_cloud`, and remapping works as usual. `image` and
`camera_info` are relative, as image_transport's are.
"""

from __future__ import annotations

import dataclasses
import gc
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.clock import Clock, ClockType
from rclpy.event_handler import QoSMessageLostInfo, SubscriptionEventCallbacks
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.qos import QoSProfile
from rclpy.task import Future
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, Imu
from std_msgs.msg import String
from std_srvs.srv import Trigger
from tf2_msgs.msg import TFMessage

from ff3r_model.pipeline import Pipeline
from ff3r_model.voxel_map.queries import QueryRejected, check_length
from ff3r_ros import parameters as ros_parameters
from ff3r_ros.guard import CallbackGuard
from ff3r_ros.perception.diagnostics import diagnostics
from ff3r_ros.perception.map_folder import MapFolder
from ff3r_ros.perception.parameters import NodeParameters
from ff3r_ros.perception.pipeline_factory import parameters_in_effect, pipeline_from_parameters
from ff3r_ros.perception.session import IDLE_NOTES, Session
from ff3r_ros.perception.worker import Command, Done, WorkerStatus
from ff3r_ros.qos import CAMERA_QOS, QUERY_QOS, TF_QOS, TF_STATIC_QOS
from ff3r_ros.run_node import run_node

TICK = 0.05
"""Seconds between looks at frames that wait; also how often map -> odom is said."""

SILENCE = 5.0
"""Seconds without an image after which diagnostics ask where the camera is."""

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
        self.guard = CallbackGuard(self.get_logger().error)
        self._maps = MapFolder(self._settings)
        self._inputs: list[Any] = []
        self._trouble = ""
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        report = self.guard("diagnostics", self._publish_diagnostics)
        self.create_timer(self._settings.diagnostics_period, report, clock=steady)
        self.create_timer(TICK, self.guard("waiting image", self._tick), clock=steady)
        # services outlive all states: one that is destroyed while a call of it waits cannot answer
        group = ReentrantCallbackGroup()
        for name, command in self._commands().items():
            self.create_service(Trigger, f"~/{name}", self._trigger(name, command), callback_group=group)

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
        """Subscribe to the camera, to queries and to the sensors that the parameters ask for."""
        session, own = self.session, self._settings
        assert session is not None
        session.camera.arrival = time.monotonic()
        self._listen(Image if own.image_transport == "raw" else CompressedImage, "image", session.take_image)
        self._listen(CameraInfo, "camera_info", session.camera.take_info)
        self._listen(TFMessage, "/tf", session.take_tf, TF_QOS)
        self._listen(TFMessage, "/tf_static", session.take_static_tf, TF_STATIC_QOS)
        if own.use_depth:
            self._listen(Image, "depth", session.sync.take_depth)
        if own.use_imu:
            self._listen(Imu, "imu", session.sync.take_imu)
        self._listen(String, "~/query", self._on_query, QUERY_QOS)
        self._listen(String, "~/query/remove", self._on_remove, QUERY_QOS)
        return super().on_activate(state)

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop listening. The map stays."""
        for subscription in self._inputs:
            self.destroy_subscription(subscription)
        self._inputs = []
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

    def _listen(self, kind: type, topic: str, callback: Callable[[Any], object], qos: QoSProfile = CAMERA_QOS) -> None:
        """Subscribe until the node is deactivated; of queries the middleware's losses are counted too."""
        lost = SubscriptionEventCallbacks(message_lost=self.guard("lost query", self._on_lost_query))
        events = lost if qos is QUERY_QOS else None
        guarded = self.guard(f"message on {topic}", callback)
        self._inputs.append(self.create_subscription(kind, topic, guarded, qos, event_callbacks=events))

    def _tick(self) -> None:
        if self.session is not None:
            self.session.tick()

    def _on_query(self, message: String) -> None:
        self._about_query(message.data, self._add_query)

    def _on_remove(self, message: String) -> None:
        """By text, or by id where no query has this text."""
        self._about_query(message.data, lambda text: self._submit(lambda pipeline: _remove_query(pipeline, text)))

    def _on_lost_query(self, event: QoSMessageLostInfo) -> None:
        if self.session is not None:
            self.session.queries["lost"] += event.total_count_change

    def _about_query(self, text: str, submit: Callable[[str], bool]) -> None:
        """Hand over a text; of one that is too long nothing is kept but its length, until the worker refuses it."""
        if self.session is None:
            return
        self.session.queries["received"] += 1
        try:
            check_length(text, self.session.longest_query)
            taken = submit(text)
        except QueryRejected as refusal:
            taken = self._submit(partial(_refuse, refusal.with_traceback(None)))
        self.session.queries["dropped"] += not taken

    def _add_query(self, text: str) -> bool:
        return self._submit(lambda pipeline: pipeline.queries.add(text))

    def _commands(self) -> dict[str, Command]:
        """What the Trigger services do to the pipeline."""
        return {
            "clear_queries": lambda pipeline: pipeline.queries.clear(),
            "reset": lambda pipeline: pipeline.reset(),
            "save_map": lambda pipeline: pipeline.save(self._maps.path(self._settings.map_file)),
            "load_map": lambda pipeline: pipeline.load(self._maps.path(self._settings.map_file)),
        }

    def _submit(self, command: Command, done: Done | None = None, name: str = "") -> bool:
        """Hand the worker a command; False, with a warning, where it takes none."""
        taken = self.session is not None and self.session.worker.submit(command, done, name)
        if not taken:
            self.get_logger().warning("command dropped: too many wait already", throttle_duration_sec=1.0)
        return taken

    def _trigger(self, name: str, command: Command) -> Callable[[Trigger.Request, Trigger.Response], Any]:
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

            if self.session is None:
                response.message = "the node is not configured: there is no map yet"
                return response
            if not self._submit(command, finish, name):
                response.message = "too many commands wait already"
                return response
            error = await done
            response.success, response.message = error is None, "done" if error is None else str(error)
            return response

        return answer

    def _apply(self, changes: dict[str, Any]) -> None:
        """Take over parameters that were set and checked. Raises ParameterError for a map_file outside its folder."""
        if changes.get("map_file"):
            self._maps.path(changes["map_file"])
        self._settings = dataclasses.replace(self._settings, **changes)
        if self.session is None:
            return
        self.session.publishers.parameters = dataclasses.replace(self.session.publishers.parameters, **changes)
        if "threshold" in changes:
            self._submit(lambda pipeline: pipeline.queries.set_threshold(changes["threshold"]))

    def _publish_diagnostics(self) -> None:
        failed = {f"failed: {name}": str(count) for name, count in sorted(self.guard.failed.items())}
        if self.session is None:
            self._report(WorkerStatus(), {}, IDLE_NOTES | failed)
        else:
            self._report(self.session.worker.status, self.session.camera.dropped, self.session.notes() | failed)

    def _report(self, status: WorkerStatus, dropped: Mapping[str, int], notes: Mapping[str, str]) -> None:
        state = self._state_machine.current_state[1]
        problem = self._trouble or self.guard.recent or notes["problem"] or self._silence(state)
        settings = self._settings if self.session is None else self.session.publishers.parameters
        notes = {**notes, "map bytes allowed": str(settings.max_map_bytes), "problem": problem}
        now = self.get_clock().now().to_msg()
        self._diagnostics.publish(diagnostics(now, self.get_name(), state, status, dropped, notes))

    def _silence(self, state: str) -> str:
        """Why no image comes, as far as the ROS graph shows."""
        if state != "active" or self.session is None:
            return ""
        camera, topic = self.session.camera, self.resolve_topic_name("image")
        silent = time.monotonic() - camera.arrival
        if camera.received and silent < SILENCE:
            return ""
        since = f"for {silent:.0f} s" if camera.received else "yet"
        types = sorted({info.topic_type for info in self.get_publishers_info_by_topic(topic)})
        publishers = f"its publishers send {', '.join(types)}" if types else "nobody publishes it"
        return f"no image on {topic} {since} (image_transport {self._settings.image_transport}): {publishers}"


def _remove_query(pipeline: Pipeline, text: str) -> None:
    texts = {query.text for query in pipeline.queries.active}
    pipeline.queries.remove(int(text) if text not in texts and text.strip().isdecimal() else text)


def _refuse(refusal: QueryRejected, pipeline: Pipeline) -> None:
    raise refusal


def main(arguments: list[str] | None = None) -> None:
    """Entry point of `perception_node`."""
    run_node(PerceptionNode, "ff3r", arguments)


if __name__ == "__main__":
    main()
