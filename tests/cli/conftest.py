"""For tests of commands: a folder of images, and `ff3r` in this process."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import pytest

from ff3r_model.cli import main
from ff3r_model.synthetic import make_room, make_trajectory, pinhole, render

FRAMES = 14
"""Images of the folder."""


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Runs `ff3r` with some arguments: (exit status, stdout, stderr)."""

    def call(*arguments: object) -> tuple[int, str, str]:
        capfd.readouterr()
        status = main([str(argument) for argument in arguments])
        out, err = capfd.readouterr()
        return status, out, err

    return call


@pytest.fixture(scope="session")
def frames(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of images from a synthetic room."""
    folder = tmp_path_factory.mktemp("frames")
    room = make_room(3)
    poses = make_trajectory(room, 3, FRAMES, "robot", 0.15)
    images = render(room, poses, pinhole(84, 112).expand(FRAMES, 3, 3), 84, 112).images.numpy()
    for index, image in enumerate(images):
        cv2.imwrite(str(folder / f"{index}.png"), image[..., ::-1])
    return folder
