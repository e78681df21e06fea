"""The `main` of every node: start ROS, make the node, forward the library's logs, spin until told to stop."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

import rclpy
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node

from ff3r_model.core.errors import UserError
from ff3r_ros.log_forwarding import LogForwarder
from ff3r_ros.parameters import ParameterError

log = logging.getLogger(__name__)

AFTER_FAILURE = 0.01
"""Seconds of rest after a callback that failed, lest one that always fails takes all there is."""


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
    """Spin until the end; what a callback raises is logged, and spinning goes on."""
    try:
        while not _spun_to_the_end(node):
            time.sleep(AFTER_FAILURE)
    except KeyboardInterrupt:
        pass
    finally:
        node.destroy_node()
        rclpy.try_shutdown()


def _spun_to_the_end(node: Node) -> bool:
    """False where a callback raised before that: one message or one call must not take the map with it."""
    try:
        rclpy.spin(node)
    except ExternalShutdownException:
        return True
    except Exception as error:
        if not rclpy.ok():  # what is left at work after the end has nothing to work with
            return True
        log.exception("a callback failed: %s: %s", type(error).__name__, error)
        return False
    return True


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
