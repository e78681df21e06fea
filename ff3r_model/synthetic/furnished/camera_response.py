"""What cameras do to a picture: exposure, colour cast, vignetting, blur by motion, noise, JPEG."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float, UInt8
from numpy import ndarray


@dataclass(frozen=True)
class CameraResponse:
    """One camera's habits, the same for all its pictures but for what `record` draws anew."""

    gains: Float[ndarray, " 3"]
    """Of red, green and blue, on linear radiance."""
    gamma: float
    vignette: float
    """Share of the light that is lost in the corners."""
    noise: float
    """Standard deviation at middle grey, of 1."""
    blur: float
    """Largest blur by motion, pixels per 100 pixels of width."""
    quality: int
    """Of JPEG; 100 leaves it out."""
    drift: float
    """Standard deviation of the exposure's logarithm from picture to picture."""

    @staticmethod
    def draw(rng: np.random.Generator) -> CameraResponse:
        """A camera: most are good, some are not."""
        return CameraResponse(
            gains=np.exp(rng.normal(0, 0.08, 3)) * np.exp(rng.normal(0, 0.25)),
            gamma=float(rng.uniform(1.8, 2.6)),
            vignette=float(rng.uniform(0, 0.35)),
            noise=float(rng.choice([0.003, 0.01, 0.03], p=[0.4, 0.4, 0.2])),
            blur=float(rng.choice([0.0, 0.7, 1.5], p=[0.5, 0.35, 0.15])),
            quality=int(rng.choice([100, 90, 70, 50], p=[0.3, 0.3, 0.3, 0.1])),
            drift=float(rng.uniform(0, 0.12)),
        )

    def record(self, radiance: Float[ndarray, "h w 3"], rng: np.random.Generator) -> UInt8[ndarray, "h w 3"]:
        """The picture of linear radiance that is exposed already."""
        height, width = radiance.shape[:2]
        light = radiance * self.gains * np.exp(rng.normal(0, self.drift))
        # Fewer photons reach the corners.
        rows, columns = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
        light = light * (1 - self.vignette * (rows**2 + columns**2)[..., None] / 2)
        light = self._moved(light, rng)
        # Photon noise grows with the root of the light, the amplifier's does not.
        spread = self.noise * np.sqrt(np.clip(light, 0.02, None) / 0.2)
        light = light + rng.normal(0, 1, light.shape) * spread
        picture = (255 * np.clip(light, 0, 1) ** (1 / self.gamma)).round().astype(np.uint8)
        if self.quality == 100:
            return picture
        _, coded = cv2.imencode(".jpg", picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, self.quality])
        decoded = cv2.imdecode(coded, cv2.IMREAD_COLOR)
        assert decoded is not None
        return decoded[..., ::-1].astype(np.uint8)

    def _moved(self, light: Float[ndarray, "h w 3"], rng: np.random.Generator) -> Float[ndarray, "h w 3"]:
        """Blurred along a line of random length and direction."""
        length = rng.uniform(0, self.blur) * light.shape[1] / 100
        if length < 0.5:
            return light
        side, angle = 2 * int(np.ceil(length)) + 1, rng.uniform(0, np.pi)
        kernel = np.zeros((side, side), np.float32)
        reach = np.array([np.cos(angle), np.sin(angle)]) * length / 2 * 16
        middle = np.array([side // 2, side // 2]) * 16
        ends = [tuple(int(x) for x in middle + sign * reach) for sign in (-1, 1)]
        cv2.line(kernel, ends[0], ends[1], 1.0, 1, cv2.LINE_AA, shift=4)
        return cv2.filter2D(light, -1, kernel / kernel.sum(), borderType=cv2.BORDER_REFLECT)
