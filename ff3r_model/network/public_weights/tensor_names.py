"""The public checkpoints' tensors: which of them the network takes, and which it leaves, each by name.

VGGT-1B is a flat state dict. LSeg's Lightning file holds `state_dict` with everything under `net.`: the image side,
and the whole of CLIP under `net.clip_pretrained.`. TIPSv2's file holds its two towers under a prefix each.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping

from torch import Tensor, nn

from ff3r_model.network import FF3R
from ff3r_model.network.checkpoint import CheckpointError, assign
from ff3r_model.network.tipsv2_text import TIPSv2TextEncoder

LSEG_PREFIX = "net."
CLIP_PREFIX = "net.clip_pretrained."
TIPSV2_VISION = "vision_encoder."
TIPSV2_TEXT = "text_encoder."


def expand(*patterns: str) -> frozenset[str]:
    """Every name that the patterns spell: `{a,b}` is either, `{0-3}` a number of that range."""
    names = itertools.chain.from_iterable(_expand(pattern) for pattern in patterns)
    return frozenset(names)


def _expand(pattern: str) -> list[str]:
    parts = re.split(r"\{(.*?)\}", pattern)
    options = [_options(part) if index % 2 else [part] for index, part in enumerate(parts)]
    return ["".join(choice) for choice in itertools.product(*options)]


def _options(text: str) -> list[str]:
    if span := re.fullmatch(r"(\d+)-(\d+)", text):
        return [str(number) for number in range(int(span[1]), int(span[2]) + 1)]
    return text.split(",")


_DPT = (
    ".norm.{weight,bias}",
    ".projects.{0-3}.{weight,bias}",
    ".resize_layers.{0,1,3}.{weight,bias}",
    ".scratch.layer{1-4}_rn.weight",
    ".scratch.refinenet{1-4}.out_conv.{weight,bias}",
    ".scratch.refinenet{1-3}.resConfUnit1.conv{1,2}.{weight,bias}",
    ".scratch.refinenet{1-4}.resConfUnit2.conv{1,2}.{weight,bias}",
    ".scratch.output_conv1.{weight,bias}",
)
_SELF_ATTENTION = (
    ".norm{1,2}.{weight,bias}",
    ".attn.in_proj_{weight,bias}",
    ".attn.out_proj.{weight,bias}",
    ".mlp.fc{1,2}.{weight,bias}",
)
_CROSS_ATTENTION = (
    ".norm{1,2,_context}.{weight,bias}",
    ".cross_attn.in_proj_{weight,bias}",
    ".cross_attn.out_proj.{weight,bias}",
    ".mlp.fc{1,2}.{weight,bias}",
)
_UPDATER = "track_head.tracker.updateformer"

POINT_HEAD = expand(
    *("point_head" + name for name in _DPT),
    "point_head.scratch.output_conv2.{0,2}.{weight,bias}",
)
TRACK_HEAD = expand(
    *("track_head.feature_extractor" + name for name in _DPT),
    "track_head.tracker.query_ref_token",
    "track_head.tracker.corr_mlp.fc{1,2}.{weight,bias}",
    "track_head.tracker.{fmap_norm,ffeat_norm,ffeat_updater.0,vis_predictor.0,conf_predictor.0}.{weight,bias}",
    _UPDATER + ".virual_tracks",
    _UPDATER + ".{input_norm,input_transform,output_norm,flow_head}.{weight,bias}",
    *(_UPDATER + ".{time,space_virtual}_blocks.{0-5}" + name for name in _SELF_ATTENTION),
    *(_UPDATER + ".space_{point2virtual,virtual2point}_blocks.{0-5}" + name for name in _CROSS_ATTENTION),
)
VGGT_UNUSED = POINT_HEAD | TRACK_HEAD
"""FF3R has its own Gaussian decoder in their place."""

LSEG_UNUSED = expand(
    "pretrained.model.head.{weight,bias}",
    "scratch.refinenet4.resConfUnit1.conv{1,2}.weight",
    "scratch.refinenet4.resConfUnit1.bn{1,2}.{weight,bias,running_mean,running_var,num_batches_tracked}",
)
"""In the file, but read by no part of LSeg's own forward: ImageNet's classes, and a join with nothing to join."""

CLIP_UNUSED = expand(
    "{logit_scale,input_resolution,context_length,vocab_size}",
    "visual.{class_embedding,positional_embedding,proj,conv1.weight}",
    "visual.ln_{pre,post}.{weight,bias}",
    "visual.transformer.resblocks.{0-11}.ln_{1,2}.{weight,bias}",
    "visual.transformer.resblocks.{0-11}.attn.in_proj_{weight,bias}",
    "visual.transformer.resblocks.{0-11}.attn.out_proj.{weight,bias}",
    "visual.transformer.resblocks.{0-11}.mlp.c_{fc,proj}.{weight,bias}",
)
"""CLIP's image side, and constants of its training, three of which stand in OpenAI's own file alone."""


DA3 = "Depth Anything 3's"
KINDS = {
    "LSeg's": ("net.scratch.", "net.pretrained."),
    "TIPSv2's": (TIPSV2_VISION, TIPSV2_TEXT),
    "VGGT's": ("aggregator.", "camera_head.", "depth_head."),
    DA3: ("backbone.pretrained.", "cam_dec.", "cam_enc.", "da3.", "da3_metric."),
    "CLIP's": ("visual.", "transformer.resblocks.", "token_embedding.", "clip_pretrained."),
    "FF3R's own": ("network.", "text."),
    "CLIP's in Hugging Face's form": ("text_model.", "vision_model."),
    "a vision transformer's alone": ("patch_embed.", "blocks."),
}
"""Beginnings of names by which a file of weights is known."""


def kind_of(state: Mapping[str, Tensor]) -> str | None:
    """Whose weights these are, by their names; None for strangers."""
    counts = {kind: sum(name.startswith(beginnings) for name in state) for kind, beginnings in KINDS.items()}
    best = max(counts, key=lambda kind: counts[kind])
    return best if counts[best] else None


def expect(kind: str, option: str, state: Mapping[str, Tensor], source: str) -> None:
    """Raises CheckpointError, saying whose weights they are instead, unless `state` looks like `kind`."""
    found = kind_of(state)
    if found == kind:
        return
    some = ", ".join(list(state)[:3])
    what = f"looks like {found}" if found else "holds none that are known"
    rest = f" and {len(state) - 3} more" if len(state) > 3 else ""
    hint = "; --ff3r is for those" if found == "FF3R's own" else ""
    raise CheckpointError(f"{source} {what}, and {option} is for {kind} weights{hint}. It has {some}{rest}.")


def load_tipsv2(network: FF3R, state: Mapping[str, Tensor], source: str) -> None:
    """Fill the semantic encoder from TIPSv2's vision tower, of names as published, the text tower's among them."""
    assert network.tipsv2 is not None, "the configuration has another semantic encoder"
    assign(network.tipsv2, {name: x for name, x in state.items() if not name.startswith(TIPSV2_TEXT)}, source)


def load_tipsv2_text(encoder: TIPSv2TextEncoder, state: Mapping[str, Tensor], source: str) -> None:
    """Fill TIPSv2's text tower, and leave the tokenizer as it is. Raises CheckpointError naming what does not fit."""
    names = [name for name in state if name.startswith(TIPSV2_TEXT)]
    assign(encoder.tower, {name.removeprefix(TIPSV2_TEXT): state[name] for name in names}, source)


class Geometry(nn.Module):
    """The parts of FF3R that a geometry checkpoint fills, under VGGT's names."""

    def __init__(self, network: FF3R) -> None:
        super().__init__()
        self.aggregator = network.aggregator
        self.camera_head = network.camera_head
        self.depth_head = network.depth_head


def load_vggt(network: FF3R, state: Mapping[str, Tensor], source: str) -> None:
    """Fill aggregator, camera head and depth head. Raises CheckpointError naming what does not fit."""
    expect("VGGT's", "--vggt", state, source)
    assign(Geometry(network), _without(state, VGGT_UNUSED), source)


def load_lseg(network: FF3R, state: Mapping[str, Tensor], source: str) -> None:
    """Fill the semantic encoder from the image side of LSeg, names without `net.`."""
    assert network.lseg is not None, "the configuration has another semantic encoder"
    assign(network.lseg, _without(state, LSEG_UNUSED), source)


def split_lseg(state: Mapping[str, Tensor], source: str) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """LSeg's image side, and CLIP's text tower, both without prefixes. Raises CheckpointError for another file."""
    expect("LSeg's", "--lseg", state, f"{source} (demo_e200.ckpt is wanted)")
    if stray := [name for name in state if not name.startswith(LSEG_PREFIX)]:
        raise CheckpointError(
            f"{source}: expected only tensors under {LSEG_PREFIX!r}, found {stray[0]!r} and {len(stray) - 1} more. "
            "Is this LSeg's demo_e200.ckpt?"
        )
    image = {name.removeprefix(LSEG_PREFIX): x for name, x in state.items() if not name.startswith(CLIP_PREFIX)}
    clip = {name.removeprefix(CLIP_PREFIX): x for name, x in state.items() if name.startswith(CLIP_PREFIX)}
    return image, text_tower(clip)


def text_tower(clip: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """CLIP's tensors without its image side."""
    return _without(clip, CLIP_UNUSED)


def _without(state: Mapping[str, Tensor], unused: frozenset[str]) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in state.items() if name not in unused}
