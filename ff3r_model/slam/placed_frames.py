"""Keyframes whose place in the map is known, so that windows to come can be aligned to them."""

from __future__ import annotations

from dataclasses import dataclass, replace

from jaxtyping import Float
from torch import Tensor

from ff3r_model.core.geometry import invert_rigid, transform_points, unproject
from ff3r_model.core.node import Node
from ff3r_model.core.types import Prediction, Similarity, SparsePoints, Window


@dataclass(frozen=True)
class PlacedFrames:
    """Keyframes with depth, relative to a node of the pose graph: they are where the node is."""

    keyframes: tuple[int, ...]
    node: Node
    node_from_camera: Float[Tensor, "views 4 4"]
    node_depth: Float[Tensor, "views height width"]
    """In the unit of the node."""
    confidence: Float[Tensor, "views height width"]
    intrinsics: Float[Tensor, "views 3 3"]
    node_points: SparsePoints | None = None
    """Triangulated points that the frames saw, in the node's frame and unit."""

    @classmethod
    def of(cls, prediction: Prediction, window: Window, node: Node) -> PlacedFrames:
        """The frames of a window that lies where `node` does: the window's frame is the node's."""
        return cls(
            window.keyframes,
            node,
            invert_rigid(prediction.cameras.camera_from_world),
            prediction.depth,
            prediction.depth_confidence,
            prediction.cameras.intrinsics,
            None if prediction.points_seen is None else replace(prediction.points_seen, descriptors=None),
        )

    @property
    def map_from_camera(self) -> Float[Tensor, "views 4 4"]:
        """Poses in the map."""
        return self.node.place(self.node_from_camera)

    @property
    def depth(self) -> Float[Tensor, "views height width"]:
        """In the unit of the map."""
        return self.node_depth * self.node.map_from_node.scale

    def transformed(self, new_from_old: Similarity) -> PlacedFrames:
        """The same frames elsewhere; the node itself stays."""
        node = replace(self.node)
        node.transform(new_from_old)
        return replace(self, node=node)

    def select(self, views: Tensor) -> PlacedFrames:
        """Some of the frames, by integer index."""
        return PlacedFrames(
            tuple(self.keyframes[view] for view in views.tolist()),
            self.node,
            self.node_from_camera[views],
            self.node_depth[views],
            self.confidence[views],
            self.intrinsics[views],
            None if self.node_points is None else self.node_points.of_views(views),
        )

    def thinned(self, long_side: int) -> PlacedFrames:
        """Every n-th pixel alone, so that the long side is at most this, with intrinsics of the pixels that stay."""
        depth, intrinsics = thinned(self.node_depth, self.intrinsics, long_side)
        confidence, _ = thinned(self.confidence, self.intrinsics, long_side)
        return replace(self, node_depth=depth, confidence=confidence, intrinsics=intrinsics)

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        held = (self.node_from_camera, self.node_depth, self.confidence, self.intrinsics)
        return sum(each.nbytes for each in held) + (0 if self.node_points is None else self.node_points.nbytes)

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
