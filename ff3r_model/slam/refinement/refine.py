"""Refinement of predictions, by what the configuration chooses: tracks, optical flow, or nothing."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from ff3r_model.core.config_file import ConfigError
from ff3r_model.core.types import Prediction, Window
from ff3r_model.slam.refinement.optical_flow import RefineConfig, refine_prediction
from ff3r_model.slam.refinement.track_refinement import Depth, TrackConfig, TrackRefinement

Refine = Literal["auto", "tracks", "flow", "off"]


class Refinement:
    """Refines one window after the other, of one run. `auto`, which a checkpoint would settle, is off."""

    def __init__(
        self, refine: Refine, tracks: TrackConfig, flow: RefineConfig, depth: Depth = "bent", max_pose_error: float = 15
    ) -> None:
        """Raises ConfigError for a depth that these cameras cannot serve."""
        if depth == "dense" and refine != "tracks":
            raise ConfigError(
                f"depth = dense needs cameras by tracks, not refine = {refine}: give refine tracks, or depth bent"
            )
        self.refine, self.flow = refine, flow
        self.tracks = TrackRefinement(tracks, flow, depth, max_pose_error)

    def __call__(self, prediction: Prediction, window: Window) -> Prediction:
        """The prediction with cameras that fit the pictures, and depth that fits the cameras."""
        if self.refine == "tracks":
            return self.tracks(prediction, window)
        if self.refine == "flow":
            return refine_prediction(prediction, window, self.flow)
        return prediction

    def reset(self) -> None:
        """Forget the camera and all keyframes."""
        self.tracks.reset()


def settle(refine: Refine, tracks: TrackConfig, poor_poses: bool) -> tuple[Refine, TrackConfig]:
    """What `auto` means for a network: tracks, and in their gaps flow where its own poses are poor."""
    if refine != "auto":
        return refine, tracks
    return "tracks", tracks if poor_poses else replace(tracks, gaps="network")
