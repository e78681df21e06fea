"""Text corpus of the distillation, with data augmentation: pools of (text, phrase whose target it has)."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from open_clip.tokenizer import SimpleTokenizer

from ff3r_model.network.public_weights.compact_space import shipped_words
from ff3r_model.training.text.word_lists import word_groups, word_list
from ff3r_model.training.text.wordnet import WordNet

Pair = tuple[str, str]

ARTIFACT, FOOD = 6, 13


@dataclass
class Corpus:
    """Texts by pool; `held_out` are phrases that no text of a pool has as its target."""

    pools: dict[str, list[Pair]]
    held_out: list[str] = field(default_factory=list)

    def phrases(self) -> list[str]:
        """Every phrase that needs a target, once."""
        targets = (phrase for pairs in self.pools.values() for _, phrase in pairs)
        return list(dict.fromkeys([*targets, *self.held_out]))


def plural(noun: str) -> str:
    """The regular English plural."""
    if re.search(r"(s|x|ch|sh)$", noun):
        return noun + "es"
    return noun[:-1] + "ies" if re.search(r"[^aeiou]y$", noun) else noun + "s"


def misspell(text: str, rng: random.Random) -> str:
    """One letter lost, doubled, or swapped with the next; short words stay."""
    if len(text) < 5:
        return text
    at = rng.randrange(1, len(text) - 1)
    return rng.choice((text[:at] + text[at + 1 :], text[:at] + text[at] + text[at:], _swapped(text, at)))


def _swapped(text: str, at: int) -> str:
    return text[:at] + text[at + 1] + text[at] + text[at + 2 :]


def _own(phrases: Sequence[str]) -> list[Pair]:
    return [(phrase, phrase) for phrase in phrases]


def _variants(nouns: Sequence[str], rng: random.Random, typos: int = 2) -> list[Pair]:
    """Articles, questions, places, plurals and typos: other texts for the same target."""
    templates = word_list("templates")
    framed = [(template.format(noun), noun) for noun in nouns for template in templates]
    plurals = [(plural(noun), noun) for noun in nouns]
    return framed + plurals + [(misspell(noun, rng), noun) for noun in nouns for _ in range(typos)]


def room_pairs(classes: Sequence[str], colors: Sequence[str], rng: random.Random) -> dict[str, list[Pair]]:
    """The rooms' own phrases, their variants, and classes with other adjectives."""
    named = [*classes, *(f"{color} {name}" for name in classes for color in colors)]
    adjectives = [a for group in word_groups("adjectives").values() for a in group]
    described = [f"{adjective} {name}" for name in classes for adjective in adjectives]
    sized = [f"{rng.choice(adjectives)} {phrase}" for phrase in named[len(classes) :] for _ in range(3)]
    return {"rooms": _own(named), "room variants": _variants(named, rng) + _own(described) + _own(sized)}


def indoor_pairs(nouns: Sequence[str], colors: Sequence[str], rng: random.Random, adjectives: int = 8) -> list[Pair]:
    """Indoor things alone, with adjectives (colours half of the time), and in other forms."""
    others = [a for group in word_groups("adjectives").values() for a in group]
    described = [
        f"{rng.choice(colors) if rng.random() < 0.5 else rng.choice(others)} {noun}"
        for noun in nouns
        for _ in range(adjectives)
    ]
    return _own(nouns) * 4 + _own([*described, *colors, *others]) + _variants(nouns, rng, typos=1)


def common_words() -> list[str]:
    """Lower-case words that CLIP's tokenizer keeps whole, so frequent ones on the web."""
    words = (token[:-4] for token in SimpleTokenizer().encoder if token.endswith("</w>"))
    return sorted(word for word in words if re.fullmatch(r"[a-z]{3,}", word))


def broad_nouns(wordnet: WordNet | None) -> list[str]:
    """Artifacts and foods of at most two words, and common words that are visible things; without WordNet none."""
    if wordnet is None:
        return []
    common = [word for word in common_words() if wordnet.definition(word)]
    return sorted({*wordnet.nouns((ARTIFACT, FOOD), max_words=2), *common})


def build_corpus(
    classes: Sequence[str], colors: Sequence[str], wordnet: WordNet | None, seed: int, held_out_share: float
) -> Corpus:
    """All pools; a share of WordNet's nouns that the other pools do not hold is held out, as are the unseen words."""
    rng = random.Random(seed)
    synonyms = [word for words in word_groups("synonyms").values() for word in words]
    indoor = list(dict.fromkeys([*synonyms, *shipped_words()]))
    pools = room_pairs(classes, colors, rng) | {"indoor": indoor_pairs(indoor, colors, rng)}
    seen = {phrase for pairs in pools.values() for _, phrase in pairs}
    broad = [noun for noun in broad_nouns(wordnet) if noun not in seen]
    rng.shuffle(broad)
    held = int(held_out_share * len(broad))
    if broad:
        pools["broad"] = _own(broad[held:])
    unseen = {word for words in word_groups("unseen").values() for word in words}
    return Corpus(
        {name: [pair for pair in pairs if not unseen & {*pair}] for name, pairs in pools.items()}, broad[:held]
    )
