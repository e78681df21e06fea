"""Known cameras (odometry and calibration) of a window: what the network reads, and the scale to come back by."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ff3r_model.core.geometry import anchored, apply_similarity, invert_rigid, umeyama
from ff3r_model.core.types import Cameras
from ff3r_model.network.pose_encoding import encode_cameras

LEAST_DISTANCE = 0.1
"""That translations are divided by, in the known unit."""
RANSAC_FROM = 10
"""Views from which on outliers among the poses are looked for."""
RANSAC_TRIALS = 10


def encode_known(cameras: Cameras, height: int, width: int) -> Float[Tensor, "views 9"]:
    """Pose encodings as Depth Anything 3 was trained to read them; images have `height` × `width` pixels."""
    return encode_cameras(normalised(cameras.camera_from_world), cameras.intrinsics, height, width)


def normalised(camera_from_world: Float[Tensor, "views 4 4"]) -> Float[Tensor, "views 4 4"]:
    """Relative to the first camera, translations divided by the median distance of all cameras from it.

    The first one's 0 counts, and of an even number the lower one of the two in the middle, as published: with two
    views translations grow tenfold.
    """
    relative = anchored(camera_from_world)
    distance = invert_rigid(relative)[:, :3, 3].norm(dim=-1).median().clamp_min(LEAST_DISTANCE)
    relative[:, :3, 3] /= distance
    return relative


def scale_from_known(
    predicted_from_world: Float[Tensor, "views 4 4"], known_from_world: Float[Tensor, "views 4 4"]
) -> float:
    """How long the known unit is in the prediction's: what its depth is divided by.

    The similarity of least squares between the cameras' centres (Umeyama 1991); from ten views on of the largest set
    that agrees (RANSAC). 0 where the centres tell nothing.
    """
    known, predicted = (
        invert_rigid(each.double().cpu())[:, :3, 3] for each in (known_from_world, predicted_from_world)
    )
    if len(known) >= RANSAC_FROM:
        inliers = _agreeing(known, predicted)
        known, predicted = known[inliers], predicted[inliers]
    return umeyama(known, predicted).scale


def _agreeing(known: Float[Tensor, "n 3"], predicted: Float[Tensor, "n 3"]) -> Bool[Tensor, " n"]:
    """The largest set of centres that one similarity explains, of trials on half of them each."""
    # What agrees: nearer than half of all centres are, after a fit of all, to whichever is next to them.
    fitted = apply_similarity(umeyama(known, predicted), known)
    limit = torch.cdist(fitted, predicted).amin(dim=1).median()
    generator = torch.Generator().manual_seed(0)
    best = torch.ones(len(known), dtype=torch.bool)
    most = (0, -torch.inf)
    for _ in range(RANSAC_TRIALS):
        sample = torch.randperm(len(known), generator=generator)[: (len(known) + 1) // 2]
        errors = (apply_similarity(umeyama(known[sample], predicted[sample]), known) - predicted).norm(dim=1)
        inliers = errors <= limit
        found = (int(inliers.sum()), -float(errors[inliers].mean()) if inliers.any() else -torch.inf)
        if found > most and found[0] >= 3:
            best, most = inliers, found
    return best
