"""The network's configuration: nested dataclasses, a JSON round trip, and the presets."""

from __future__ import annotations

import dataclasses
import json
import re
from dataclasses import dataclass, field, replace
from typing import Literal

from ff3r_model.core.checked import json_value, record
from ff3r_model.core.errors import shown
from ff3r_model.core.ranges import AT_LEAST_ONE, Range, check_range

Stem = Literal["linear", "conv"]
Layers = tuple[int, int, int, int]
DEPTHS, WIDTHS, SIDES = Range(1, 256), Range(1, 2**16), Range(1, 1024)
"""Of stacks of blocks, of layers, and of patches and grids: far beyond any network of this kind, and soon refused."""
SCALES = Range(0, 100)
"""Of LayerScale's initial values."""
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,63}")
MAX_STRETCH = 8
"""How much larger images may be than the learned grid of positions."""


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
    interpolation: Literal["bicubic", "bilinear", "bilinear_antialiased", "bicubic_scaled"] = "bicubic"
    """Of the position embedding. VGGT: bicubic, which is antialiased; LSeg: bilinear, which is not; TIPSv2: bilinear,
    antialiased. DINOv2's first one, kept by Depth Anything 3: bicubic without antialiasing, by a scale factor for 0.1
    patches more than there are."""
    stem: Stem = "linear"
    """Our choice: "conv" replaces the linear patch embedding by two small convolutions before it. It learns faster
    from little data and keeps detail finer than a patch."""

    def __post_init__(self) -> None:
        check_range(self, DEPTHS, "depth")
        check_range(self, SIDES, "patch", "grid")
        check_range(self, Range(0, 1024), "registers")
        check_range(self, SCALES, "layer_scale")
        _check_heads(self, self.width)
        if self.width % 4:
            raise ValueError(f"width must be a multiple of 4, not {self.width}: positions are sines along two axes")
        if self.stem == "conv" and self.patch % 2:
            raise ValueError(f"patch must be even with stem conv, which halves the image first, not {self.patch}")


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

    def __post_init__(self) -> None:
        check_range(self, DEPTHS, "depth")
        check_range(self, Range(0, 1024), "registers")
        check_range(self, SCALES, "layer_scale")
        check_range(self, Range(1, 1e9), "rope_base")
        if not 0 <= self.layers[0] < self.layers[1] < self.layers[2] < self.layers[3] == self.depth - 1:
            raise ValueError(f"layers must grow from 0 or more to the last, {self.depth - 1}, not {self.layers}")


CAMERA_HEADS = 16
"""Of Depth Anything 3's attention across known cameras, whatever the width."""


@dataclass(frozen=True)
class DA3Config:
    """Depth Anything 3's attention across views: in every other block of the encoder itself, from one on."""

    start: int = 4
    """The first block that is no plain DINOv2: q/k norm, rotary positions, the camera token. From it on odd blocks are
    across views, even ones within a view."""
    rope_base: float = 100.0
    layers: Layers = (5, 7, 9, 11)
    """The blocks that the decoders read; no others are kept. The last one must be the encoder's last."""

    def __post_init__(self) -> None:
        check_range(self, DEPTHS, "start")
        check_range(self, Range(1, 1e9), "rope_base")
        if not self.start <= self.layers[0] < self.layers[1] < self.layers[2] < self.layers[3]:
            raise ValueError(f"layers must grow from start, {self.start}, on, not {self.layers}")


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

    def __post_init__(self) -> None:
        check_range(self, DEPTHS, "depth")
        check_range(self, Range(1, 64), "iterations")
        check_range(self, SCALES, "layer_scale")
        check_range(self, WIDTHS, "width")
        if len(self.prior) != 9 or not all(value in Range(-100, 100) for value in self.prior):
            raise ValueError(f"prior must be 9 numbers from -100 to 100, not {self.prior}")


@dataclass(frozen=True)
class DPTConfig:
    """A dense prediction transformer's decoder."""

    channels: Layers = (256, 512, 1024, 1024)
    """Per tapped layer, at 4, 2, 1 and 1/2 times the patch grid."""
    features: int = 256
    hidden: tuple[int, int] = (128, 32)
    """At half and at full resolution; the second pair of convolutions is where the time goes."""
    relu_skip: bool = True
    """Residual units add relu(x), as VGGT's do, and not x, as Depth Anything 3's."""

    def __post_init__(self) -> None:
        check_range(self, WIDTHS, "features")
        for name, counts in (("channels", self.channels), ("hidden", self.hidden[:1])):
            if not all(count in WIDTHS and count % 4 == 0 for count in counts):
                raise ValueError(f"{name} must be multiples of 4 up to {WIDTHS.high}, not {counts}")
        if self.hidden[1] not in WIDTHS:
            raise ValueError(f"hidden must be {WIDTHS}, not {self.hidden}")


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

    def __post_init__(self) -> None:
        check_range(self, WIDTHS, "features")
        if not all(0 <= layer < self.vit.depth for layer in self.layers):
            raise ValueError(f"layers must be 0 to {self.vit.depth - 1}, not {self.layers}")
        if not all(count in WIDTHS for count in self.channels):
            raise ValueError(f"channels must be {WIDTHS}, not {self.channels}")


@dataclass(frozen=True)
class TIPSv2Config:
    """TIPSv2's image side: a ViT whose patch tokens lie in the text's space. The defaults are B/14's."""

    vit: ViTConfig = field(
        default_factory=lambda: ViTConfig(
            width=768, depth=12, heads=12, grid=32, registers=1, interpolation="bilinear_antialiased"
        )
    )

    @staticmethod
    def b14() -> TIPSv2Config:
        """google/tipsv2-b14: 86 M parameters, text of 768 dimensions."""
        return TIPSv2Config()

    @staticmethod
    def l14() -> TIPSv2Config:
        """google/tipsv2-l14: 304 M parameters, text of 1024 dimensions."""
        return TIPSv2Config(replace(TIPSv2Config().vit, width=1024, depth=24, heads=16))


@dataclass(frozen=True)
class FusionConfig:
    """Equation 1's cross-attention; the paper gives neither heads nor width."""

    heads: int = 16
    width: int = 1024

    def __post_init__(self) -> None:
        _check_heads(self, self.width)


@dataclass(frozen=True)
class FF3RConfig:
    """The whole network. The defaults are the full size; what differs in the other presets is listed there."""

    name: str = "full"
    encoder: ViTConfig = field(default_factory=ViTConfig)
    aggregator: AggregatorConfig = field(default_factory=AggregatorConfig)
    camera: CameraHeadConfig = field(default_factory=CameraHeadConfig)
    da3: DA3Config | None = None
    """Depth Anything 3 in place of VGGT: `aggregator` and `camera` then describe nothing."""
    depth: DPTConfig = field(default_factory=DPTConfig)
    depth_skip: bool = False
    """Our choice, off as published: the appearance skip goes into the depth decoder too."""
    lseg: LSegConfig | None = field(default_factory=LSegConfig)
    """The semantic encoder is LSeg, or `tipsv2`: one of the two, and the other None."""
    tipsv2: TIPSv2Config | None = None
    fusion: FusionConfig = field(default_factory=FusionConfig)
    fusion_residual: bool = True
    """Ours: the geometry tokens are added to equation 1's result, which alone would drop what they know."""
    gaussian: DPTConfig = field(default_factory=lambda: DPTConfig(hidden=(128, 64)))
    decode_gaussians: bool = True
    """False leaves fusion and Gaussian decoder out: lifting mode, where nobody has trained them."""
    sh_degree: int = 1
    """The paper does not say; 0 is a plain colour."""
    text_width: int = 512
    """D: the width of the text embeddings and of the semantic encoder's features."""
    feature_channels: int = 64
    """C: the width of the compact feature of each Gaussian."""
    long_side: int | None = None
    """Of the images that it is meant for, pixels; None: as many patches as the encoder's grid of positions has."""
    refine_poses: bool = False
    """Ours, and no part of the network: whether its poses are worth correcting by optical flow before use."""
    head_chunk: int | None = 8
    """Views that semantic encoder and dense heads take at once: bounds their memory, changes no result. None: all."""

    def __post_init__(self) -> None:
        if not NAME.fullmatch(self.name):
            raise ValueError(f"name must be 1 to 64 letters, digits, ._ and -, not {shown(self.name)}: files have it")
        check_range(self, Range(0, 3), "sh_degree")
        check_range(self, WIDTHS, "text_width")
        check_range(self, Range(1, 1024), "feature_channels")
        check_range(self, AT_LEAST_ONE, "head_chunk")
        check_range(self, Range(self.encoder.patch, MAX_STRETCH * self.encoder.grid * self.encoder.patch), "long_side")
        if self.da3 is None:
            _check_heads(self.aggregator, self.width, "aggregator.")
            _check_heads(self.camera, self.camera.width or 2 * self.width, "camera.")
            self._check_rotary("aggregator", self.aggregator.heads)
        else:
            self._check_da3(self.da3)

    def _check_da3(self, da3: DA3Config) -> None:
        if da3.layers[3] != self.encoder.depth - 1 or self.encoder.registers:
            raise ValueError(
                f"da3.layers must end at the encoder's last block, {self.encoder.depth - 1}, not at {da3.layers[3]}, "
                f"and the encoder have no registers, not {self.encoder.registers}"
            )
        if self.width % CAMERA_HEADS:
            raise ValueError(f"width must be a multiple of {CAMERA_HEADS} with da3, not {self.width}: heads of cameras")
        self._check_rotary("encoder", self.encoder.heads)

    def _check_rotary(self, part: str, heads: int) -> None:
        if self.width // heads % 4:
            raise ValueError(
                f"{part}.heads = {heads}: the width of a head, of {self.width} in all, must be a multiple of 4, since "
                "positions turn pairs of channels along two axes"
            )
        self._check_semantics()

    def _check_semantics(self) -> None:
        if (self.lseg is None) == (self.tipsv2 is None):
            count = "neither" if self.lseg is None else "both"
            raise ValueError(f"lseg or tipsv2 must be the semantic encoder and the other null, not {count}")
        if self.tipsv2 is not None and self.tipsv2.vit.width != self.text_width:
            raise ValueError(f"text_width must be TIPSv2's own, {self.tipsv2.vit.width}, not {self.text_width}")

    @property
    def width(self) -> int:
        """Of the tokens within the aggregator; layers read from it are twice as wide."""
        return self.encoder.width

    @property
    def semantics(self) -> LSegConfig | TIPSv2Config:
        """Of the semantic encoder."""
        chosen = self.lseg or self.tipsv2
        assert chosen is not None
        return chosen

    @property
    def image_side(self) -> int:
        """Long side of the images that it is meant for, in pixels."""
        return self.long_side or self.encoder.grid * self.encoder.patch

    @property
    def takes_known_cameras(self) -> bool:
        """Whether known poses and intrinsics can go in beside the images."""
        return self.da3 is not None

    @property
    def global_blocks(self) -> int:
        """Blocks in which all views see each other."""
        if self.da3 is None:
            return self.aggregator.depth
        return sum(index % 2 for index in range(self.da3.start, self.encoder.depth))

    @property
    def bands(self) -> int:
        """Spherical harmonics per colour channel."""
        return (self.sh_degree + 1) ** 2

    @staticmethod
    def full() -> FF3RConfig:
        """VGGT-1B's and LSeg ViT-L/16's sizes, and the paper's images of 448 pixels."""
        return FF3RConfig(long_side=448)

    @staticmethod
    def da3_small() -> FF3RConfig:
        """Depth Anything 3 Small's 34 M parameters, and LSeg ViT-L/16."""
        return _da3("da3-small", 384, 64, (48, 96, 192, 384))

    @staticmethod
    def da3_base() -> FF3RConfig:
        """Depth Anything 3 Base's 135 M parameters, and LSeg ViT-L/16."""
        return _da3("da3-base", 768, 128, (96, 192, 384, 768))

    @staticmethod
    def da3_large() -> FF3RConfig:
        """Depth Anything 3 Large's 411 M parameters, and LSeg ViT-L/16."""
        da3 = DA3Config(start=8, layers=(11, 15, 19, 23))
        return _da3("da3-large", 1024, 256, (256, 512, 1024, 1024), depth=24, da3=da3)

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
        return record(FF3RConfig, json_value(text), "config")


def _da3(
    name: str, width: int, features: int, channels: Layers, depth: int = 12, da3: DA3Config | None = None
) -> FF3RConfig:
    """A published size of Depth Anything 3: heads of 64 channels, images of 504 pixels."""
    encoder = ViTConfig(width, depth, heads=width // 64, registers=0, interpolation="bicubic_scaled")
    decoder = DPTConfig(channels, features, hidden=(features // 2, 32), relu_skip=False)
    return FF3RConfig(
        name=name,
        encoder=encoder,
        da3=da3 or DA3Config(),
        depth=decoder,
        fusion=FusionConfig(width=width),
        long_side=504,
    )


def _check_heads(
    config: ViTConfig | AggregatorConfig | CameraHeadConfig | FusionConfig, width: int, at: str = ""
) -> None:
    """Raise ValueError unless the heads share the width evenly."""
    if width not in WIDTHS:
        raise ValueError(f"width must be {WIDTHS}, not {width}")
    if not (1 <= config.heads <= width and width % config.heads == 0):
        raise ValueError(f"{at}heads must divide the width {width} evenly, not {config.heads}")
