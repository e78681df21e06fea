"""Files of public weights to convert: which of them go together."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from pathlib import Path

from ff3r_model.core.errors import UserError
from ff3r_model.network.public_weights.geometry import GEOMETRY

SourcePath = str | os.PathLike[str]
TOKENIZER = "tokenizer.model"


class ConvertError(UserError):
    """Options that do not go together; the message says which values do."""


@dataclass(frozen=True, kw_only=True)
class Sources:
    """One geometry and one semantic encoder. Raises ConvertError unless exactly that is given, with what it needs."""

    vggt: SourcePath | None = None
    """VGGT-1B's model.pt or model.safetensors."""
    da3: SourcePath | None = None
    """Depth Anything 3's model.safetensors; its tensors tell which size it is of."""
    lseg: SourcePath | None = None
    """LSeg's Lightning file, which holds CLIP's text tower."""
    clip: SourcePath | None = None
    """Another file to take CLIP's text tower from."""
    tipsv2: SourcePath | None = None
    """TIPSv2's model.safetensors, or the folder that it is in."""
    tokenizer: SourcePath | None = None
    """TIPSv2's tokenizer.model, or the folder that it is in."""

    def __post_init__(self) -> None:
        given = [kind for kind in GEOMETRY if getattr(self, kind) is not None]
        if len(given) != 1:
            known, found = (" or ".join(f"--{kind}" for kind in kinds) for kinds in (GEOMETRY, given))
            raise ConvertError(
                f"give one file for cameras and depth, {known}, not {found or 'none'}; --ff3r is for FF3R's own"
            )
        if (self.lseg is None) == (self.tipsv2 is None):
            found = "none" if self.lseg is None else "both"
            raise ConvertError(f"give one semantic encoder, --lseg, or --tipsv2 with --tokenizer, not {found}")
        if self.tipsv2 is not None and self.tokenizer is None:
            raise ConvertError(f"--tipsv2 needs --tokenizer, the {TOKENIZER} that lies beside it on the hub")
        if self.tipsv2 is None and self.tokenizer is not None:
            raise ConvertError("--tokenizer is TIPSv2's: give it with --tipsv2, not with --lseg")
        if self.lseg is None and self.clip is not None:
            raise ConvertError("--clip is LSeg's text tower: give it with --lseg, not with --tipsv2")

    @property
    def geometry(self) -> tuple[str, SourcePath]:
        """The geometry's kind and its file."""
        return next((kind, path) for kind in GEOMETRY if (path := getattr(self, kind)) is not None)

    @property
    def given(self) -> dict[str, SourcePath]:
        """All paths that are given, by option; the tokenizer's own, be it given or its folder."""
        paths: dict[str, SourcePath] = {name: path for name, path in asdict(self).items() if path is not None}
        return paths | ({} if self.tokenizer is None else {"tokenizer": tokenizer_file(self.tokenizer)})


def tokenizer_file(path: SourcePath) -> Path:
    """The tokenizer itself, be it given or the folder that it is in."""
    path = Path(path).expanduser()
    return path / TOKENIZER if path.is_dir() else path
