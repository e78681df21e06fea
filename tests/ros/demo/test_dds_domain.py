"""The demo's DDS: its ports, as Linux lists them, and the domains it takes."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

import pytest

from ff3r_ros.demo import dds_domain as domain

PORTS = """
import os
import rclpy

rclpy.init()
node = rclpy.create_node("ports")
links = [f"/proc/self/fd/{name}" for name in os.listdir("/proc/self/fd")]
own = {os.readlink(link) for link in links if os.path.islink(link)}
for line in open("/proc/net/udp").read().splitlines()[1:]:
    if f"socket:[{line.split()[9]}]" in own:
        print(line.split()[1])
rclpy.shutdown()
"""


@pytest.mark.skipif(not os.path.exists("/proc/net/udp"), reason="ports are read as Linux lists them")
def test_nobody_elsewhere_can_reach_the_demo() -> None:
    """Of the domain's ports only 127.0.0.1's are open; FastDDS sends from others, and does not listen there."""
    number = domain.free_domain()
    environment = {**os.environ, **domain.isolated_environment(number)}
    done = subprocess.run([sys.executable, "-c", PORTS], env=environment, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    first = 7400 + 250 * number
    addresses = [line.split(":") for line in done.stdout.split()]
    listening = [address for address, port in addresses if first <= int(port, 16) < first + 250]
    assert listening and set(listening) == {"0100007F"}


def test_a_domain_with_a_participant_is_not_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(domain, "DOMAINS", [domain.free_domain()])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as participant:
        participant.bind(("127.0.0.1", 7410 + 250 * domain.DOMAINS[0]))
        with pytest.raises(RuntimeError, match="no free DDS domain"):
            domain.free_domain()
    assert domain.free_domain() == domain.DOMAINS[0]
