"""The network's configuration: nested dataclasses, a JSON round trip, and the presets `nano` and `full`."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from typing import Any, Literal

Stem = Literal["linear", "conv"]
Layers = tuple[int, int, int, int]


@dataclass(frozen=True)
class ViTConfig:
    """A vision transformer; the defaults are DINOv2 ViT-L/14 with registers, as VGGT has it."""

    width: int = 1024
    depth: int = 24
    heads: int = 16
    patch: int = 14
    grid: int = 37
    """Side of the learned grid of position embeddings; other sizes are interpolated from it."""
    registers: int = 4
    layer_scale: float | None = 1.0
    """Initial LayerScale; None leaves LayerScale out."""
    interpolation: Literal["bicubic", "bilinear"] = "bicubic"
    """Of the position embedding. Bicubic is antialiased, bilinear is not: DINOv2's and LSeg's habits."""
    stem: Stem = "linear"
    """Our choice: "conv" replaces the linear patch embedding by two small convolutions before it. It learns faster
    from little data and keeps detail finer than a patch."""


@dataclass(frozen=True)
class AggregatorConfig:
    """Alternating frame and global attention."""

    depth: int = 24
    heads: int = 16
    registers: int = 4
    layer_scale: float = 0.01
    rope_base: float = 100.0
    layers: Layers = (4, 11, 17, 23)
    """The layers that the decoders read; no others are kept. The last one must be the network's last."""


@dataclass(frozen=True)
class CameraHeadConfig:
    """Iterative refinement of the pose encoding."""

    width: int | None = None
    """None keeps the tokens' width, as published; a number projects to it first (our choice, for `nano`)."""
    depth: int = 4
    heads: int = 16
    iterations: int = 4
    layer_scale: float = 0.01
    prior: tuple[float, ...] = (0.0,) * 9
    """Added to the encoding before its activation. Zero as published; training from scratch starts better from the
    identity and a plausible field of view (our choice)."""


@dataclass(frozen=True)
class DPTConfig:
    """A dense prediction transformer's decoder."""

    channels: Layers = (256, 512, 1024, 1024)
    """Per tapped layer, at 4, 2, 1 and 1/2 times the patch grid."""
    features: int = 256
    hidden: tuple[int, int] = (128, 32)
    """At half and at full resolution; the second pair of convolutions is where the time goes."""


@dataclass(frozen=True)
class LSegConfig:
    """LSeg's image side: a ViT, and a DPT whose output lies in the text's space."""

    vit: ViTConfig = field(
        default_factory=lambda: ViTConfig(patch=16, grid=24, registers=0, layer_scale=None, interpolation="bilinear")
    )
    layers: Layers = (5, 11, 17, 23)
    channels: Layers = (256, 512, 1024, 1024)
    features: int = 256
    batch_norm: bool = True
    """As published. A network trained from scratch on few views does without."""


@dataclass(frozen=True)
class FusionConfig:
    """Equation 1's cross-attention; the paper gives neither heads nor width."""

    heads: int = 16
    width: int = 1024


@dataclass(frozen=True)
class FF3RConfig:
    """The whole network. The defaults are the full size; what differs in `nano` is listed there."""

    name: str = "full"
    encoder: ViTConfig = field(default_factory=ViTConfig)
    aggregator: AggregatorConfig = field(default_factory=AggregatorConfig)
    camera: CameraHeadConfig = field(default_factory=CameraHeadConfig)
    depth: DPTConfig = field(default_factory=DPTConfig)
    depth_skip: bool = False
    """Our choice, off as published: the appearance skip goes into the depth decoder too."""
    lseg: LSegConfig = field(default_factory=LSegConfig)
    fusion: FusionConfig = field(default_factory=FusionConfig)
    fusion_residual: bool = True
    """Ours: the geometry tokens are added to equation 1's result, which alone would drop what they know."""
    gaussian: DPTConfig = field(default_factory=lambda: DPTConfig(hidden=(128, 64)))
    decode_gaussians: bool = True
    """False leaves fusion and Gaussian decoder out: lifting mode, where nobody has trained them."""
    sh_degree: int = 1
    """The paper does not say; 0 is a plain colour."""
    text_width: int = 512
    """D: the width of the text embeddings and of LSeg's features."""
    feature_channels: int = 64
    """C: the width of the compact feature of each Gaussian."""
    long_side: int | None = None
    """Of the images that it is meant for, pixels; None: as many patches as the encoder's grid of positions has."""
    refine_poses: bool = False
    """Ours, and no part of the network: whether its poses are worth correcting by optical flow before use."""
    head_chunk: int | None = 8
    """Views that LSeg and the dense heads take at once: bounds their memory, changes no result. None: all."""

    @property
    def width(self) -> int:
        """Of the tokens within the aggregator; layers read from it are twice as wide."""
        return self.encoder.width

    @property
    def image_side(self) -> int:
        """Long side of the images that it is meant for, in pixels."""
        return self.long_side or self.encoder.grid * self.encoder.patch

    @property
    def bands(self) -> int:
        """Spherical harmonics per colour channel."""
        return (self.sh_degree + 1) ** 2

    @staticmethod
    def full() -> FF3RConfig:
        """VGGT-1B's and LSeg ViT-L/16's sizes, and the paper's images of 448 pixels."""
        return FF3RConfig(long_side=448)

    @staticmethod
    def nano() -> FF3RConfig:
        """Some 10 M parameters, for images of about 112 pixels: trains and runs on a CPU."""
        return FF3RConfig(
            name="nano",
            encoder=ViTConfig(width=192, depth=4, heads=4, grid=8, registers=0, layer_scale=0.5, stem="conv"),
            aggregator=AggregatorConfig(depth=6, heads=4, registers=4, layer_scale=0.5, layers=(0, 1, 2, 5)),
            camera=CameraHeadConfig(
                width=144, depth=2, heads=4, layer_scale=0.5, prior=(0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 1.0, 1.0)
            ),
            depth=DPTConfig(channels=(32, 32, 48, 48), features=32, hidden=(24, 16)),
            depth_skip=True,
            lseg=LSegConfig(
                vit=ViTConfig(
                    width=144,
                    depth=4,
                    heads=4,
                    patch=16,
                    grid=8,
                    registers=0,
                    layer_scale=0.5,
                    interpolation="bilinear",
                    stem="conv",
                ),
                layers=(0, 1, 2, 3),
                channels=(32, 32, 48, 48),
                features=32,
                batch_norm=False,
            ),
            fusion=FusionConfig(heads=4, width=192),
            gaussian=DPTConfig(channels=(32, 32, 48, 48), features=32, hidden=(32, 32)),
            sh_degree=0,
            text_width=64,
            feature_channels=32,
            refine_poses=True,
            head_chunk=32,
        )

    def to_json(self) -> str:
        """All fields as JSON; `from_json` reads it back to an equal object."""
        return json.dumps(dataclasses.asdict(self))

    @staticmethod
    def from_json(text: str) -> FF3RConfig:
        """The configuration that `to_json` wrote. Raises ValueError naming what does not fit."""
        return _build(FF3RConfig, json.loads(text), "config")


_NESTED: dict[tuple[type, str], type] = {
    (FF3RConfig, "encoder"): ViTConfig,
    (FF3RConfig, "aggregator"): AggregatorConfig,
    (FF3RConfig, "camera"): CameraHeadConfig,
    (FF3RConfig, "depth"): DPTConfig,
    (FF3RConfig, "gaussian"): DPTConfig,
    (FF3RConfig, "lseg"): LSegConfig,
    (FF3RConfig, "fusion"): FusionConfig,
    (LSegConfig, "vit"): ViTConfig,
}


def _build(kind: type, values: Any, where: str) -> Any:
    if not isinstance(values, dict):
        raise ValueError(f"{where} should be an object, not {values!r}")
    known = {f.name for f in dataclasses.fields(kind)}
    if unknown := sorted(set(values) - known):
        raise ValueError(f"{where} has the unknown fields {', '.join(unknown)}; known are {', '.join(sorted(known))}")
    return kind(**{name: _value(kind, name, value, where) for name, value in values.items()})


def _value(kind: type, name: str, value: Any, where: str) -> Any:
    nested = _NESTED.get((kind, name))
    if nested is not None and value is not None:
        return _build(nested, value, f"{where}.{name}")
    return tuple(value) if isinstance(value, list) else value
