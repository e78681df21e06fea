"""Distillation of the text tower on a toy vocabulary, without the sentence encoder."""

from __future__ import annotations

import random

import pytest
import torch
import torch.nn.functional as F

from ff3r_model.network.text_encoder import TextConfig, TextEncoder
from ff3r_model.training.text.corpus import Corpus, build_corpus, misspell, plural
from ff3r_model.training.text.distill import (
    DistillConfig,
    agreement,
    distil,
    distillation_loss,
    draw,
    features_by_length,
    make_lesson,
    start_table,
    teach,
)

NOUNS = ["chair", "sofa", "bed", "lamp", "table", "door"]
COLORS = ["red", "blue", "green"]
SMALL = TextConfig(dim=16, width=32, heads=2, layers=1, context_length=8, vocabulary_rank=8)


@pytest.fixture
def toy() -> tuple[Corpus, list[str], torch.Tensor]:
    """Phrases whose target is the noun's direction plus the colour's."""
    generator = torch.Generator().manual_seed(3)
    part = {word: torch.randn(16, generator=generator) for word in [*NOUNS, *COLORS]}
    phrases = [*NOUNS, *(f"{color} {noun}" for color in COLORS for noun in NOUNS)]
    targets = F.normalize(torch.stack([sum(part[word] for word in phrase.split()) for phrase in phrases]), dim=-1)
    pools = {"rooms": [(p, p) for p in phrases], "indoor": [(f"the {p}", p) for p in phrases]}
    return Corpus(pools), phrases, targets


def test_distillation_learns_a_toy_vocabulary(toy):
    corpus, phrases, targets = toy
    torch.manual_seed(0)
    encoder = TextEncoder(SMALL)
    config = DistillConfig(steps=120, batch=48, learning_rate=1e-2, warmup=10)
    losses = distil(encoder, make_lesson(encoder, corpus, phrases, targets), config)
    assert sum(losses[-10:]) < 0.3 * sum(losses[:10])
    found = agreement(encoder, phrases, targets, targets[: len(NOUNS)])
    assert found["cosine"] > 0.95 and found["nearest_class"] > 0.95
    assert ((encoder.encode(["the red chair"]) * targets[phrases.index("red chair")]).sum()) > 0.9


def test_distillation_repeats_from_its_seed(toy):
    corpus, phrases, targets = toy
    runs = []
    for _ in range(2):
        torch.manual_seed(0)
        encoder = TextEncoder(SMALL)
        runs.append(distil(encoder, make_lesson(encoder, corpus, phrases, targets), DistillConfig(steps=3, batch=8)))
    assert runs[0] == runs[1]


def test_the_loss_is_what_its_words_say():
    torch.manual_seed(1)
    features, targets = (
        torch.randn(3, 4, dtype=torch.float64),
        F.normalize(torch.randn(3, 4, dtype=torch.float64), dim=-1),
    )
    targets[2] = targets[0]
    rows = torch.tensor([5, 6, 5])
    config = DistillConfig(contrastive_weight=0.7, temperature=0.1)
    unit = [f / f.norm() for f in features]
    cosine, contrast = 0.0, 0.0
    for i in range(3):
        own = (unit[i] @ targets[i]).item()
        rivals = [j for j in range(3) if rows[j] != rows[i]]
        others = sum(torch.exp(unit[i] @ targets[j] / 0.1).item() for j in rivals)
        cosine += (1 - own) / 3
        contrast -= torch.tensor(torch.e ** (own / 0.1) / (torch.e ** (own / 0.1) + others)).log().item() / 3
    loss = distillation_loss(features, targets, rows, config)
    assert loss.item() == pytest.approx(cosine + 0.7 * contrast, rel=1e-5)


def test_batches_keep_the_pools_shares(toy):
    corpus, phrases, targets = toy
    lesson = make_lesson(TextEncoder(SMALL), corpus, phrases, targets)
    config = DistillConfig(batch=4000, shares={"rooms": 0.3, "indoor": 0.1, "absent": 0.6})
    batch = draw(lesson, config, torch.Generator().manual_seed(0))
    rooms = torch.isin(batch, lesson.pools["rooms"]).float().mean().item()
    assert len(batch) == 4000 and rooms == pytest.approx(0.75, abs=0.03)


def test_lessons_pair_texts_with_their_phrase(toy):
    corpus, phrases, targets = toy
    encoder = TextEncoder(SMALL)
    lesson = make_lesson(encoder, corpus, phrases, targets)
    index = int(lesson.pools["indoor"][phrases.index("blue sofa")])
    assert phrases[lesson.rows[index]] == "blue sofa"
    assert torch.equal(lesson.tokens[index, :5], encoder.tokenize(["the blue sofa"])[0])


def test_the_table_starts_at_the_words_targets():
    torch.manual_seed(0)
    encoder = TextEncoder(SMALL)
    basis = torch.randn(8, 16)
    targets = F.normalize(torch.randn(len(NOUNS) + 1, 8) @ basis, dim=-1)  # rank 8: nothing is lost
    assert start_table(encoder, [*NOUNS, "red chair"], targets) == len(NOUNS)
    rows = encoder.tower.token_embedding(encoder.tokenize(NOUNS)[:, 1])
    torch.testing.assert_close(rows @ rows.T, targets[:-1] @ targets[:-1].T, atol=1e-4, rtol=1e-3)


def test_parts_of_like_length_change_nothing(toy):
    corpus, phrases, targets = toy
    encoder = TextEncoder(SMALL)
    tokens = make_lesson(encoder, corpus, phrases, targets).tokens[:13]
    torch.testing.assert_close(features_by_length(encoder, tokens), encoder(tokens), atol=1e-5, rtol=1e-4)


def test_teaching_asks_only_for_what_the_cache_lacks(tmp_path):
    asked: list[str] = []

    def teacher(texts: list[str]) -> torch.Tensor:
        asked.extend(texts)
        return torch.tensor([[float(len(text))] for text in texts])

    first = teach(teacher, ["a", "bb"], tmp_path / "cache.pt")
    second = teach(teacher, ["ccc", "a"], tmp_path / "cache.pt")
    assert asked == ["a", "bb", "ccc"]
    assert first.flatten().tolist() == [1, 2] and second.flatten().tolist() == [3, 1]


def test_corpus_without_wordnet_covers_rooms_and_indoor_things():
    corpus = build_corpus(NOUNS, COLORS, None, seed=0, held_out_share=0.1)
    texts = dict(pair for pool in corpus.pools.values() for pair in pool)
    assert texts["where is the red sofa"] == "red sofa"
    assert texts["couches"] in ("couch", "couches") and texts["red chair"] == "red chair"
    assert corpus.held_out == [] and "broad" not in corpus.pools


@pytest.mark.parametrize(
    ("noun", "many"), [("chair", "chairs"), ("box", "boxes"), ("couch", "couches"), ("key", "keys"), ("city", "cities")]
)
def test_plurals(noun, many):
    assert plural(noun) == many


def test_a_typo_is_one_letter_away():
    rng = random.Random(0)
    for _ in range(50):
        typo = misspell("television", rng)
        assert (
            abs(len(typo) - 10) <= 1
            and sum(a != b for a, b in zip(sorted(typo), sorted("television"), strict=False)) <= 9
        )
        assert set(typo) <= set("television")
    assert misspell("bed", rng) == "bed"
