"""TIPSv2's towers against those of transformers and timm; skipped where these are not installed."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest
import torch

from benchmarks.network.standin import write_tipsv2
from benchmarks.network.standin_values import standin_tensor
from ff3r_model.network import FF3R, FF3RConfig
from ff3r_model.network.config import TIPSv2Config
from ff3r_model.network.public_weights.read_weights import read_tensors
from ff3r_model.network.public_weights.tensor_names import load_tipsv2, load_tipsv2_text
from ff3r_model.network.tipsv2 import TIPSv2
from ff3r_model.network.tipsv2_text import TIPSv2TextConfig, TIPSv2TextEncoder
from tests.support.tiny_tipsv2 import IMAGE

SIZES = {"small": (64, 2, 4), "medium": (192, 3, 3), "base": (768, 12, 12)}
"""Width, blocks and heads of both towers."""
LIMIT = 1e-5


@pytest.fixture(scope="module", params=["small", "medium", pytest.param("base", marks=pytest.mark.long)])
def towers(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple:
    """Ours and transformers', of one file of the published names: image side and text side."""
    transformers = pytest.importorskip("transformers", minversion="5.23")
    width, depth, heads = SIZES[request.param]
    image = TIPSv2Config(replace(TIPSv2Config.b14().vit, width=width, depth=depth, heads=heads))
    text = TIPSv2TextConfig(1, width=width, heads=heads, layers=depth, vocabulary=500)
    folder = tmp_path_factory.mktemp(request.param)
    state = read_tensors(write_tipsv2(folder, image, text))
    config = replace(FF3RConfig.full(), lseg=None, tipsv2=image, text_width=width, decode_gaussians=False)
    with torch.device("meta"):
        network, encoder = FF3R(config).eval(), TIPSv2TextEncoder(text).eval()
    load_tipsv2(network, state, "stand-in")
    load_tipsv2_text(encoder, state, "stand-in")
    shared = {"hidden_size": width, "num_hidden_layers": depth, "num_attention_heads": heads}
    words = transformers.Tipsv2TextConfig(vocab_size=500, intermediate_size=4 * width, **shared)
    picture = transformers.Tipsv2VisionConfig(**shared)
    their_text = transformers.Tipsv2TextModel.from_pretrained(folder, config=words).eval()
    their_image = transformers.Tipsv2VisionModel.from_pretrained(folder, config=picture).eval()
    return network.tipsv2, their_image, encoder.tower, their_text


def error(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    assert ours.shape == theirs.shape
    return float((ours - theirs).norm() / theirs.norm())


@pytest.mark.parametrize(("height", "width"), [(56, 84), (98, 70), (448, 448)])
def test_image_tokens(towers: tuple, height: int, width: int) -> None:
    ours, theirs = towers[:2]
    images = torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = theirs(pixel_values=images).last_hidden_state
        assert error(ours.vision_encoder.all_tokens(images), expected) < LIMIT


def test_text_features(towers: tuple) -> None:
    ours, theirs = towers[2:]
    ids = torch.randint(1, 500, (3, 20), generator=torch.Generator().manual_seed(0))
    ids[0, 3:], ids[1, 11:] = 0, 0
    with torch.inference_mode():
        expected = theirs(input_ids=ids, attention_mask=(ids != 0).long()).pooler_output
        assert error(ours(ids), expected) < LIMIT


@pytest.mark.parametrize(("height", "width"), [(56, 56), (28, 84), (98, 70)])
def test_image_tokens_of_timm(height: int, width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """timm resizes positions bicubically, which the published code does not: it is told to do as that does."""
    vision_transformer = pytest.importorskip("timm.models.vision_transformer", minversion="1.0.31")
    bilinear = partial(vision_transformer.resample_abs_pos_embed, interpolation="bilinear")
    monkeypatch.setattr(vision_transformer, "resample_abs_pos_embed", bilinear)
    sizes, ours = IMAGE.vit, TIPSv2(IMAGE).eval()
    ours.load_state_dict({name: standin_tensor(name, tuple(x.shape)) for name, x in ours.state_dict().items()})
    theirs = vision_transformer.vit_base_patch14_reg1_tipsv2(
        embed_dim=sizes.width, depth=sizes.depth, num_heads=sizes.heads, img_size=14 * sizes.grid, dynamic_img_size=True
    ).eval()
    state = {name.removeprefix("vision_encoder."): x for name, x in ours.state_dict().items()}
    state["cls_token"] = state["cls_token"] + state["pos_embed"][:, :1]
    state["pos_embed"] = state["pos_embed"][:, 1:]
    state["reg_token"] = state.pop("register_tokens")
    del state["mask_token"]
    theirs.load_state_dict(state)
    images = torch.rand(2, 3, height, width)
    with torch.inference_mode():
        assert error(ours.vision_encoder.all_tokens(images), theirs.forward_features(images)) < LIMIT
