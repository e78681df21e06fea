"""Everything with weights: one set of classes, two presets, `FF3RConfig.nano()` and `FF3RConfig.full()`."""

from ff3r_model.network.config import FF3RConfig
from ff3r_model.network.frame_features import FrameFeatures
from ff3r_model.network.model import FF3R, NetworkOutput, RawGaussians

__all__ = ["FF3R", "FF3RConfig", "FrameFeatures", "NetworkOutput", "RawGaussians"]
