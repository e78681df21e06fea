"""Catalogue of named weights: which public files make which checkpoint, for whom, under which licences."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ff3r_model.network.named_weights.licences import APACHE, CC_BY_NC, LSEG, VGGT, Licence


@dataclass(frozen=True)
class Source:
    """A public file that conversion reads."""

    key: str
    """What it is to conversion, and `--file KEY=PATH`."""
    repository: str
    """On the hub, owner/name; empty where only people can fetch it."""
    file: str
    licence: Licence
    by_hand: str = ""
    """What a person does to get it, where `repository` is empty."""

    @property
    def address(self) -> str:
        """Its name in the manifest of hashes and in messages."""
        return f"{self.repository or self.key}/{self.file}"


@dataclass(frozen=True)
class Part:
    """Half a network: geometry, or semantics with the text tower that belongs to it."""

    kind: str
    """da3 or vggt; tipsv2 or lseg: which conversion reads the files."""
    name: str
    """Of the published model."""
    sources: tuple[Source, ...]
    trunk: int
    """Parameters that a GPU holds in half precision."""
    rest: int
    """Parameters that stay float32: heads, text tower."""
    width: int
    """Of the tokens; layers that are kept are twice as wide in geometry."""
    detail: int
    """Geometry: channels of the depth head at full resolution. Semantics: cells of its map per patch of 14 pixels."""
    head: int = 0
    """Semantics: bytes that a cell of its map takes while it is computed."""


@dataclass(frozen=True)
class Recipe:
    """What a name of weights stands for."""

    name: str
    use: str
    """What for, in a few words."""
    geometry: Part
    semantics: Part

    @property
    def sources(self) -> Iterator[Source]:
        """All files, geometry's first."""
        yield from self.geometry.sources
        yield from self.semantics.sources

    @property
    def licences(self) -> tuple[Licence, ...]:
        """Each once."""
        return tuple(dict.fromkeys(source.licence for source in self.sources))

    @property
    def commercial(self) -> bool:
        """Whether every licence allows commercial use."""
        return all(licence.commercial for licence in self.licences)


def _da3(name: str, licence: Licence, trunk: int, rest: int, width: int, detail: int) -> Part:
    source = Source("da3", f"depth-anything/{name}", "model.safetensors", licence)
    return Part("da3", name, (source,), trunk, rest, width, detail)


def _tipsv2(size: str, trunk: int, rest: int, width: int) -> Part:
    repository = f"google/tipsv2-{size}"
    sources = (
        Source("tipsv2", repository, "model.safetensors", APACHE),
        Source("tokenizer", repository, "tokenizer.model", APACHE),
    )
    return Part("tipsv2", f"TIPSv2-{size}", sources, trunk, rest, width, detail=1, head=4 * width + 4 * width)


# Counts of parameters are those of the published files, without what conversion leaves out.
DA3_SMALL = _da3("DA3-SMALL", APACHE, 22_059_008, 12_240_455, 384, 32)
DA3_BASE = _da3("DA3-BASE", APACHE, 86_583_296, 48_783_303, 768, 64)
DA3_LARGE = _da3("DA3-LARGE-1.1", CC_BY_NC, 304_373_760, 106_568_007, 1024, 128)
TIPSV2_B = _tipsv2("b14", 86_316_288, 109_632_000, 768)
TIPSV2_L = _tipsv2("l14", 304_016_384, 183_924_736, 1024)
VGGT_1B = Part(
    "vggt",
    "VGGT-1B",
    (Source("vggt", "facebook/VGGT-1B", "model.safetensors", VGGT),),
    909_112_320,
    248_829_172,
    1024,
    128,
)
LSEG_VIT_L = Part(
    "lseg",
    "LSeg",
    (
        Source(
            "lseg",
            "",
            "demo_e200.ckpt",
            LSEG,
            by_hand="open https://github.com/isl-org/lang-seg, follow its link to demo_e200.ckpt on Google Drive, and "
            "download it in the browser",
        ),
    ),
    343_867_384,
    63_428_097,
    1024,
    detail=64,
    head=512 * 10,
)

NANO = "nano"
"""The name of the weights that come with the package."""
RECIPES: dict[str, Recipe] = {
    recipe.name: recipe
    for recipe in (
        Recipe("apache-small", "the lightest: small onboard GPUs, CPUs", DA3_SMALL, TIPSV2_B),
        Recipe("apache", "real-world geometry and words, any use", DA3_BASE, TIPSV2_B),
        Recipe("apache-large-words", "as apache, words of the larger encoder", DA3_BASE, TIPSV2_L),
        Recipe("da3-large", "the best geometry of DA3 here, research only", DA3_LARGE, TIPSV2_L),
        Recipe("vggt-lseg", "the paper's parts, research only", VGGT_1B, LSEG_VIT_L),
    )
}
"""By name, lightest first."""
