"""Dense depth of drawn scenes, whose depth is known exactly: planes that are textured, blank, or mirrors."""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
import pytest
import torch
from jaxtyping import Float
from numpy import ndarray

from ff3r_model.core.config_file import ConfigError
from ff3r_model.core.types import Cameras
from ff3r_model.pipeline import PipelineConfig, refinement
from ff3r_model.slam.refinement.bent_depth import MeasuredDepths, fitting_relief
from ff3r_model.slam.refinement.canvas import Canvas
from ff3r_model.slam.refinement.dense_depth import DenseDepth
from ff3r_model.slam.refinement.lens import Focal, Lens
from ff3r_model.slam.refinement.plane_sweep import Views, agreeing, homographies, sweep
from ff3r_model.slam.refinement.semi_global import LARGE_STEP, SMALL_STEP, aggregate
from ff3r_model.slam.refinement.structure_adjustment import Structure
from ff3r_model.slam.refinement.structure_from_motion import Reconstruction
from ff3r_model.slam.refinement.sweep_sources import choose_sources
from ff3r_model.slam.refinement.tracks import Tracks

HEIGHT, WIDTH, ZOOM = 60, 80, 2
"""Of the network's images; pictures are three times, and the sweep twice as large."""
FOCAL = 70.0


@dataclass(frozen=True)
class Plane:
    """z = at + slope · x, seen from the first camera, textured by a picture that repeats."""

    at: float
    slope: float
    texture: Float[ndarray, "rows columns"]
    until: float = np.inf
    """The plane ends at this x."""


def textured(seed: int, contrast: float = 60) -> Float[ndarray, "400 400"]:
    noise = np.random.default_rng(seed).normal(size=(400, 400))
    smooth = cv2.GaussianBlur(noise, (0, 0), 1.5, borderType=cv2.BORDER_REFLECT)
    return 128 + contrast * smooth / smooth.std()


BLANK = np.full((400, 400), 128.0)


def drawn(planes: list[Plane], centre: Float[ndarray, " 3"], scale: int) -> tuple[ndarray, ndarray]:
    """(picture, depth) of a camera that looks ahead from a place, at so many pixels per pixel of the image."""
    v, u = (np.mgrid[: HEIGHT * scale, : WIDTH * scale] + 0.5) / scale
    ray = np.stack([(u - WIDTH / 2) / FOCAL, (v - HEIGHT / 2) / FOCAL])
    picture, depth = np.zeros(u.shape, np.float32), np.full(u.shape, np.inf)
    for plane in planes:
        z = (plane.at + plane.slope * centre[0] - centre[2]) / (1 - plane.slope * ray[0])
        x, y = centre[0] + z * ray[0], centre[1] + z * ray[1]
        column, row = (60 * x + 200).astype(np.float32), (60 * y + 200).astype(np.float32)
        seen = cv2.remap(plane.texture.astype(np.float32), column, row, cv2.INTER_CUBIC, borderMode=cv2.BORDER_WRAP)
        nearer = (z > 0) & (z < depth) & (x < plane.until)
        picture[nearer], depth[nearer] = seen[nearer], z[nearer]
    return np.clip(picture, 0, 255).astype(np.uint8), depth


PLACES = np.array([[0.0, 0, 0], [0.25, 0, 0], [0, 0.25, 0], [-0.2, 0.1, 0.1]])


@dataclass(frozen=True)
class Scene:
    canvas: Canvas
    cameras: Cameras
    images: Float[ndarray, "views h w 3"]
    depth: Float[ndarray, "views h w"]
    """The truth."""
    found: Reconstruction

    def dense(self, given: ndarray, keyframes: tuple[int, ...] = (0, 1, 2, 3), by: DenseDepth | None = None):
        made = (by or DenseDepth())(
            self.found, self.canvas, self.cameras, self.images, keyframes, torch.from_numpy(given)
        )
        return made[0].numpy(), made[1].numpy()


def scene(planes: list[Plane], points: int = 300, size: float = 1.0) -> Scene:
    pictures = [drawn(planes, place, 3)[0] for place in PLACES]
    depth = np.stack([drawn(planes, place, 1)[1] for place in PLACES])
    poses = np.tile(np.eye(4), (len(PLACES), 1, 1))
    poses[:, :3, 3] = -PLACES * size
    matrix = np.array([[FOCAL, 0, WIDTH / 2], [0, FOCAL, HEIGHT / 2], [0, 0, 1]])
    images = np.stack([cv2.resize(p, (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA) / 255.0 for p in pictures])
    cameras = Cameras(torch.from_numpy(poses), torch.from_numpy(np.tile(matrix, (len(PLACES), 1, 1))))
    canvas = Canvas(pictures, np.array([3.0, 3.0]), None)
    return Scene(
        canvas, cameras, images[..., None].repeat(3, -1), depth * size, structure(poses, depth[0] * size, points)
    )


def structure(poses: ndarray, depth: ndarray, points: int) -> Reconstruction:
    """Points of the first view's depth, seen by all views that have them in the picture."""
    pixels = np.random.default_rng(0).uniform([0, 0], [WIDTH, HEIGHT], (points, 2))
    z = depth[pixels[:, 1].astype(int), pixels[:, 0].astype(int)]
    world = np.concatenate([(pixels - [WIDTH / 2, HEIGHT / 2]) / FOCAL * z[:, None], z[:, None]], axis=1)
    there = world[:, None] + poses[:, :3, 3]
    seen = there[..., :2] / there[..., 2:] * FOCAL + [WIDTH / 2, HEIGHT / 2]
    inside = ((seen > 0) & (seen < [WIDTH, HEIGHT])).all(axis=2)
    shape = Structure(poses, world, float(np.log(3 * FOCAL)), 1.0, 3 * np.array([WIDTH / 2, HEIGHT / 2]))
    tracks = Tracks(3 * seen, inside, np.full(inside.shape, -1))
    return Reconstruction(shape, np.ones(len(poses), bool), tracks, inside, 0, Lens(Focal(0.0, 0.0)))


def miss(depth: ndarray, truth: ndarray, where: ndarray | None = None) -> float:
    """Mean relative error."""
    error = np.abs(depth / truth - 1)
    return float(error.mean() if where is None else error[where].mean())


@pytest.fixture(scope="module")
def slanted() -> Scene:
    return scene([Plane(3.0, 0.5, textured(1))])


def test_a_textured_plane_is_measured_to_a_hundredth(slanted: Scene) -> None:
    given = np.full_like(slanted.depth, 3.0)
    depth, surer = slanted.dense(given)
    sure = surer > 1
    assert sure.mean() > 0.75
    assert miss(depth, slanted.depth, sure) < 0.01 < 0.1 < miss(given, slanted.depth)
    assert surer.max() == 4 and surer.min() == 1


def test_two_layers_have_a_sharp_edge() -> None:
    two = scene([Plane(4.0, 0.0, textured(2)), Plane(2.0, 0.0, textured(3), until=0.1)])
    depth, surer = two.dense(np.full_like(two.depth, 2.8))
    assert set(np.unique(two.depth[0])) == {2.0, 4.0}
    assert miss(depth, two.depth, surer > 1) < 0.02
    away = cv2.erode((two.depth[0] == 2).astype(np.uint8), np.ones((7, 7))) > 0
    away |= cv2.erode((two.depth[0] == 4).astype(np.uint8), np.ones((7, 7))) > 0
    assert miss(depth[0], two.depth[0], away) < 0.02 and away.mean() > 0.8


def test_a_blank_wall_has_the_networks_shape_at_the_size_of_what_is_sure() -> None:
    """The network is right about the relief, and says 40 % too much."""
    wall = scene([Plane(3.0, 0.4, np.where(np.arange(400) < 200, textured(4), BLANK))], points=40)
    depth, surer = wall.dense(1.4 * wall.depth)
    blank = np.zeros((HEIGHT, WIDTH), bool)
    blank[:, WIDTH // 2 + 6 :] = True
    assert (surer[0][blank] > 1).mean() < 0.05, "nothing is sure of a blank wall"
    assert miss(depth[0], wall.depth[0], blank) < 0.03
    assert miss(depth, wall.depth, surer > 1) < 0.01


def test_what_views_contradict_is_not_overruled(slanted: Scene) -> None:
    """A mirror shows every view another thing: each picture has a texture of its own in the middle."""
    pictures = [picture.copy() for picture in slanted.canvas.pictures]
    for number, picture in enumerate(pictures):
        picture[60:120, 80:160] = textured(10 + number)[:60, :80].clip(0, 255)
    given = 0.95 * slanted.depth
    depth, surer = replace(slanted, canvas=replace(slanted.canvas, pictures=pictures)).dense(given)
    middle = np.zeros((HEIGHT, WIDTH), bool)
    middle[22:38, 29:51] = True
    assert (surer[:, middle] > 1).mean() < 0.03
    assert miss(depth[0], slanted.depth[0], middle) < 0.02


def test_frames_of_the_window_before_are_not_swept_again(slanted: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    swept: list[int] = []

    def counted(views, view, sources, inverse_depths):
        swept.append(view)
        return sweep(views, view, sources, inverse_depths)

    monkeypatch.setattr("ff3r_model.slam.refinement.dense_depth.sweep", counted)
    by, given = DenseDepth(), np.full_like(slanted.depth, 3.0)
    slanted.dense(given, (10, 11, 12, 13), by)
    # The next window has another unit.
    twice = scene([Plane(3.0, 0.5, textured(1))], size=2.0)
    depth, surer = twice.dense(2 * given, (10, 11, 20, 21), by)
    assert swept == [0, 1, 2, 3, 2, 3]
    assert miss(depth, twice.depth, surer > 1) < 0.01 and (surer > 1).mean() > 0.75


def test_planes_lie_where_points_project() -> None:
    """Homographies by projecting points of the plane."""
    rng = np.random.default_rng(5)
    poses = np.tile(np.eye(4), (2, 1, 1))
    poses[1, :3, :3] = cv2.Rodrigues(np.array([0.1, -0.2, 0.05]))[0]
    poses[1, :3, 3] = [0.3, -0.1, 0.2]
    intrinsics = np.array([[[50.0, 0, 40], [0, 52, 30], [0, 0, 1]], [[45.0, 0, 41], [0, 44, 29], [0, 0, 1]]])
    views = Views(np.zeros((2, 60, 80), np.float32), poses, intrinsics)
    pixels = rng.uniform([0, 0], [80, 60], (20, 2))
    for inverse, homography in zip([0.2, 0.5], homographies(views, 0, 1, np.array([0.2, 0.5])), strict=True):
        rays = np.concatenate([pixels, np.ones((20, 1))], axis=1) @ np.linalg.inv(intrinsics[0]).T
        there = (rays / inverse) @ poses[1, :3, :3].T + poses[1, :3, 3]
        expected = there @ intrinsics[1].T
        # OpenCV counts pixels from their centres.
        mapped = np.concatenate([pixels - 0.5, np.ones((20, 1))], axis=1) @ homography.T
        assert mapped[:, :2] / mapped[:, 2:] + 0.5 == pytest.approx(expected[:, :2] / expected[:, 2:])


def test_views_agree_where_depth_is_true(slanted: Scene) -> None:
    views = Views(
        np.zeros(slanted.depth.shape, np.float32),
        slanted.cameras.camera_from_world.numpy(),
        slanted.cameras.intrinsics.numpy(),
    )
    inside = (slice(8, -8), slice(10, -10))
    assert (agreeing(views, slanted.depth, 0, [1, 2], 0.02)[inside] == 2).mean() > 0.95
    wrong = slanted.depth.copy()
    wrong[0] *= 1.2
    assert agreeing(views, wrong, 0, [1, 2], 0.02).max() == 0


def test_paths_of_a_cost_volume_are_the_cheapest() -> None:
    """One line of pixels, against all ways through it by brute force."""
    cost = np.random.default_rng(6).uniform(0, 1, (4, 1, 5)).astype(np.float32)
    found = aggregate(cost, np.zeros((1, 5), np.float32))[:, 0]

    def best(path: list[int]) -> ndarray:
        """Least cost of ways along pixels that end in each hypothesis, less what the best of each line costs."""
        total = cost[:, 0, path[0]].astype(np.float64)
        for pixel in path[1:]:
            change = np.abs(np.subtract.outer(np.arange(4), np.arange(4)))
            price = np.choose(np.minimum(change, 2), [0.0, SMALL_STEP, LARGE_STEP])
            total = cost[:, 0, pixel] + (total[None] + price).min(axis=1) - total.min()
        return total

    for pixel in range(5):
        ways = best(list(range(pixel + 1))) + best(list(range(4, pixel - 1, -1))) + 2 * cost[:, 0, pixel]
        assert found[:, pixel] == pytest.approx(ways / 4, abs=1e-5)


def test_sources_share_points_at_a_good_parallax(slanted: Scene) -> None:
    chosen = choose_sources(slanted.found)
    assert all(len(others) == 3 and view not in others for view, others in enumerate(chosen))
    used = slanted.found.used.copy()
    used[:, 3] = False
    assert choose_sources(replace(slanted.found, used=used))[3] == []
    poses = slanted.found.structure.camera_from_world.copy()
    poses[1] = poses[0] + 1e-4
    still = replace(slanted.found, structure=replace(slanted.found.structure, camera_from_world=poses))
    assert choose_sources(still)[0][-1] == 1, "a view from the same place says nothing"


def test_relief_is_believed_as_it_fits() -> None:
    rng = np.random.default_rng(7)
    depth = np.exp(rng.normal(0, 0.3, (2, 60, 80)))
    pixels = rng.uniform([0, 0], [80, 60], (400, 2))
    view = np.repeat([0, 1], 200)
    seen = depth[view, pixels[:, 1].astype(int), pixels[:, 0].astype(int)]
    assert fitting_relief(depth, MeasuredDepths(view, pixels, 3 * seen)) == pytest.approx(1)
    assert fitting_relief(depth, MeasuredDepths(view, pixels, 3 * seen**0.7)) == pytest.approx(0.7, abs=0.01)
    noise = np.exp(rng.normal(0, 0.3, 400))
    assert fitting_relief(depth, MeasuredDepths(view, pixels, noise)) == 0.5


@pytest.mark.parametrize("refine", ["flow", "off"])
def test_dense_depth_without_tracks_is_refused(refine: str) -> None:
    with pytest.raises(ConfigError, match=rf"depth = dense needs cameras by tracks, not refine = {refine}"):
        refinement(PipelineConfig(refine=refine, depth="dense"))  # type: ignore[arg-type]
