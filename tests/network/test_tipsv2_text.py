"""TIPSv2's text side: tokenizer, tower and prompts against plain computations and, where it is there, transformers."""

from __future__ import annotations

import logging
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from benchmarks.network.standin_values import standin_tensor
from ff3r_model.network.sentencepiece_model import MAX_BYTES, SentencePieceModel, TokenizerError
from ff3r_model.network.tipsv2_text import TEMPLATES, TextTower, TIPSv2TextConfig, TIPSv2TextEncoder, sinusoids
from tests.support.tiny_tipsv2 import PIECES, text_config, text_encoder, tokenizer


@pytest.fixture
def encoder() -> TIPSv2TextEncoder:
    return text_encoder()


def filled(tower: TextTower) -> TextTower:
    """With the stand-in weights of the published names."""
    names = {name: tuple(x.shape) for name, x in tower.state_dict().items()}
    tower.load_state_dict({name: standin_tensor(f"text_encoder.{name}", shape) for name, shape in names.items()})
    return tower.eval()


def plain_features(state: dict[str, Tensor], ids: list[int], heads: int) -> Tensor:
    """The tower in float64, of one text without padding."""

    def linear(name: str, x: Tensor) -> Tensor:
        return x @ state[f"{name}weight"].T + state[f"{name}bias"]

    def norm(name: str, x: Tensor) -> Tensor:
        return F.layer_norm(x, (x.shape[1],), state[f"{name}.weight"], state[f"{name}.bias"], 1e-5)

    width = state["ln_final.bias"].numel()
    half = width // 2
    position = [
        [(math.sin, math.cos)[i // half](p * 10000 ** (-(i % half) / (half - 1))) for i in range(width)]
        for p in range(len(ids))
    ]
    x = state["token_embedding.weight"][ids] * width**0.5 + torch.tensor(position, dtype=torch.float64)
    for layer in range(sum(name.endswith("ln_1.weight") for name in state)):
        at = f"transformer.resblocks.{layer}."
        q, k, v = linear(f"{at}attn.in_proj_", norm(f"{at}ln_1", x)).chunk(3, dim=1)
        q, k, v = (y.unflatten(1, (heads, -1)).transpose(0, 1) for y in (q, k, v))
        attended = (q @ k.mT / (width / heads) ** 0.5).softmax(-1) @ v
        x = x + linear(f"{at}attn.out_proj.", attended.transpose(0, 1).flatten(1))
        x = x + linear(f"{at}mlp.c_proj.", linear(f"{at}mlp.c_fc.", norm(f"{at}ln_2", x)).clamp_min(0))
    return norm("ln_final", x).mean(0)


def test_the_tower_is_not_causal_and_ends_in_the_mean_of_real_tokens(encoder: TIPSv2TextEncoder) -> None:
    tower = filled(encoder.tower)
    state = {name: tensor.double() for name, tensor in tower.state_dict().items()}
    texts = [[5], [300, 7, 12], [*range(20, 36)]]
    padded = torch.tensor([[*ids, *[0] * (20 - len(ids))] for ids in texts])
    with torch.inference_mode():
        ours = tower(padded)
        expected = torch.stack([plain_features(state, ids, encoder.config.heads) for ids in texts])
        assert (ours.double() - expected).norm() < 1e-6 * expected.norm()
        torch.testing.assert_close(tower(padded[:, :16]), ours, rtol=1e-5, atol=1e-6)


def test_no_token_is_the_zero_vector_and_harms_no_other_text(encoder: TIPSv2TextEncoder) -> None:
    with torch.inference_mode():
        features = encoder(torch.tensor([[0, 0, 0], [5, 6, 0]]))
        torch.testing.assert_close(features[1:], encoder(torch.tensor([[5, 6]])))
    assert not features[0].any() and features[1].any()


def test_positions_are_sines_then_cosines() -> None:
    table = sinusoids(5, 8, torch.device("cpu"))
    rates = 10000.0 ** (-np.arange(4) / 3)
    angles = np.arange(5)[:, None] * rates
    np.testing.assert_allclose(table.numpy(), np.concatenate([np.sin(angles), np.cos(angles)], 1), atol=1e-6)


def test_ids_are_the_librarys_of_the_lower_cased_text(
    encoder: TIPSv2TextEncoder, caplog: pytest.LogCaptureFixture
) -> None:
    model = SentencePieceModel(tokenizer(), PIECES)
    ids = encoder.tokenize(["A Red  CHAIR", "a red chair", "hello", ""])
    assert ids[0].tolist() == ids[1].tolist() == model.encode("a red chair") != model.encode("A Red  CHAIR")
    assert ids[2].tolist() == model.encode("hello") + [0] * (ids.shape[1] - len(model.encode("hello")))
    assert not ids[3].any() and not caplog.records
    with caplog.at_level(logging.WARNING):
        long = encoder.tokenize(["chair " * 40, "door"])
    assert long.shape == (2, 32) and long[0].all() and "cut to 32 tokens" in caplog.text and "door" not in caplog.text


def test_a_texts_vector_is_the_mean_of_its_sentences(encoder: TIPSv2TextEncoder) -> None:
    assert encoder.config.templates == TEMPLATES and len(TEMPLATES) == 9
    with torch.inference_mode():
        sentences = [encoder(encoder.tokenize([template.replace("{}", "red chair")]))[0] for template in TEMPLATES]
    mean = sum(vector / vector.norm() for vector in sentences) / 9
    vectors = encoder.encode(["Red chair", "door"])
    torch.testing.assert_close(vectors[0], mean / mean.norm(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(vectors.norm(dim=1), torch.ones(2))
    assert encoder.encode([]).shape == (0, 64)


def test_braces_and_many_texts_are_taken(encoder: TIPSv2TextEncoder) -> None:
    assert encoder.encode(["{0} {name} {", *map(str, range(100))]).isfinite().all()


def test_a_long_query_is_told_once(encoder: TIPSv2TextEncoder, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        encoder.encode(["chair " * 40])
    assert len(caplog.records) == 1 and "cut" in caplog.text


def test_words_without_pieces_are_unknown(encoder: TIPSv2TextEncoder) -> None:
    assert encoder.unknown_words("the Red chair, a lamp ... !") == []
    assert encoder.unknown_words("马桶 🚽 chair") == ["马桶", "🚽"]


def test_vectors_are_kept_until_weights_change(encoder: TIPSv2TextEncoder) -> None:
    calls: list[int] = []
    encoder.tower.register_forward_hook(lambda module, args, output: calls.append(len(args[0])))
    first = encoder.encode(["chair"])
    assert torch.equal(encoder.encode(["chair"]), first) and calls == [9]
    other = {
        name: x + 0.1 * torch.randn_like(x) if x.is_floating_point() else x for name, x in encoder.state_dict().items()
    }
    encoder.load_state_dict(other)
    assert not torch.allclose(encoder.encode(["chair"]), first)


def test_the_temperature_is_the_learned_one() -> None:
    assert TIPSv2TextConfig.b14(1).temperature == 0.005065968260169029
    assert TIPSv2TextConfig.l14(1).temperature == 0.004785141441971064
    assert replace(text_config(), temperature=0.1).temperature == 0.1


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (lambda: b"", "is no SentencePiece model"),
        (lambda: b'{"version": "1.0", "model": {}}', "is no SentencePiece model"),
        (lambda: tokenizer()[:1000], "is no SentencePiece model"),
        (lambda: tokenizer(pieces=320), "has 320 pieces, and the weights are of 340"),
        (lambda: tokenizer(pad=-1), "first piece must be padding, not '<unk>'"),
        (lambda: bytes(MAX_BYTES + 1), "bytes, and SentencePiece models at most"),
    ],
)
def test_other_tokenizers_are_refused(data, reason: str) -> None:
    with pytest.raises(TokenizerError, match=reason):
        SentencePieceModel(data(), PIECES)


@pytest.mark.fuzz
@given(places=st.lists(st.integers(min_value=0), min_size=1, max_size=50), share=st.floats(0, 2))
def test_damaged_tokenizers_are_refused_or_give_ids_of_the_vocabulary(places: list[int], share: float) -> None:
    data = bytearray(tokenizer())
    for place in places:
        data[place % len(data)] = place % 251
    try:
        model = SentencePieceModel(bytes(data[: int(share * len(data))]), PIECES)
    except TokenizerError:
        return
    assert all(0 <= each < PIECES for each in model.encode("a photo of a red chair 椅子 😊 ﬁ Ａ"))
    assert isinstance(model.knows("椅子"), bool)
