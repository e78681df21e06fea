"""The `main` of every node: start ROS, make the node, forward the library's logs, spin until told to stop."""

from __future__ import annotations

from collections.abc import Callable

import rclpy
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node

from ff3r_model.core.errors import UserError
from ff3r_ros.log_forwarding import LogForwarder
from ff3r_ros.parameters import ParameterError


def run_node(make_node: Callable[[], Node], name: str, arguments: list[str] | None = None) -> None:
    """Run a node until it is interrupted; `name` is its logger's where it cannot be made.

    Raises SystemExit with status 2, the reason logged, for parameters and files that the node cannot use.
    """
    rclpy.init(args=arguments)
    logs = LogForwarder()
    logs.attach()
    try:
        _spin(_made(make_node, name, logs))
    finally:
        logs.detach()


def _spin(node: Node) -> None:
    try:
        rclpy.spin(node)
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    finally:
        node.destroy_node()
        rclpy.try_shutdown()


def _made(make_node: Callable[[], Node], name: str, logs: LogForwarder) -> Node:
    # ROS is left running where this fails: shutting down would destroy the half of a node that there is
    try:
        node = make_node()
    except (ParameterError, UserError) as error:
        logs.forward_to(rclpy.logging.get_logger(name))
        rclpy.logging.get_logger(name).fatal(str(error))
        raise SystemExit(2) from error
    logs.forward_to(node.get_logger())
    return node
