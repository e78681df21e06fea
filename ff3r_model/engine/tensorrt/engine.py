"""TensorRT engine: the network as two plans, one for each view alone, cached per keyframe, one for the window."""

from __future__ import annotations

import gc
import logging
from collections import deque
from collections.abc import Collection
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from ff3r_model.core.types import MAX_VIEWS, MIN_VIEWS, Prediction, Window
from ff3r_model.engine.device import SideStream, free_cached_memory
from ff3r_model.engine.frame_cache import CacheConfig, FrameCache
from ff3r_model.engine.onnx.export import CONFIDENCE, DEPTH, DESCRIPTORS, GAUSSIANS, IMAGES, POSES
from ff3r_model.engine.onnx.manifest import FRAMES, WINDOW
from ff3r_model.engine.tensorrt.library import TensorRTLibrary
from ff3r_model.engine.tensorrt.plan_cache import CachedPlan
from ff3r_model.engine.tensorrt.plan_runner import PlanRunner
from ff3r_model.network import FF3RConfig
from ff3r_model.network.decode import predict
from ff3r_model.network.frame_features import FrameFeatures
from ff3r_model.network.gaussian_head import split
from ff3r_model.network.model import NetworkOutput

log = logging.getLogger(__name__)

STEP_DOWN = 8
"""After running out of memory, windows get smaller by one part in so many, until one fits."""


class TensorRTEngine:
    """Runs a plan. A window that does not fit into memory is cut to the largest that does; so are all after it."""

    def __init__(
        self,
        plan: CachedPlan,
        library: TensorRTLibrary,
        config: FF3RConfig,
        device: torch.device,
        *,
        cache: CacheConfig | None = None,
    ) -> None:
        """`config` is of the network that was exported. Raises BadPlan for a plan that TensorRT does not take here."""
        self.config, self.device = config, device
        if config.takes_known_cameras:
            log.info("plans are not told the poses and intrinsics of odometry and calibration; engine torch is")
        self.size = (plan.manifest.height, plan.manifest.width)
        self.cache = FrameCache(cache)
        self.limit: int | None = None
        """Views that fit into memory, once more did not."""
        self.dropped = 0
        """Views that were cut from windows since."""
        self._stream = SideStream(device)
        self._frames = PlanRunner(library, plan.path(FRAMES), self._stream)
        self._window = PlanRunner(library, plan.path(WINDOW), self._stream)
        self._known: deque[int] = deque(maxlen=4 * MAX_VIEWS)

    @torch.inference_mode()
    def __call__(self, window: Window) -> Prediction:
        """The prediction for `window`, or for a part of it where memory is short: then its `keyframes` name the views.

        Raises ValueError for images of another size than the plan's, TensorRTError where TensorRT fails.
        """
        if window.images.shape[-2:] != self.size:
            given = "×".join(map(str, window.images.shape[-2:]))
            raise ValueError(f"the plan takes images of {self.size[0]}×{self.size[1]}, not {given}")
        with self._stream.entered():
            return self._largest(window)

    def forget(self) -> None:
        """Begin anew: nothing is left of windows seen so far but what TensorRT has loaded."""
        self._tidy()
        self.cache = FrameCache(self.cache.config)
        self._known.clear()
        self.limit, self.dropped = None, 0

    def _largest(self, window: Window) -> Prediction:
        """As much of the window as memory takes."""
        tidy = False
        while True:
            part = window if self.limit is None else newest(window, self.limit, self._known)
            try:
                prediction = self._predict(part)
            except torch.OutOfMemoryError:
                if tidy and len(part.keyframes) <= MIN_VIEWS:
                    raise
                if tidy:
                    self._cut(len(part.keyframes))
                tidy = True
                self._tidy()
                continue
            self.dropped += len(window.keyframes) - len(part.keyframes)
            self._known.extend(part.keyframes)
            return prediction if part is window else replace(prediction, keyframes=part.keyframes)

    def _tidy(self) -> None:
        """Give back the memory of what can be made again."""
        self._frames.forget_graphs()
        self._window.forget_graphs()
        self.cache.clear()
        gc.collect()
        free_cached_memory()

    def _cut(self, views: int) -> None:
        """Make windows smaller than `views`, which did not fit."""
        self.limit = max(MIN_VIEWS, views - max(1, views // STEP_DOWN))
        log.warning("out of memory with %d views: windows are cut to %d from now on", views, self.limit)

    def _predict(self, window: Window) -> Prediction:
        images = window.images.to(self.device, non_blocking=True)
        frames = self.cache.features(window, images, self._encode)
        tensors = {name: tensor[0] for name, tensor in frames.tensors().items()}
        output = self._output(self._window({IMAGES: images, **tensors}), frames)
        known = None if window.intrinsics is None else window.intrinsics.to(self.device)
        return predict(output, intrinsics=known, images=images)

    def _encode(self, images: Float[Tensor, "1 views 3 h w"]) -> FrameFeatures:
        outputs = self._frames({IMAGES: images[0]})
        return FrameFeatures(**{name: tensor[None] for name, tensor in outputs.items()})

    def _output(self, tensors: dict[str, Tensor], frames: FrameFeatures) -> NetworkOutput:
        """In the network's own form. The plans reuse their memory, so what a prediction keeps as it is, is copied."""
        decodes = self.config.decode_gaussians
        return NetworkOutput(
            pose_encodings=tensors[POSES][None, None],
            depth=tensors[DEPTH][None].clone(),
            depth_confidence=tensors[CONFIDENCE][None].clone(),
            gaussians=split(tensors[GAUSSIANS][None].float(), self.config) if decodes else None,
            semantics=None,
            lifted=None if decodes else frames.semantic_maps,
            tokens=tensors[DESCRIPTORS][None, :, None],  # one token: the mean that `predict` takes of all
        )


def newest(window: Window, views: int, known: Collection[int]) -> Window:
    """At most `views` of a window: the newest, of which about half are `known` from windows before.

    The known ones tie windows together; the newest of them stay.
    """
    count = len(window.keyframes)
    if count <= views:
        return window
    old = [index for index in range(count) if window.keyframes[index] in known]
    new = [index for index in range(count) if window.keyframes[index] not in known]
    shared = old[len(old) - min(len(old), max(views // 2, views - len(new))) :]
    return window.select([*shared, *new[len(new) - (views - len(shared)) :]])
