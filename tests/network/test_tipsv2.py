"""TIPSv2's image side against a plain computation, and the published names."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.network.standin_values import standin_tensor
from ff3r_model.network.config import FF3RConfig, TIPSv2Config
from ff3r_model.network.tipsv2 import TIPSv2
from ff3r_model.network.tipsv2_text import TextTower, TIPSv2TextConfig
from tests.support.tiny_tipsv2 import IMAGE

REFERENCE = Path(__file__).parents[1] / "reference"


@pytest.fixture(scope="module")
def encoder() -> TIPSv2:
    made = TIPSv2(IMAGE).eval()
    made.load_state_dict({name: standin_tensor(name, tuple(x.shape)) for name, x in made.state_dict().items()})
    return made


@pytest.mark.parametrize("size", ["b14", "l14"])
def test_names_and_shapes_are_the_published_ones(size: str) -> None:
    published = json.loads((REFERENCE / f"tipsv2_{size}_shapes.json").read_text())
    with torch.device("meta"):
        image = TIPSv2(getattr(TIPSv2Config, size)()).state_dict()
        text = TextTower(getattr(TIPSv2TextConfig, size)(1)).state_dict()
    ours = image | {f"text_encoder.{name}": tensor for name, tensor in text.items()}
    assert {name: list(tensor.shape) for name, tensor in ours.items()} == published


def plain_block(state: dict[str, Tensor], x: Tensor, heads: int, values: bool) -> Tensor:
    """A block of the tower, of one image's tokens in float64: attention, or each token's own value."""

    def linear(name: str, x: Tensor) -> Tensor:
        return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]

    def norm(name: str, x: Tensor) -> Tensor:
        centred = x - x.mean(1, keepdim=True)
        unit = centred / (centred.square().mean(1, keepdim=True) + 1e-6).sqrt()
        return unit * state[f"{name}.weight"] + state[f"{name}.bias"]

    q, k, v = linear("attn.qkv", norm("norm1", x)).chunk(3, dim=1)
    parts = []
    for head in range(heads):
        own = slice(head * x.shape[1] // heads, (head + 1) * x.shape[1] // heads)
        weights = (q[:, own] @ k[:, own].T / (x.shape[1] / heads) ** 0.5).softmax(1)
        parts.append(v[:, own] if values else weights @ v[:, own])
    x = x + state["ls1.gamma"] * linear("attn.proj", torch.cat(parts, 1))
    hidden = linear("mlp.fc1", norm("norm2", x))
    gelu = hidden * (1 + torch.erf(hidden / 2**0.5)) / 2
    return x + state["ls2.gamma"] * linear("mlp.fc2", gelu)


def test_features_are_each_patch_alone_in_the_last_block(encoder: TIPSv2) -> None:
    images, vit = torch.rand(1, 3, 28, 70), encoder.vision_encoder
    with torch.inference_mode():
        seen = encoder(images)
        x = vit.embed(images)[0].double()
        for index, block in enumerate(vit.blocks):
            state = {name: tensor.double() for name, tensor in block.state_dict().items()}
            x = plain_block(state, x, IMAGE.vit.heads, values=index == len(vit.blocks) - 1)
        expected = F.layer_norm(x[2:], (64,), vit.norm.weight.double(), vit.norm.bias.double(), 1e-6)
    ours = seen.features[0].permute(1, 2, 0)
    assert ours.shape == (2, 5, 64) and seen.tokens is seen.features
    torch.testing.assert_close(ours.flatten(0, 1).double(), expected, rtol=1e-4, atol=1e-5)


def test_images_come_on_the_geometrys_grid(encoder: TIPSv2) -> None:
    same, other = torch.rand(1, 3, 28, 42), torch.rand(1, 3, 32, 48)
    assert encoder.resize(same, (2, 3)) is same
    assert encoder.resize(other, (2, 3)).shape == (1, 3, 28, 42)
    assert encoder.see(other, (2, 3)).features.shape == (1, 64, 2, 3)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"tipsv2": IMAGE}, "lseg or tipsv2 must be the semantic encoder and the other null, not both"),
        ({"lseg": None}, "lseg or tipsv2 must be the semantic encoder and the other null, not neither"),
        ({"lseg": None, "tipsv2": IMAGE}, "text_width must be TIPSv2's own, 64, not 512"),
    ],
)
def test_one_semantic_encoder_in_the_texts_width(changes: dict, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        FF3RConfig(**changes)


def test_the_configuration_survives_json() -> None:
    config = FF3RConfig(lseg=None, tipsv2=TIPSv2Config.l14(), text_width=1024)
    assert FF3RConfig.from_json(config.to_json()) == config
    older = json.loads(FF3RConfig.full().to_json())
    del older["tipsv2"]
    assert FF3RConfig.from_json(json.dumps(older)) == FF3RConfig.full()
