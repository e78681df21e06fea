"""What the map remembers of a window's frames, so that windows to come can be joined to them."""

from __future__ import annotations

from dataclasses import dataclass, replace

from jaxtyping import Float
from torch import Tensor

from ff3r_model.core.geometry import invert_rigid, transform_points, transform_pose, unproject
from ff3r_model.core.types import Prediction, Similarity, Window


@dataclass(frozen=True)
class SharedFrames:
    """What the map remembers of a window's frames, so that the next window can be joined to them."""

    keyframes: tuple[int, ...]
    map_from_camera: Float[Tensor, "views 4 4"]
    depth: Float[Tensor, "views height width"]
    """In the unit of the map."""
    confidence: Float[Tensor, "views height width"]
    intrinsics: Float[Tensor, "views 3 3"]

    @classmethod
    def of(cls, prediction: Prediction, window: Window, map_from_window: Similarity) -> SharedFrames:
        """The frames of a window that has been placed."""
        poses = transform_pose(map_from_window, invert_rigid(prediction.cameras.camera_from_world))
        return cls(
            window.keyframes,
            poses,
            prediction.depth * map_from_window.scale,
            prediction.depth_confidence,
            prediction.cameras.intrinsics,
        )

    def moved(self, motion: Similarity) -> SharedFrames:
        """The same frames after all of them went elsewhere in the map."""
        poses = transform_pose(motion, self.map_from_camera.double()).to(self.map_from_camera)
        return replace(self, map_from_camera=poses, depth=self.depth * motion.scale)

    def select(self, views: Tensor) -> SharedFrames:
        """Some of the frames, by integer index."""
        rest = {name: getattr(self, name)[views] for name in self.__dataclass_fields__ if name != "keyframes"}
        return SharedFrames(tuple(self.keyframes[view] for view in views.tolist()), **rest)

    def thinned(self, long_side: int) -> SharedFrames:
        """Every n-th pixel alone, so that the long side is at most this, with intrinsics of the pixels that stay."""
        depth, intrinsics = thinned(self.depth, self.intrinsics, long_side)
        confidence, _ = thinned(self.confidence, self.intrinsics, long_side)
        return replace(self, depth=depth, confidence=confidence, intrinsics=intrinsics)

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return sum(each.nbytes for each in (self.map_from_camera, self.depth, self.confidence, self.intrinsics))

    @property
    def points(self) -> Float[Tensor, "views height width 3"]:
        """Every pixel's point in the map."""
        return frame_points(self.depth, self.intrinsics, self.map_from_camera)


def thinned(
    values: Float[Tensor, "views height width"], intrinsics: Float[Tensor, "views 3 3"], long_side: int
) -> tuple[Float[Tensor, "views h w"], Float[Tensor, "views 3 3"]]:
    """Every n-th pixel of an image, n from the long side wanted, and the intrinsics of what stays."""
    step = -(-max(values.shape[1:]) // long_side)
    first = step // 2
    small = intrinsics.clone()
    small[:, :2] /= step
    small[:, :2, 2] = (intrinsics[:, :2, 2] - first - 0.5) / step + 0.5
    return values[:, first::step, first::step], small


def thinned_prediction(prediction: Prediction, long_side: int) -> Prediction:
    """A prediction's cameras, depth and confidence at every n-th pixel; its Gaussians are left as they are."""
    depth, intrinsics = thinned(prediction.depth, prediction.cameras.intrinsics, long_side)
    confidence, _ = thinned(prediction.depth_confidence, prediction.cameras.intrinsics, long_side)
    cameras = replace(prediction.cameras, intrinsics=intrinsics)
    return replace(prediction, cameras=cameras, depth=depth, depth_confidence=confidence)


def frame_points(
    depth: Float[Tensor, "views height width"],
    intrinsics: Float[Tensor, "views 3 3"],
    frame_from_camera: Float[Tensor, "views 4 4"],
) -> Float[Tensor, "views height width 3"]:
    """Every pixel's point in the frame of the cameras."""
    points = transform_points(frame_from_camera, unproject(depth, intrinsics).flatten(1, 2))
    return points.unflatten(1, depth.shape[1:])
