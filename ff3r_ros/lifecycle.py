"""Drive a lifecycle node from outside: `python -m ff3r_ros.lifecycle /ff3r active`."""

from __future__ import annotations

import argparse
import logging
import time
from typing import Any

import rclpy
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor

log = logging.getLogger(__name__)

STEPS = {
    ("unconfigured", "inactive"): Transition.TRANSITION_CONFIGURE,
    ("unconfigured", "active"): Transition.TRANSITION_CONFIGURE,
    ("inactive", "active"): Transition.TRANSITION_ACTIVATE,
    ("active", "inactive"): Transition.TRANSITION_DEACTIVATE,
    ("active", "unconfigured"): Transition.TRANSITION_DEACTIVATE,
    ("inactive", "unconfigured"): Transition.TRANSITION_CLEANUP,
}
"""The transition to take from (state, target)."""
RETRY = 2.0
"""Seconds after which a question that got no answer is asked again."""
TARGETS = ("unconfigured", "inactive", "active")


class LifecycleError(RuntimeError):
    """A node that is not there, or refuses a transition."""


class LifecycleClient:
    """Talks to one lifecycle node through a small node of its own."""

    def __init__(self, node_name: str = "/ff3r", context: Context | None = None) -> None:
        self.node_name = "/" + node_name.lstrip("/")
        self._node = rclpy.create_node("lifecycle_client", context=context, use_global_arguments=False)
        self._executor = SingleThreadedExecutor(context=context)
        self._executor.add_node(self._node)
        self._get: Any = self._node.create_client(GetState, f"{self.node_name}/get_state")
        self._change: Any = self._node.create_client(ChangeState, f"{self.node_name}/change_state")

    def state(self, timeout: float = 10.0) -> str:
        """The state's name. Raises LifecycleError when the node does not answer within `timeout` seconds.

        Asks again and again: a request can reach a node that is about to end, or one that has not found us yet.
        """
        deadline = time.monotonic() + timeout
        while True:
            left = deadline - time.monotonic()
            try:
                return str(self._call(self._get, GetState.Request(), min(left, RETRY)).current_state.label)
            except LifecycleError as error:
                if left <= RETRY:
                    text = f"no lifecycle node {self.node_name} answers within {timeout:.0f} s; is it running?"
                    raise LifecycleError(text) from error

    def drive(self, target: str = "active", timeout: float = 120.0) -> None:
        """Take the transitions to `target`. Raises LifecycleError when one fails; its reason is in the node's log."""
        deadline = time.monotonic() + timeout
        while (state := self.state(deadline - time.monotonic())) != target:
            if (state, target) not in STEPS:
                raise LifecycleError(f"{self.node_name} is {state}: there is no way to {target} from there")
            request = ChangeState.Request(transition=Transition(id=STEPS[state, target]))
            if not self._call(self._change, request, deadline - time.monotonic()).success:
                raise LifecycleError(f"{self.node_name} stays {self.state()}; its log and /diagnostics say why")
            log.info("%s left the state %s", self.node_name, state)

    def close(self) -> None:
        """Take the small node away."""
        self._executor.shutdown()
        self._node.destroy_node()

    def _call(self, client: Any, request: Any, timeout: float) -> Any:
        deadline = time.monotonic() + timeout
        if not client.wait_for_service(timeout_sec=max(0.0, timeout)):
            raise LifecycleError(f"no lifecycle node {self.node_name} within {timeout:.0f} s; is it running?")
        future = client.call_async(request)
        self._executor.spin_until_future_complete(future, timeout_sec=max(0.0, deadline - time.monotonic()))
        if not future.done():
            client.remove_pending_request(future)
            raise LifecycleError(f"{self.node_name} does not answer within {timeout:.0f} s")
        return future.result()


def main() -> None:
    """Entry point of `python -m ff3r_ros.lifecycle`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("node", nargs="?", default="/ff3r")
    parser.add_argument("target", nargs="?", default="active", choices=TARGETS)
    parser.add_argument("--timeout", type=float, default=120.0, help="seconds (default 120)")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    rclpy.init()
    client = LifecycleClient(options.node)
    try:
        client.drive(options.target, options.timeout)
    except LifecycleError as error:
        raise SystemExit(str(error)) from error
    finally:
        client.close()
        rclpy.try_shutdown()


if __name__ == "__main__":
    main()
