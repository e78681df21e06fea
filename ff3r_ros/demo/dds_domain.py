"""A DDS domain of the demo's own, which does not leave this machine."""

from __future__ import annotations

import os
import random
import socket
from pathlib import Path

DOMAINS = range(1, 102)
"""DDS domains whose ports lie below those that Linux hands out by itself."""


def isolated_environment(domain: int) -> dict[str, str]:
    """Variables that keep DDS on this machine, its ports included, and in one domain, and let it carry large clouds."""
    variables = {"ROS_DOMAIN_ID": str(domain), "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST"}
    profiles = _config_file("fastdds_localhost.xml")
    if profiles is not None:
        old = os.environ.get("ROS_DISTRO") in ("humble", "jazzy")  # Fast DDS 2; later ones warn about the old name
        variables["FASTRTPS_DEFAULT_PROFILES_FILE" if old else "FASTDDS_DEFAULT_PROFILES_FILE"] = str(profiles)
    return variables


def free_domain() -> int:
    """A domain in which no participant on this machine listens."""
    for domain in random.SystemRandom().sample(DOMAINS, len(DOMAINS)):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            try:
                probe.bind(("", 7410 + 250 * domain))  # where a domain's first participant listens
                return domain
            except OSError:
                continue
    raise RuntimeError("no free DDS domain on this machine")


def _config_file(name: str) -> Path | None:
    """A file of `config/`: beside the package in a checkout, else in the installed share folder."""
    beside = Path(__file__).resolve().parents[2] / "config" / name
    if beside.exists():
        return beside
    from ament_index_python.packages import PackageNotFoundError, get_package_share_directory

    try:
        installed = Path(get_package_share_directory("ff3r_ros")) / "config" / name
    except PackageNotFoundError:
        return None
    return installed if installed.exists() else None
