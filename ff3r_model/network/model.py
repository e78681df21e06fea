"""FF3R: images → cameras, depth and semantic Gaussians in one pass."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from ff3r_model.core.text_space import TextSpace
from ff3r_model.core.types import MAX_VIEWS, MIN_VIEWS
from ff3r_model.network.aggregator import Aggregated, Aggregator
from ff3r_model.network.camera_head import CameraHead
from ff3r_model.network.config import FF3RConfig
from ff3r_model.network.da3_aggregator import DA3Aggregator
from ff3r_model.network.da3_cameras import CameraDecoder
from ff3r_model.network.dpt import DepthHead
from ff3r_model.network.frame_features import FrameFeatures, in_chunks
from ff3r_model.network.fusion import Fusion
from ff3r_model.network.gaussian_head import GaussianHead, RawGaussians, split
from ff3r_model.network.initialization import initialise
from ff3r_model.network.lseg import LSeg
from ff3r_model.network.semantic_encoder import SemanticEncoder
from ff3r_model.network.sparse_attention import SparseConfig
from ff3r_model.network.tipsv2 import TIPSv2

KEPT_LAYERS = 4
"""That the dense heads read, of either backbone."""


@dataclass(frozen=True)
class NetworkOutput:
    """The network's raw output for a batch of windows; `network.decode` makes cameras and Gaussians of it.

    Dense maps are there for all views, or for the `dense_views` that `decode_window` was asked for, in one row.
    """

    pose_encodings: Float[Tensor, "iterations batch views 9"]
    """Per refinement step; the last is the answer. camera_from_world: translation 3, quaternion xyzw 4 (not
    normalised), vertical and horizontal field of view in radians."""
    depth: Float[Tensor, "dense_batch dense_views h w"]
    """z in the camera's frame, window units."""
    depth_confidence: Float[Tensor, "dense_batch dense_views h w"]
    """Above 1; larger is more certain."""
    gaussians: RawGaussians | None
    """None in lifting mode."""
    semantics: Float[Tensor, "dense_batch dense_views text hs ws"] | None
    """The semantic encoder's features in the text's space, at its own resolution; None where not asked for."""
    lifted: Float[Tensor, "dense_batch dense_views channels hs ws"] | None
    """In lifting mode: the semantic encoder's features, unit norm, projected to the compact space."""
    tokens: Float[Tensor, "batch views tokens width"]
    """Last aggregated layer: camera token, registers, patches."""


class FF3R(nn.Module):
    """The network as the paper draws it, at the size of its configuration."""

    def __init__(self, config: FF3RConfig) -> None:
        super().__init__()
        self.config = config
        self.aggregator, self.camera_head = _geometry(config)
        self.depth_head = DepthHead(config.depth, 2 * config.width, config.depth_skip)
        self.lseg = None if config.lseg is None else LSeg(config.lseg, config.text_width)
        self.tipsv2 = None if config.tipsv2 is None else TIPSv2(config.tipsv2)
        if config.decode_gaussians:
            self.fusion = Fusion(config.fusion, 2 * config.width, config.semantics.vit.width, config.fusion_residual)
            self.gaussian_head = GaussianHead(config)
        self.feature_decoder = nn.Linear(config.feature_channels, config.text_width, bias=False)
        initialise(self)

    def forward(self, images: Float[Tensor, "batch views 3 h w"], semantics: bool = True) -> NetworkOutput:
        """2 to 64 views in [0, 1], sides multiples of the patch. Raises ValueError for anything else.

        `semantics=False` drops the semantic encoder's features once used: for 64 large views they take gigabytes.
        """
        self.check(images)
        return self.decode_window(images, self.encode_frames(images, semantics))

    def encode_frames(
        self,
        images: Float[Tensor, "batch views 3 h w"],
        semantics: bool = False,
        dense_views: Int[Tensor, " n"] | None = None,
    ) -> FrameFeatures:
        """All that depends on each view alone, whatever window it stands in; any number of views.

        `dense_views`: the semantic encoder sees these views only; see `decode_window`.
        """
        patches = self.aggregator.encode(images)
        seen = in_chunks(lambda part: self._see(part, semantics), self.config.head_chunk, _rows(images, dense_views))
        tokens, maps, features = (None if x is None else _unflatten(x, images, dense_views) for x in seen)
        assert maps is not None
        return FrameFeatures(patches, maps, tokens, features)

    def estimate_cameras(
        self,
        images: Float[Tensor, "batch views 3 h w"],
        patches: Float[Tensor, "batch views patches width"],
        sparse: SparseConfig | None = None,
        known: Float[Tensor, "batch views 9"] | None = None,
    ) -> tuple[Float[Tensor, "iterations batch views 9"], Aggregated]:
        """Pose encodings of all views, and the tokens that have seen every view, from the encoder's `patches`."""
        aggregated = self.aggregator.aggregate(patches, (images.shape[-2], images.shape[-1]), sparse, known)
        with torch.autocast(images.device.type, enabled=False):
            return self.camera_head(aggregated.camera.float()), aggregated

    def decode_window(
        self,
        images: Float[Tensor, "batch views 3 h w"],
        frames: FrameFeatures,
        sparse: SparseConfig | None = None,
        dense_views: Int[Tensor, " n"] | None = None,
        known: Float[Tensor, "batch views 9"] | None = None,
    ) -> NetworkOutput:
        """The output for a window from its views' features: `frames` is of `encode_frames`, now or in earlier windows.

        `sparse` approximates the global attention of long windows; None is exact. `dense_views` decodes depth and
        Gaussians of some views only, as training does: places among the views of all windows, window by window, the
        same as `frames` were encoded with. The output's dense maps are then one row of n views. `known`: pose encodings
        of cameras that are known, where the backbone takes them (`config.da3`), as `encode_known` makes them.
        """
        # Cameras: all views see each other.
        poses, aggregated = self.estimate_cameras(images, frames.patches, sparse, known)
        # Dense maps: each view by itself, a few at a time.
        layers = [_rows(layer[:, :, aggregated.special :], dense_views) for layer in aggregated.layers]
        tokens = [] if frames.semantic_tokens is None else [frames.semantic_tokens.flatten(0, 1)]
        dense = in_chunks(
            self._decode,
            self.config.head_chunk,
            _rows(images, dense_views),
            frames.semantic_maps.flatten(0, 1),
            *layers,
            *tokens,
        )
        depth, raw = (None if x is None else _unflatten(x, images, dense_views) for x in dense)
        assert depth is not None
        return NetworkOutput(
            pose_encodings=poses,
            depth=depth[:, :, 0],
            depth_confidence=depth[:, :, 1],
            gaussians=None if raw is None else split(raw, self.config),
            semantics=frames.features,
            lifted=None if self.config.decode_gaussians else frames.semantic_maps,
            tokens=aggregated.layers[-1],
        )

    @property
    def semantic_encoder(self) -> SemanticEncoder:
        """LSeg or TIPSv2, whichever the configuration has."""
        encoder = self.lseg or self.tipsv2
        assert encoder is not None
        return encoder

    @property
    def text_space(self) -> TextSpace:
        """Cosines between compact features and text embeddings, by the feature decoder's weights of the moment."""
        return TextSpace(self.feature_decoder.weight.detach().clone())

    def check(self, images: Float[Tensor, "batch views 3 h w"]) -> None:
        """Raises ValueError where the network cannot see these images."""
        views, (height, width), patch = images.shape[1], images.shape[-2:], self.config.encoder.patch
        if not MIN_VIEWS <= views <= MAX_VIEWS:
            raise ValueError(
                f"FF3R takes {MIN_VIEWS} to {MAX_VIEWS} views at once, not {views}: one view has no parallax, "
                f"and beyond {MAX_VIEWS} memory grows too large. Split the frames into overlapping windows."
            )
        if height % patch or width % patch or not height or not width:
            raise ValueError(f"image sides must be multiples of {patch}, not {height}×{width}; resize the images first")

    def _see(self, images: Float[Tensor, "n 3 h w"], semantics: bool) -> tuple[Tensor | None, Tensor, Tensor | None]:
        """Semantic tokens on the geometry's grid, semantic maps, features in the text's space: see FrameFeatures."""
        grid = self._grid(images)
        seen = self.semantic_encoder.see(images, grid)
        features = seen.features.float() if semantics else None
        if not self.config.decode_gaussians:
            return None, self._lift(seen.features), features
        tokens = F.interpolate(seen.tokens, grid, mode="bilinear", align_corners=False).flatten(2).transpose(1, 2)
        return tokens, self.gaussian_head.semantic(seen.features), features

    def _decode(self, images: Tensor, maps: Tensor, *tokens: Tensor) -> tuple[Tensor, Tensor | None]:
        """Depth with its confidence, and raw Gaussians, of some views: kept layers' tokens, then semantic tokens."""
        grid, layers = self._grid(images), tokens[:KEPT_LAYERS]
        with torch.autocast(images.device.type, enabled=False):
            depth = self.depth_head([x.float() for x in layers], grid, images.float())
        if not self.config.decode_gaussians:
            return depth, None
        fused = self.fusion(layers[-1], tokens[-1])
        return depth, self.gaussian_head([*layers[:-1], fused], grid, images, maps).float()

    def _grid(self, images: Tensor) -> tuple[int, int]:
        """Rows and columns of patches."""
        patch = self.config.encoder.patch
        return images.shape[-2] // patch, images.shape[-1] // patch

    def _lift(self, features: Float[Tensor, "n text h w"]) -> Float[Tensor, "n channels h w"]:
        """Coordinates of unit features in the decoder's basis, which is orthonormal in lifting mode."""
        return torch.einsum("dc,ndhw->nchw", self.feature_decoder.weight, F.normalize(features.float(), dim=1))


def _geometry(config: FF3RConfig) -> tuple[Aggregator | DA3Aggregator, CameraHead | CameraDecoder]:
    """The geometry backbone of a configuration, and what reads its camera tokens: VGGT's or Depth Anything 3's.

    Backbones are alike outside: `encode` each view, `aggregate` all of a window, and then cameras and depth.
    """
    if config.da3 is None:
        return Aggregator(config), CameraHead(config.camera, 2 * config.width)
    return DA3Aggregator(config.encoder, config.da3), CameraDecoder(2 * config.width)


def _rows(views: Float[Tensor, "batch views *rest"], picks: Int[Tensor, " n"] | None) -> Float[Tensor, "n *rest"]:
    """Views of all windows one after another: all, or those at `picks`."""
    rows = views.flatten(0, 1)
    return rows if picks is None else rows[picks]


def _unflatten(
    rows: Float[Tensor, "n *rest"], images: Float[Tensor, "batch views 3 h w"], picks: Int[Tensor, " n"] | None
) -> Float[Tensor, "dense_batch dense_views *rest"]:
    """Rows of `_rows` as windows of views again; picked ones as one window."""
    return rows.unflatten(0, tuple(images.shape[:2])) if picks is None else rows[None]
