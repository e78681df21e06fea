"""`ff3r convert`: public checkpoints (VGGT or Depth Anything 3; LSeg and CLIP, or TIPSv2) to a checkpoint of FF3R."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import arg

from ff3r_model.cli.steps_shown import steps_shown


@dataclass(frozen=True)
class Convert:
    """Make a checkpoint of public weights, one file for geometry and one for words; or rewrite one of FF3R's own.

    Geometry is VGGT-1B (--vggt) or Depth Anything 3 (--da3). Words are LSeg with CLIP (--lseg) or TIPSv2 (--tipsv2 with
    --tokenizer). Nothing in the given files is executed. The new file runs in lifting mode: public cameras, depth and
    semantics, no FF3R training. Mind the terms of the public weights: VGGT-1B's and DA3-LARGE's are non-commercial,
    those of DA3-SMALL, DA3-BASE and TIPSv2 are Apache-2.0.
    """

    output: Annotated[Path, arg(aliases=["-o"])]
    """Checkpoint to write (.safetensors)."""
    vggt: Path | None = None
    """VGGT-1B's model.pt or model.safetensors."""
    da3: Path | None = None
    """Depth Anything 3's model.safetensors (DA3-SMALL, DA3-BASE or DA3-LARGE), in place of --vggt."""
    lseg: Path | None = None
    """LSeg's demo_e200.ckpt, which also holds CLIP's text tower."""
    clip: Path | None = None
    """CLIP ViT-B/32's weights under OpenAI's names, in place of those in LSeg's file."""
    tipsv2: Path | None = None
    """TIPSv2's model.safetensors, of google/tipsv2-b14 or google/tipsv2-l14."""
    tokenizer: Path | None = None
    """TIPSv2's tokenizer.model."""
    ff3r: Path | None = None
    """A checkpoint of FF3R's own, in place of all the others."""
    channels: int = 64
    """Width of the compact semantic features; the text's own (LSeg 512, TIPSv2 768 or 1024) loses nothing and makes
    maps larger."""
    precision: Literal["float32", "float16", "bfloat16"] = "float32"
    """Of the stored weights; the narrower ones halve the file."""

    def __call__(self) -> str:
        """Write the checkpoint; returns the summary."""
        import torch

        from ff3r_model.network.public_weights.convert import convert, convert_own
        from ff3r_model.network.public_weights.sources import ConvertError, Sources

        dtype = None if self.precision == "float32" else getattr(torch, self.precision)
        public = {found.name: getattr(self, found.name) for found in fields(Sources)}
        with steps_shown("ff3r_model.network.public_weights"):
            if self.ff3r is not None:
                if any(public.values()):
                    others = ", ".join(f"--{name}" for name, path in public.items() if path)
                    raise ConvertError(f"--ff3r is a whole checkpoint: give it without {others}")
                convert_own(self.ff3r, self.output, dtype=dtype)
                return self._written()
            basis = convert(Sources(**public), self.output, channels=self.channels, dtype=dtype)
        kept = f"cosine kept {basis.mean_cosine:.3f} on average, {basis.worst_cosine:.3f} at worst"
        return f"{self._written()}\nlifting mode, {self.channels} channels; of {basis.words:,} words: {kept}"

    def _written(self) -> str:
        return f"{self.output}: {self.output.stat().st_size / 1e6:,.1f} MB"
