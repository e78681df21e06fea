"""Does the full-size network compute what the published code computes?

    python -m benchmarks.network.parity FILE.npz ... [--json FILE]

Each FILE holds inputs, and the published implementation's outputs under stand-in weights: values that follow from
each tensor's published name and shape alone. The same stand-in weights go through the loaders that `ff3r convert`
uses into the full-size network, which runs in float32 on the CPU. Prints each output's relative error ‖ours - theirs‖
/ ‖theirs‖ and exits 0 only if all are at most 1e-3; Depth Anything 3's tokens and TIPSv2's text embeddings are held
to 1e-5. LSeg's stand-in running variances are tried by two rules, because the written one misses the reference file:
both errors are printed, the smaller counts. Needs about 8 GB of memory, and 2 GB for Depth Anything 3 alone. The
lists of published names and shapes (vggt_1b_shapes.json and so on) are read from tests/reference. TIPSv2's tokenizer
is not needed, since the files have token ids.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from benchmarks.network.parity_da3 import compare as compare_da3
from benchmarks.network.standin_values import VARIANCE_NOISE, standin_state, standin_tensor
from ff3r_model.network import FF3R, FF3RConfig
from ff3r_model.network.config import TIPSv2Config
from ff3r_model.network.public_weights.tensor_names import (
    load_lseg,
    load_tipsv2,
    load_tipsv2_text,
    load_vggt,
    text_tower,
)
from ff3r_model.network.text_encoder import TextEncoder, load_clip_text
from ff3r_model.network.tipsv2 import TIPSv2
from ff3r_model.network.tipsv2_text import TextTower, TIPSv2TextConfig, TIPSv2TextEncoder, ensemble

LIMIT = 1e-3
STRICT = ("tokens", "camera_token", "camera_tokens_in", "text_embeddings", "ensemble_embedding")
"""Outputs whose errors no decoder has enlarged: they are held to `STRICT_LIMIT`."""
STRICT_LIMIT = 1e-5
SHAPES = Path(__file__).resolve().parents[2] / "tests" / "reference"
TIPSV2 = {
    768: ("b14", TIPSv2Config.b14(), TIPSv2TextConfig.b14(1)),
    1024: ("l14", TIPSv2Config.l14(), TIPSv2TextConfig.l14(1)),
}
"""TIPSv2's sizes by their width; the tokenizer is none."""
TIPSV2_WORDS = "tipsv2_text_4.npz"
"""Whose token ids `value_cosines` are about, where a file has none of its own."""

Arrays = Mapping[str, np.ndarray]


@dataclass
class Models:
    """The full-size networks under stand-in weights, each part filled when first needed and shared by all files."""

    shapes: Path = SHAPES
    config: FF3RConfig = field(default_factory=lambda: replace(FF3RConfig.full(), decode_gaussians=False))
    _tipsv2: dict[int, tuple[TIPSv2, TextTower]] = field(default_factory=dict)

    @cached_property
    def _empty(self) -> FF3R:
        with torch.device("meta"):
            return FF3R(self.config).eval()

    @cached_property
    def with_lseg(self) -> FF3R:
        """The network, of which LSeg's part may be used."""
        load_lseg(self._empty, standin_state(self.shapes / "lseg_vitl16_shapes.json"), "stand-in LSeg")
        return self._empty

    @cached_property
    def whole(self) -> FF3R:
        """The network with VGGT's and LSeg's weights; it decodes no Gaussians, as in lifting mode."""
        network = self.with_lseg
        load_vggt(network, standin_state(self.shapes / "vggt_1b_shapes.json"), "stand-in VGGT")
        network.feature_decoder.weight = torch.nn.Parameter(torch.eye(*network.feature_decoder.weight.shape))
        return network

    @cached_property
    def text(self) -> TextEncoder:
        """CLIP's text tower."""
        return load_clip_text(text_tower(standin_state(self.shapes / "clip_vitb32_shapes.json")))

    def tipsv2(self, width: int) -> tuple[TIPSv2, TextTower]:
        """TIPSv2's two towers, of the size that has this width."""
        if width not in TIPSV2:
            raise SystemExit(f"TIPSv2 is known with widths {list(TIPSV2)}, not {width}")
        if width not in self._tipsv2:
            name, image, text = TIPSV2[width]
            state = standin_state(self.shapes / f"tipsv2_{name}_shapes.json")
            config = replace(self.config, lseg=None, tipsv2=image, text_width=width)
            with torch.device("meta"):
                network, encoder = FF3R(config).eval(), TIPSv2TextEncoder(text).eval()
            load_tipsv2(network, state, "stand-in TIPSv2")
            load_tipsv2_text(encoder, state, "stand-in TIPSv2")
            assert network.tipsv2 is not None
            self._tipsv2[width] = network.tipsv2, encoder.tower
        return self._tipsv2[width]


def compare_vggt(arrays: Arrays, models: Models) -> dict[str, float]:
    """Last tokens, pose encoding, depth and its confidence."""
    output = models.whole(torch.from_numpy(arrays["images"]), semantics=False)
    ours = {
        "tokens_last": output.tokens,
        "pose_enc": output.pose_encodings[-1],
        "depth": output.depth[..., None],
        "depth_conf": output.depth_confidence,
    }
    return {
        name: relative_error(ours[_stem(name)][:, :, :: _step(name)] if _step(name) > 1 else ours[_stem(name)], theirs)
        for name, theirs in arrays.items()
        if _stem(name) in ours
    }


def compare_lseg(arrays: Arrays, models: Models) -> dict[str, float]:
    """Dense features, of which a file may hold every n-th channel and every second row and column."""
    lseg, images = models.with_lseg.lseg, torch.from_numpy(arrays["images"])
    name = next(name for name in arrays if _stem(name) == "features")
    step, errors = _step(name), {}
    for noise in VARIANCE_NOISE:
        set_running_variances(lseg, noise)
        features = lseg(images).features
        errors[noise] = relative_error(features[:, ::step, ::2, ::2] if step > 1 else features, arrays[name])
    rules = " and ".join(f"{error:.2e} with |{noise:g}·noise| + 0.5" for noise, error in errors.items())
    print(f"  {rules} as stand-in running_var: the file follows the nearer (see VARIANCE_NOISE)")
    return {name: min(errors.values())}


def set_running_variances(lseg: torch.nn.Module, noise: float) -> None:
    """Change the BatchNorms' stand-in running variances from one rule to the other."""
    for name, buffer in lseg.named_buffers():
        if name.endswith("running_var"):
            published = standin_tensor(name, tuple(buffer.shape))
            buffer.copy_((published - 0.5) * (noise / VARIANCE_NOISE[0]) + 0.5)


def compare_clip(arrays: Arrays, models: Models) -> dict[str, float]:
    """Token ids of the texts, and their features as the tower gives them, not normalised."""
    texts = [str(text) for text in arrays["texts"]]
    tokens = models.text.tokenize(texts)
    return {
        "token_ids": relative_error(tokens, arrays["token_ids"]),
        "text_features": relative_error(models.text(tokens), arrays["text_features"]),
    }


def compare_tipsv2(arrays: Arrays, models: Models, folder: Path) -> dict[str, float]:
    """Patch tokens, the two class tokens, dense features, and their cosines with texts."""
    tokens = next(array for name, array in arrays.items() if _stem(name) in ("patch_tokens", "value_tokens"))
    encoder, tower = models.tipsv2(tokens.shape[-1])
    images = torch.from_numpy(arrays["images"])
    all_tokens, seen = encoder.vision_encoder.all_tokens(images), encoder(images).features
    special = 1 + encoder.config.vit.registers
    ours = {
        "patch_tokens": all_tokens[:, special:],
        "cls_tokens": all_tokens[:, :special],
        "value_tokens": seen.flatten(2).transpose(1, 2),
    }
    if "value_cosines" in arrays:
        words = normalize(tower(torch.from_numpy(_words(arrays, folder))), dim=-1)
        ours["value_cosines"] = torch.einsum("qd,ndhw->nqhw", words, normalize(seen, dim=1))
    return _relative_errors(ours, arrays, dim=1)


def compare_tipsv2_text(arrays: Arrays, models: Models) -> dict[str, float]:
    """Features of token ids, not normalised, and those of several sentences as one text's."""
    _, tower = models.tipsv2(arrays["text_embeddings"].shape[-1])
    features = tower(torch.from_numpy(arrays["token_ids"]))
    return _relative_errors({"text_embeddings": features, "ensemble_embedding": ensemble(features)}, arrays, dim=0)


def _words(arrays: Arrays, folder: Path) -> np.ndarray:
    """Token ids of the texts that a file's cosines are about: its own, or those of the file beside it."""
    if "token_ids" in arrays:
        return arrays["token_ids"]
    near = [path for path in (folder / TIPSV2_WORDS, SHAPES / TIPSV2_WORDS) if path.is_file()]
    with np.load(near[0], allow_pickle=False) as file:
        return file["token_ids"]


def _relative_errors(ours: Mapping[str, Tensor], arrays: Arrays, dim: int) -> dict[str, float]:
    """Of the outputs that the file has; of those named `_every2nd` and so on it has every second along `dim`."""
    pairs = {name: ours[_stem(name)] for name in arrays if _stem(name) in ours}
    return {
        name: relative_error(output.index_select(dim, torch.arange(0, output.shape[dim], _step(name))), arrays[name])
        for name, output in pairs.items()
    }


def relative_error(ours: Tensor, theirs: np.ndarray) -> float:
    """‖ours - theirs‖ / ‖theirs‖, or ‖ours‖ where theirs is 0; infinite where the shapes differ."""
    if tuple(ours.shape) != theirs.shape:
        return float("inf")
    reference = torch.from_numpy(np.asarray(theirs)).double()
    return float((ours.double() - reference).norm() / (reference.norm() or 1.0))


def agrees(name: str, error: float) -> bool:
    """Whether an output's relative error is small enough."""
    return error <= (STRICT_LIMIT if _stem(name) in STRICT else LIMIT)


def compare(path: Path, models: Models) -> dict[str, float]:
    """Relative errors of every output in the file, whose keys say which network it is about."""
    with np.load(path, allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    stems = {_stem(name) for name in arrays}
    with torch.inference_mode():
        if "preset" in arrays:
            return {name: relative_error(*pair) for name, pair in compare_da3(arrays, models.shapes).items()}
        if {"images", "pose_enc"} <= stems:
            return compare_vggt(arrays, models)
        if {"images", "features"} <= stems:
            return compare_lseg(arrays, models)
        if {"texts", "text_features"} <= stems:
            return compare_clip(arrays, models)
        errors = {}
        if "images" in stems and stems & {"patch_tokens", "value_tokens"}:
            errors |= compare_tipsv2(arrays, models, path.parent)
        if {"token_ids", "text_embeddings"} <= stems:
            errors |= compare_tipsv2_text(arrays, models)
        if errors:
            return errors
    known = "VGGT, Depth Anything 3, LSeg, CLIP and TIPSv2"
    raise SystemExit(f"{path}: its keys {sorted(arrays)} fit none of {known}")


def _stem(name: str) -> str:
    return re.sub(r"_every\d+(st|nd|rd|th)$", "", name)


def _step(name: str) -> int:
    found = re.search(r"_every(\d+)", name)
    return int(found[1]) if found else 1


def main() -> int:
    """Compare all files, print a table, and say by the exit status whether all agree."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    arguments = parser.parse_args()
    models, figures, wrong = Models(), {}, False
    for path in arguments.files:
        for name, error in compare(path, models).items():
            figures[f"parity_{path.stem}_{name}"] = error
            wrong = wrong or not agrees(name, error)
            print(f"{path.name:<28} {name:<28} {error:.2e}  {'ok' if agrees(name, error) else 'DIFFERS'}", flush=True)
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(figures, indent=1) + "\n")
    return 0 if figures and not wrong else 1


if __name__ == "__main__":
    sys.exit(main())
