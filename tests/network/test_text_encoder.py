"""The text encoder against the published CLIP text tower's recorded features, and its own promises."""

from __future__ import annotations

import json
import logging
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from open_clip import get_tokenizer

from benchmarks.network.standin_values import standin_tensor
from ff3r_model.network.checkpoint import NANO_WEIGHTS, load_checkpoint
from ff3r_model.network.public_weights.tensor_names import text_tower
from ff3r_model.network.text_encoder import (
    FactorisedEmbedding,
    TextConfig,
    TextEncoder,
    TextWeightsError,
    load_clip_text,
)

REFERENCE = Path(__file__).parents[1] / "reference"
SMALL = TextConfig(dim=8, width=16, heads=2, layers=2, context_length=8, vocabulary_rank=4, cache_size=3)


@pytest.fixture(scope="module")
def clip_state() -> dict[str, torch.Tensor]:
    shapes = json.loads((REFERENCE / "clip_vitb32_shapes.json").read_text())
    images = {name: torch.zeros(()) for name in shapes if name.startswith("visual.")}
    state = {name: standin_tensor(name, tuple(shape)) for name, shape in shapes.items() if name not in images} | images
    return text_tower(state)


@pytest.fixture
def small() -> TextEncoder:
    torch.manual_seed(0)
    encoder = TextEncoder(SMALL).eval()
    torch.nn.init.normal_(encoder.tower.token_embedding.table.weight)
    return encoder


def test_clip_text_tower_matches_the_published_features(clip_state):
    reference = np.load(REFERENCE / "clip_text_4.npz")
    encoder = load_clip_text(clip_state)
    texts = [str(text) for text in reference["texts"]]
    tokens = encoder.tokenize(texts)
    assert np.array_equal(tokens.numpy(), reference["token_ids"])
    with torch.no_grad():
        features = encoder(tokens)
    expected = torch.from_numpy(reference["text_features"])
    assert (features - expected).norm() / expected.norm() < 1e-3
    # `encode` cuts the padding off, and may: these are the whole tower's features
    torch.testing.assert_close(encoder.encode(texts), F.normalize(expected, dim=-1), atol=1e-4, rtol=1e-3)


def test_clip_keys_are_checked(clip_state):
    name = "transformer.resblocks.3.mlp.c_fc.weight"
    renamed = {("transformer.blocks.3" if key == name else key): value for key, value in clip_state.items()}
    with pytest.raises(TextWeightsError, match=rf"missing {name}.*unexpected transformer\.blocks\.3"):
        load_clip_text(renamed)
    with pytest.raises(TextWeightsError, match=r"unexpected visual\.surprise"):
        load_clip_text(text_tower(clip_state | {"visual.surprise": torch.zeros(3)}))
    with pytest.raises(TextWeightsError, match=r"resblocks\.3\.mlp\.c_fc\.weight has shape \(512, 2048\), not"):
        load_clip_text(clip_state | {name: clip_state[name].T})


def test_nano_fits_its_budget_and_encodes():
    encoder = TextEncoder(TextConfig.nano()).eval()
    assert 2 * sum(tensor.numel() for tensor in encoder.state_dict().values()) < 6e6
    vectors = encoder.encode(["red chair", "sofa"])
    assert vectors.shape == (2, 64)
    torch.testing.assert_close(vectors.norm(dim=-1), torch.ones(2))


def test_config_survives_json():
    config = TextConfig.clip_vitb32()
    assert TextConfig(**json.loads(json.dumps(asdict(config)))) == config


def test_no_text_gives_an_empty_batch(small):
    assert small.encode([]).shape == (0, 8)


def test_a_text_has_one_embedding_alone_and_among_longer_ones(small):
    alone = small.encode(["red chair"])
    small.clear_cache()
    together = small.encode(["a sofa behind the table", "red chair"])
    torch.testing.assert_close(together[1:], alone, atol=1e-5, rtol=1e-4)


def test_padding_to_the_context_changes_nothing(small):
    tokens = small.tokenize(["red chair"])
    padded = F.pad(tokens, (0, SMALL.context_length - tokens.shape[1]))
    assert padded.shape[1] > tokens.shape[1]
    torch.testing.assert_close(small(padded), small(tokens), atol=1e-5, rtol=1e-4)


def test_case_and_spacing_do_not_matter(small):
    vectors = small.encode(["Red  Chair ", "red chair", "blue chair"])
    assert torch.equal(vectors[0], vectors[1])
    assert not torch.allclose(vectors[0], vectors[2])


@pytest.mark.parametrize("text", ["", "\udcff chair", "椅子", "chair" * 50, "{0} {name}"])
def test_any_text_gives_a_unit_vector(small, text):
    vector = small.encode([text])
    torch.testing.assert_close(vector.norm(dim=-1), torch.ones(1))


def test_long_texts_are_cut_with_a_warning(small, caplog):
    long = "the big red wooden chair in the corner of the room"
    with caplog.at_level(logging.WARNING):
        tokens = small.tokenize([long, "red chair"])
    assert "cut to 8 tokens" in caplog.text and "red chair'" not in caplog.text
    whole = get_tokenizer("ViT-B-32")([long])[0]
    assert torch.equal(tokens[0, :7], whole[:7])
    assert tokens[0, 7] == whole.max()


def test_a_text_that_just_fits_is_not_cut(small, caplog):
    with caplog.at_level(logging.WARNING):
        tokens = small.tokenize(["one two three four five six"])
    assert tokens.shape == (1, 8) and not caplog.records


def test_embeddings_are_kept_up_to_the_cache_size(small):
    calls: list[int] = []
    small.tower.register_forward_hook(lambda module, args, output: calls.append(len(args[0])))
    small.encode(["chair", "sofa", "bed"])
    small.encode(["bed", "chair"])
    assert calls == [3]
    small.encode(["lamp"])  # the least recently used, "sofa", goes
    small.encode(["chair", "bed", "lamp"])
    assert calls == [3, 1]
    small.encode(["sofa"])
    assert calls == [3, 1, 1]


def test_new_weights_forget_what_was_kept(small):
    before = small.encode(["chair"])
    small.load_state_dict(
        {name: tensor + 0.1 * torch.randn_like(tensor) for name, tensor in small.state_dict().items()}
    )
    assert not torch.allclose(small.encode(["chair"]), before)


def test_a_kept_embedding_cannot_be_changed_from_outside(small):
    before = small.encode(["chair"]).clone()
    small.encode(["chair"]).zero_()
    assert torch.equal(small.encode(["chair"]), before)


def test_factorised_table_is_a_product_of_two():
    embedding = FactorisedEmbedding(50, 3, 5)
    whole = embedding.table.weight @ embedding.expand.weight.T
    tokens = torch.tensor([[4, 49], [0, 7]])
    torch.testing.assert_close(embedding(tokens), whole[tokens])


def test_words_that_nano_never_read_are_known_by_their_tokens() -> None:
    encoder = load_checkpoint(NANO_WEIGHTS).text_encoder
    assert encoder.unknown_words("the red chair by a window, two fridges.") == []
    assert encoder.unknown_words("马桶 🚽 asdfghjkl chair") == ["马桶", "🚽", "asdfghjkl"]
    assert encoder.unknown_words("... ! ?") == []
    assert not FactorisedEmbedding(2000, 40, 8).trained.any()


def test_a_whole_vocabulary_does_not_tell_what_it_knows(clip_state):
    assert load_clip_text(clip_state).unknown_words("马桶") == []
