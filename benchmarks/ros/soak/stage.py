"""The processes of the soak: camera, perception node and viewer, which can be paused and started again."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from benchmarks.ros.soak.process_table import Usage, usage
from ff3r_ros.demo.processes import GRACE, Child, stop_all

MODULES = {"camera": "ff3r_ros.camera.node", "viewer": "ff3r_ros.viewer.node", "perception": "ff3r_ros.perception.node"}
VOXEL_SIZE = 0.1
"""Metres, in the synthetic rooms: nano's depth is no finer."""


class Stage:
    """Starts all three; their logs lie in `folder`."""

    def __init__(self, folder: Path, rate: float, map_megabytes: int) -> None:
        self.folder, self.map_file = folder, folder / "map.ff3r.safetensors"
        self._rate, self._bytes, self.seed = rate, map_megabytes * 2**20, 0
        self.children: dict[str, Child] = {}
        self.starts = dict.fromkeys(MODULES, 0)
        for name in MODULES:
            self.start(name)

    def start(self, name: str) -> None:
        """Each start of the camera plays another room."""
        self.starts[name] += 1
        self.seed += name == "camera"
        given = {
            "camera": {"seed": self.seed, "rate": self._rate},
            "viewer": {"port": 0},
            "perception": {"voxel_size": VOXEL_SIZE, "max_map_bytes": self._bytes, "map_file": self.map_file},
        }[name]
        words = [word for key, value in given.items() for word in ("-p", f"{key}:={value}")]
        log = self.folder / f"{name}_{self.starts[name]}.log"
        self.children[name] = Child(name, MODULES[name], ["--ros-args", *words], log, os.environ)

    def restart(self, name: str) -> None:
        """As Ctrl-C and a new start."""
        child = self.children[name]
        child.interrupt()
        child.finish(time.monotonic() + GRACE)
        self.start(name)

    def pause(self, name: str, seconds: float) -> None:
        """Stop a process and let it go on: to others it is silent."""
        os.kill(self.children[name].pid, signal.SIGSTOP)
        try:
            time.sleep(seconds)
        finally:
            os.kill(self.children[name].pid, signal.SIGCONT)

    def check(self) -> None:
        """Raises ChildDied for a process that ended by itself."""
        for child in list(self.children.values()):
            child.check()

    def usage(self) -> dict[str, Usage]:
        """What each process holds; those that are just being started again are left out."""
        found = {name: usage(child.pid) for name, child in list(self.children.items())}
        return {name: held for name, held in found.items() if held is not None}

    def stop(self) -> None:
        """End all."""
        stop_all(list(self.children.values()))
