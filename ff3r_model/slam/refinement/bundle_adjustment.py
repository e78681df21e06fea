"""Bundle adjustment of one window: poses, one focal length and each view's depth scale, from matches between its views.

The depth is the network's, so it is uncertain. An error of it moves a match along its epipolar line and nowhere else:
each residual is therefore split into the part along that line, which depth may explain, and the part across it, which
only the cameras can.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ff3r_model.core.geometry import invert_rigid, skew
from ff3r_model.core.ranges import AT_LEAST_ONE, POSITIVE, check_range
from ff3r_model.core.types import Cameras

DEPTH = 12
"""The column of the source's depth scale, which is also that of the match's own depth."""
FARTHEST_FOCAL = 2.0
"""Standard deviations of its prior within which the focal length stays."""
FIXED = 1e12
"""Weight of the prior on what must not move."""
CLOSEST = 1e-3
"""Points nearer to a camera than this, in window units, do not count."""


@dataclass(frozen=True)
class BundleConfig:
    """Noise and priors; chosen on rooms that are neither training nor held out."""

    iterations: int = 14
    pixel_noise: float = 0.4
    """Standard deviation of a match, pixels."""
    depth_noise: float = 0.2
    """Of a pixel's depth, relative."""
    max_depth_change: float = 0.15
    """How far a match may think its depth from the network's, in log: a wrong match would explain itself by depth."""
    scale_prior: float = 0.15
    """Of a view's depth scale, relative to the network's."""
    focal_prior: float = 0.3
    """Of the focal length, relative to the network's, where it is not known."""
    rotation_prior: float = 0.25
    """Of a rotation, radians about the network's. Holds views without matches."""
    translation_prior: float = 0.3
    """Of a translation, window units about the network's."""
    robust: float = 1.5
    """Standard deviations beyond which a match counts less and less."""

    def __post_init__(self) -> None:
        check_range(self, AT_LEAST_ONE, "iterations")
        check_range(
            self, POSITIVE,
            "pixel_noise", "depth_noise", "max_depth_change", "scale_prior", "focal_prior", "rotation_prior",
            "translation_prior", "robust",
        )  # fmt: skip


@dataclass(frozen=True)
class Matches:
    """Pixels of one view found in another, for several ordered pairs of views. Padded to one length."""

    source: Int[Tensor, " pairs"]
    target: Int[Tensor, " pairs"]
    pixels: Float[Tensor, "pairs points 2"]
    """(u, v) in the source."""
    observed: Float[Tensor, "pairs points 2"]
    """(u, v) in the target."""
    depth: Float[Tensor, "pairs points"]
    """The source's, at `pixels`."""
    valid: Float[Tensor, "pairs points"]
    """1, or 0 for padding."""


@dataclass(frozen=True)
class Adjusted:
    """Cameras that agree with the matches, and the factor by which each view's depth does."""

    cameras: Cameras
    depth_scale: Float[Tensor, " views"]


@dataclass(frozen=True)
class _State:
    camera_from_world: Float[Tensor, "views 4 4"]
    log_scale: Float[Tensor, " views"]
    log_focal: Float[Tensor, ""]
    log_depth: Float[Tensor, "pairs points"]
    """What each match's depth is thought to be, relative to the network's. Without it translations come out short:
    a point that is thought too near would be believed to move more than it does."""


def adjust(
    matches: Matches,
    cameras: Cameras,
    config: BundleConfig | None = None,
    known_intrinsics: bool = False,
    held: Bool[Tensor, " views"] | None = None,
) -> Adjusted:
    """Bundle adjustment by Gauss–Newton with robust weights, in float64; the first camera stays, or those `held`.

    Where a camera is held, so is its depth scale; the first alone leaves its own free.
    Without matches the cameras come back as they are, up to rounding.
    """
    config = config or BundleConfig()
    views = len(cameras.camera_from_world)
    start = cameras.camera_from_world.double()
    intrinsics = cameras.intrinsics.double()
    state = _State(start, start.new_zeros(views), start.new_zeros(()), torch.zeros_like(matches.depth))
    prior = _prior(views, config, known_intrinsics, held).to(start)
    for _ in range(config.iterations):
        # How far each match is missed, seen from the network's depth, and how that follows the unknowns.
        residual, jacobian = _linearise(state, matches, intrinsics)
        residual = residual + jacobian[..., DEPTH] * state.log_depth[..., None]
        # Rows of unit variance; those that depth may explain count for little.
        rows, right = _whitened(residual, jacobian, matches.valid, config)
        # Normal equations with the priors, which hold what no match sees and what must not move.
        hessian, gradient = _scattered(rows.mT @ rows, (rows.mT @ right[..., None])[..., 0], matches, views)
        step = torch.linalg.solve(hessian + prior.diag(), gradient - prior * _moved(state, start))
        step = step * (prior < FIXED)
        step[-1] = _within(step[-1], state.log_focal, FARTHEST_FOCAL * config.focal_prior)
        # What the cameras leave over moves each match's depth, within its noise.
        left = residual - (jacobian @ _gathered(step, matches, views)[:, None, :, None])[..., 0]
        state = _stepped(state, step, _explained(left, jacobian[..., DEPTH], config))
        if float(step.abs().max()) < 1e-4:
            break
    # Depth scales and the focal length back from their logarithms.
    scaled = intrinsics.clone()
    scaled[:, :2, :2] *= state.log_focal.exp()
    adjusted = Cameras(state.camera_from_world.to(cameras.camera_from_world), scaled.to(cameras.intrinsics))
    return Adjusted(adjusted, state.log_scale.exp().to(cameras.intrinsics))


def _linearise(
    state: _State, matches: Matches, intrinsics: Float[Tensor, "views 3 3"]
) -> tuple[Float[Tensor, "pairs points 2"], Float[Tensor, "pairs points 2 14"]]:
    """What the cameras miss each match by, and how its projection follows the unknowns.

    Unknowns that a match depends on are 14: six of either camera, its source's depth scale, the focal length.
    A camera is moved by exp(ξ) on its left, ξ = (translation, rotation).
    """
    source, target = matches.source, matches.target
    # Each match's point in the source's camera.
    focal = torch.stack([intrinsics[:, 0, 0], intrinsics[:, 1, 1]], dim=-1) * state.log_focal.exp()
    centre = intrinsics[:, :2, 2]
    rays = (matches.pixels - centre[source, None]) / focal[source, None]
    depth = matches.depth * (state.log_scale[source, None] + state.log_depth).exp()
    here = torch.cat([rays, torch.ones_like(rays[..., :1])], dim=-1) * depth[..., None]
    # The same in the target's camera, and its pixel there relative to the image's centre.
    relative = state.camera_from_world[target] @ invert_rigid(state.camera_from_world[source])
    rotation = relative[:, None, :3, :3]
    there = (rotation @ here[..., None])[..., 0] + relative[:, None, :3, 3]
    z = there[..., 2:].clamp(min=CLOSEST)
    across = there[..., :2] / z * focal[target, None]
    # Derivatives by the chain rule: by the point, then by what moves it.
    by_point = torch.cat([torch.diag_embed(focal[target, None] / z), -(across / z)[..., None]], dim=-1)
    turned = by_point @ rotation
    by_depth = turned @ here[..., None]
    by_focal = across[..., None] - turned[..., :2] @ here[..., :2, None]
    by_target = torch.cat([by_point, -by_point @ skew(there)], dim=-1)
    by_source = torch.cat([-turned, turned @ skew(here)], dim=-1)
    residual = matches.observed - across - centre[target, None]
    return residual, torch.cat([by_source, by_target, by_depth, by_focal], dim=-1)


def _whitened(
    residual: Float[Tensor, "pairs points 2"],
    jacobian: Float[Tensor, "pairs points 2 14"],
    valid: Float[Tensor, "pairs points"],
    config: BundleConfig,
) -> tuple[Float[Tensor, "pairs rows 14"], Float[Tensor, "pairs rows"]]:
    """Rows of unit variance: along the epipolar line, where depth errors show, and across it."""
    by_depth = jacobian[..., DEPTH]
    length = by_depth.norm(dim=-1)
    line = torch.where(
        length[..., None] > 1e-9, by_depth / length[..., None].clamp(min=1e-9), torch.eye(2).to(length)[0]
    )
    basis = torch.stack([line, torch.stack([-line[..., 1], line[..., 0]], dim=-1)], dim=-2)
    noise = config.pixel_noise
    along = (noise**2 + (config.depth_noise * length) ** 2).sqrt()
    deviation = torch.stack([along, torch.full_like(along, noise)], dim=-1)
    error = (basis @ residual[..., None])[..., 0] / deviation
    weight = (valid * _robust(error.norm(dim=-1) / config.robust)).sqrt()[..., None]
    rows = (basis @ jacobian) * (weight / deviation)[..., None]
    return rows.flatten(1, 2), (error * weight).flatten(1, 2)


def _robust(error: Float[Tensor, "pairs points"]) -> Float[Tensor, "pairs points"]:
    """Huber's weight times a Cauchy tail: wrong matches are common, and far off."""
    return 1 / error.clamp(min=1) / (1 + (error / 4) ** 2)


def _scattered(
    blocks: Float[Tensor, "pairs 14 14"], vectors: Float[Tensor, "pairs 14"], matches: Matches, views: int
) -> tuple[Float[Tensor, "n n"], Float[Tensor, " n"]]:
    """Normal equations of all unknowns from those of the pairs: 6 per camera, 1 per depth, 1 focal length."""
    index, size = _places(matches, views), 7 * views + 1
    hessian = blocks.new_zeros(size * size)
    hessian.index_add_(0, (index[:, :, None] * size + index[:, None]).flatten(), blocks.flatten())
    gradient = blocks.new_zeros(size).index_add_(0, index.flatten(), vectors.flatten())
    return hessian.view(size, size), gradient


def _gathered(step: Float[Tensor, " n"], matches: Matches, views: int) -> Float[Tensor, "pairs 14"]:
    """Each pair's own unknowns out of all."""
    return step[_places(matches, views)]


def _places(matches: Matches, views: int) -> Int[Tensor, "pairs 14"]:
    """Where the unknowns of a pair stand among all."""
    six = torch.arange(6, device=matches.source.device)
    source, target = matches.source[:, None], matches.target[:, None]
    return torch.cat([6 * source + six, 6 * target + six, 6 * views + source, 0 * source + 7 * views], dim=1)


def _within(step: Float[Tensor, ""], value: Float[Tensor, ""], limit: float) -> Float[Tensor, ""]:
    """A step that leaves a value within ± limit: where nothing observes the focal length it must not run away."""
    return (value + step).clamp(-limit, limit) - value


def _explained(
    residual: Float[Tensor, "pairs points 2"], by_depth: Float[Tensor, "pairs points 2"], config: BundleConfig
) -> Float[Tensor, "pairs points"]:
    """The log depths that best explain what the cameras leave over, held to the network's by its noise."""
    prior = (config.pixel_noise / config.depth_noise) ** 2
    change = (by_depth * residual).sum(-1) / (prior + by_depth.square().sum(-1))
    return change.clamp(-config.max_depth_change, config.max_depth_change)


def _prior(
    views: int, config: BundleConfig, known_intrinsics: bool, held: Bool[Tensor, " views"] | None
) -> Float[Tensor, " n"]:
    """Inverse variances of all unknowns about the network's word."""
    pose = [config.translation_prior**-2] * 3 + [config.rotation_prior**-2] * 3
    focal = FIXED if known_intrinsics else config.focal_prior**-2
    poses = torch.tensor(pose, dtype=torch.float64).repeat(views, 1)
    scales = torch.full((views,), config.scale_prior**-2, dtype=torch.float64)
    if held is None:
        poses[0] = FIXED
    else:
        poses[held], scales[held] = FIXED, FIXED
    return torch.cat([poses.flatten(), scales, poses.new_tensor([focal])])


def _moved(state: _State, start: Float[Tensor, "views 4 4"]) -> Float[Tensor, " n"]:
    """How far the unknowns are from where they started, to first order."""
    since = state.camera_from_world @ invert_rigid(start)
    turn = torch.stack(
        [since[:, 2, 1] - since[:, 1, 2], since[:, 0, 2] - since[:, 2, 0], since[:, 1, 0] - since[:, 0, 1]], dim=-1
    )
    poses = torch.cat([since[:, :3, 3], turn / 2], dim=-1)
    return torch.cat([poses.flatten(), state.log_scale, state.log_focal[None]])


def _stepped(state: _State, step: Float[Tensor, " n"], log_depth: Float[Tensor, "pairs points"]) -> _State:
    views = len(state.log_scale)
    twist = step[: 6 * views].view(views, 6)
    generator = twist.new_zeros(views, 4, 4)
    generator[:, :3, :3], generator[:, :3, 3] = skew(twist[:, 3:]), twist[:, :3]
    return replace(
        state,
        camera_from_world=torch.linalg.matrix_exp(generator) @ state.camera_from_world,
        log_scale=state.log_scale + step[6 * views : 7 * views],
        log_focal=state.log_focal + step[-1],
        log_depth=log_depth,
    )
