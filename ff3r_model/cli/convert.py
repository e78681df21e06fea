"""`ff3r convert`: from public checkpoints (VGGT or Depth Anything 3, LSeg, CLIP) to a checkpoint of FF3R."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import arg

from ff3r_model.cli.steps_shown import steps_shown


@dataclass(frozen=True)
class Convert:
    """Make a checkpoint of public weights (geometry and LSeg), or check and rewrite one of FF3R's own.

    Nothing in the given files is executed. The new file runs in lifting mode: cameras and depth of VGGT or Depth
    Anything 3, LSeg's semantics, no FF3R training. Mind the terms of the public weights: VGGT-1B's and
    DA3-LARGE's are non-commercial, DA3-SMALL's and DA3-BASE's are Apache-2.0.
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
    ff3r: Path | None = None
    """A checkpoint of FF3R's own, in place of all the others."""
    channels: int = 64
    """Width of the compact semantic features; 512 loses nothing and makes maps larger."""
    precision: Literal["float32", "float16", "bfloat16"] = "float32"
    """Of the stored weights; the narrower ones halve the file."""

    def __call__(self) -> str:
        """Write the checkpoint; returns the summary."""
        import torch

        from ff3r_model.network.public_weights import convert

        dtype = None if self.precision == "float32" else getattr(torch, self.precision)
        if self.ff3r is not None and (self.vggt or self.da3 or self.lseg or self.clip):
            raise convert.ConvertError("--ff3r is a whole checkpoint: give it without --vggt, --da3, --lseg and --clip")
        with steps_shown(convert.__name__):
            if self.ff3r is not None:
                convert.convert_own(self.ff3r, self.output, dtype=dtype)
                return self._written()
            if (self.vggt is None) == (self.da3 is None) or self.lseg is None:
                raise convert.ConvertError("give --vggt or --da3, and --lseg; or --ff3r for a checkpoint of FF3R's own")
            basis = convert.convert(
                self.vggt,
                self.lseg,
                self.output,
                da3=self.da3,
                clip=self.clip,
                channels=self.channels,
                dtype=dtype,
            )
        kept = f"cosine kept {basis.mean_cosine:.3f} on average, {basis.worst_cosine:.3f} at worst"
        return f"{self._written()}\nlifting mode, {self.channels} channels; of {basis.words:,} words: {kept}"

    def _written(self) -> str:
        return f"{self.output}: {self.output.stat().st_size / 1e6:,.1f} MB"
