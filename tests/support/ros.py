"""Real nodes over real DDS, with executors in threads of this process."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import rclpy
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter


class Ros:
    """One context; each node that `run` gets spins in a thread of its own."""

    def __init__(self) -> None:
        self.context = Context()
        rclpy.init(context=self.context)
        self._running: list[tuple[SingleThreadedExecutor, threading.Thread, Node]] = []
        self.probe = self.run(Node("probe", context=self.context))

    def run(self, node: Any) -> Any:
        """Spin the node in the background; returns it."""
        executor = SingleThreadedExecutor(context=self.context)
        executor.add_node(node)
        thread = threading.Thread(target=executor.spin, daemon=True)
        thread.start()
        self._running.append((executor, thread, node))
        return node

    def options(self, **parameters: Any) -> dict[str, Any]:
        """Arguments of a node's constructor."""
        overrides = [Parameter(name, value=value) for name, value in parameters.items()]
        return {"context": self.context, "parameter_overrides": overrides}

    def collect(self, kind: Any, topic: str, qos: Any = 10) -> list[Any]:
        """A list that grows with each message on the topic."""
        messages: list[Any] = []
        self.probe.create_subscription(kind, topic, messages.append, qos)
        return messages

    def publisher(self, kind: Any, topic: str, qos: Any = 10, subscribers: int = 1) -> Any:
        """A publisher that found its subscribers."""
        publisher = self.probe.create_publisher(kind, topic, qos)
        wait_until(lambda: publisher.get_subscription_count() >= subscribers, f"a subscriber on {topic}")
        return publisher

    def call(self, kind: Any, service: str, request: Any = None) -> Any:
        """The service's answer."""
        client = self.probe.create_client(kind, service)
        assert client.wait_for_service(timeout_sec=10), f"no service {service}"
        future = client.call_async(request or kind.Request())
        wait_until(future.done, f"an answer from {service}")
        return future.result()

    def close(self) -> None:
        for executor, thread, node in reversed(self._running):
            executor.shutdown()
            thread.join(timeout=10)
            node.destroy_node()
        self.context.try_shutdown()


def wait_until(condition: Callable[[], Any], what: str, timeout: float = 30.0) -> Any:
    """The condition's value once it holds; fails with `what` after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while not (value := condition()):
        assert time.monotonic() < deadline, f"waited {timeout:.0f} s for {what}"
        time.sleep(0.01)
    return value
