"""Intrinsics that a user states (numbers, a calibration file, a field of view) or that a photo's EXIF data tell."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
import yaml
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from ff3r_model.core.types import Frame
from ff3r_model.frames.calibration import Calibration, CalibrationRejected, calibration_from_info
from ff3r_model.frames.source import FrameSource, SourceError

FULL_FRAME_DIAGONAL = math.hypot(36.0, 24.0)
"""Millimetres of the film to which "35 mm equivalent" focal lengths refer."""
FOV_RANGE = (5.0, 170.0)
"""Degrees; a pinhole camera sees no 180."""
MILLIMETRES = {2: 25.4, 3: 10.0, 4: 1.0, 5: 1e-3}
"""Per unit of EXIF's FocalPlaneResolutionUnit: inch, centimetre, millimetre, micrometre."""


class IntrinsicsError(SourceError):
    """Intrinsics that no camera has, or that belong to images of another size."""


@dataclass(frozen=True)
class StatedCamera:
    """One camera's intrinsics as a user states them: a matrix, a field of view, or a calibration."""

    matrix: Float[Tensor, "3 3"] | None = None
    """In pixels of the images as they are recorded."""
    fov: float | None = None
    """Horizontal, degrees."""
    calibration: Calibration | None = None
    """With the size of its images, and their distortion, which is undone."""

    def of(self, frame: Frame) -> Frame:
        """The frame with these intrinsics. Raises IntrinsicsError where they cannot be of its image."""
        height, width = frame.image.shape[:2]
        if self.calibration is not None:
            if reason := self.calibration.mismatch(frame):
                raise IntrinsicsError(reason.replace("camera_info", "the calibration file"))
            return self.calibration.apply(frame)
        if self.fov is not None:
            return replace(frame, intrinsics=pinhole_of_fov(self.fov, width, height))
        assert self.matrix is not None
        center = self.matrix[:2, 2].tolist()
        if not (0 < center[0] < width and 0 < center[1] < height):
            raise IntrinsicsError(
                f"the principal point ({center[0]:g}, {center[1]:g}) lies outside images of {width}x{height} pixels: "
                "intrinsics are in pixels of the images as they are recorded"
            )
        return replace(frame, intrinsics=self.matrix)

    def __str__(self) -> str:
        if self.fov is not None:
            return f"{self.fov:g}° from left to right"
        matrix = self.matrix if self.calibration is None else self.calibration.intrinsics
        if matrix is None:
            return "a calibration without intrinsics"
        return "fx {:.1f}, fy {:.1f}, cx {:.1f}, cy {:.1f}".format(*matrix[(0, 1, 0, 1), (0, 1, 2, 2)].tolist())


class StatedSource:
    """A source whose frames get the intrinsics that a user states, in place of any they have."""

    def __init__(self, source: FrameSource, camera: StatedCamera) -> None:
        self._source, self.camera = source, camera
        self.name, self.fps, self.count = source.name, source.fps, source.count

    def __iter__(self) -> Iterator[Frame]:
        return (self.camera.of(frame) for frame in self._source)


def stated_camera(intrinsics: str | None, fov: float | None) -> StatedCamera | None:
    """The camera that options name: "fx,fy,cx,cy", a file of numbers or a calibration, or a field of view in degrees.

    A file holds fx fy cx cy, a 3×3 matrix, or what ROS's camera_calibration writes (YAML). Raises IntrinsicsError.
    """
    if intrinsics is not None and fov is not None:
        raise IntrinsicsError("--intrinsics and --fov say the same thing: give one of them")
    if fov is not None:
        if not FOV_RANGE[0] <= fov <= FOV_RANGE[1]:
            raise IntrinsicsError(f"--fov must be {FOV_RANGE[0]:g} to {FOV_RANGE[1]:g} degrees, not {fov:g}")
        return StatedCamera(fov=fov)
    if intrinsics is None:
        return None
    path = Path(intrinsics).expanduser()
    if not path.is_file():
        if re.search(r"[^\d\s.,eE+-]", intrinsics):
            raise IntrinsicsError(f"--intrinsics: {intrinsics} is neither a file nor fx,fy,cx,cy")
        return StatedCamera(matrix=_matrix(intrinsics, "--intrinsics"))
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise IntrinsicsError(f"{path} cannot be read: {error}") from error
    if "camera_matrix" in text:
        return StatedCamera(calibration=_calibration(text, path))
    return StatedCamera(matrix=_matrix(text, str(path)))


def pinhole_of_fov(fov: float, width: int, height: int) -> Float[Tensor, "3 3"]:
    """The camera matrix of square pixels and a centred principal point that sees `fov` degrees from left to right."""
    focal = width / 2 / math.tan(math.radians(fov) / 2)
    return torch.tensor([[focal, 0.0, width / 2], [0.0, focal, height / 2], [0.0, 0.0, 1.0]])


def exif_intrinsics(picture: Image.Image) -> Float[Tensor, "3 3"] | None:
    """The camera matrix, in pixels of the upright picture, that a photo's EXIF data tell; None where they do not.

    From the focal length and the sensor's pixels, else from the 35 mm equivalent (of the diagonal, a few per cent
    off). Nothing is told of a picture that was cropped since.
    """
    exif = picture.getexif()
    lens: dict[int, Any] = exif.get_ifd(0x8769)
    width, height = picture.size
    taken = (_number(lens.get(40962)), _number(lens.get(40963)))
    if all(taken) and abs(taken[0] / taken[1] / (width / height) - 1) > 0.02:
        return None
    focal = _focal_of_sensor(lens, width, taken[0]) or _number(lens.get(41989)) / FULL_FRAME_DIAGONAL * math.hypot(
        width, height
    )
    if not 0.2 * max(width, height) < focal < 20 * max(width, height):
        return None
    if exif.get(274, 1) >= 5:  # the sensor lay on its side
        width, height = height, width
    return torch.tensor([[focal, 0.0, width / 2], [0.0, focal, height / 2], [0.0, 0.0, 1.0]])


def _focal_of_sensor(lens: dict[int, Any], width: int, taken: float) -> float:
    """Focal length in pixels from FocalLength and FocalPlaneXResolution; 0 where they are not given."""
    millimetres, per_unit = _number(lens.get(37386)), _number(lens.get(41486))
    unit = MILLIMETRES.get(int(_number(lens.get(41488))), 0.0)
    if not (millimetres and per_unit and unit and taken):
        return 0.0
    return millimetres * per_unit / unit * width / taken


def _number(value: Any) -> float:
    """A value of EXIF as a number; 0 for what is none."""
    try:
        number = float(value)
    except (TypeError, ValueError, ZeroDivisionError):
        return 0.0
    return number if math.isfinite(number) and number > 0 else 0.0


def _matrix(text: str, where: str) -> Float[Tensor, "3 3"]:
    """From fx, fy, cx, cy or the nine numbers of a camera matrix."""
    lines = (line.partition("#")[0] for line in text.splitlines())
    words = re.split(r"[\s,;]+", " ".join(lines).strip())
    try:
        values = [float(word) for word in words]
    except ValueError:
        raise IntrinsicsError(
            f"{where}: {words[0]!r} … are no numbers: fx,fy,cx,cy or a 3×3 matrix is needed"
        ) from None
    if len(values) == 4:
        values = [values[0], 0, values[2], 0, values[1], values[3], 0, 0, 1]
    if len(values) != 9:
        raise IntrinsicsError(f"{where} holds {len(values)} numbers; fx,fy,cx,cy or a 3×3 matrix is needed")
    matrix = torch.tensor(values, dtype=torch.float64).view(3, 3)
    if not bool(matrix.isfinite().all()) or min(values[0], values[4]) <= 0 or values[6:] != [0, 0, 1]:
        raise IntrinsicsError(f"{where} is no camera matrix: {values}")
    return matrix.float()


def _calibration(text: str, path: Path) -> Calibration:
    """Of a file in the format of ROS's camera_calibration."""
    try:
        told = yaml.safe_load(text)
        names = ("camera_matrix", "distortion_coefficients", "projection_matrix")
        k, d, p = (told[name]["data"] if name in told else [0.0] * 12 for name in names)
        info = SimpleNamespace(
            width=int(told["image_width"]),
            height=int(told["image_height"]),
            distortion_model=told.get("distortion_model", "plumb_bob"),
            k=k,
            d=d,
            p=p,
            binning_x=0,
            binning_y=0,
            roi=SimpleNamespace(x_offset=0, y_offset=0, width=0, height=0),
        )
        calibration = calibration_from_info(info)
    except (yaml.YAMLError, KeyError, TypeError, ValueError, CalibrationRejected) as error:
        raise IntrinsicsError(f"{path} is no calibration of a camera: {type(error).__name__} {error}") from error
    if calibration is None or calibration.intrinsics is None:
        raise IntrinsicsError(f"{path}: {'its camera matrix is zero' if calibration is None else calibration.warning}")
    return calibration
