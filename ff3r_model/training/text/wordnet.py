"""Reads WordNet 3's noun files (Debian package `wordnet-base`, /usr/share/wordnet): training time only, not shipped."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

DEFAULT_FOLDER = Path("/usr/share/wordnet")

THINGS = (6, 20, 17, 27, 13)
"""Lexicographer files of what a camera sees, likeliest indoors first: artifact, plant, object, substance, food."""

_ENDINGS = (("", ""), ("s", ""), ("ses", "s"), ("xes", "x"), ("ches", "ch"), ("shes", "sh"), ("ves", "f"), ("ies", "y"))


class WordNetMissing(FileNotFoundError):
    """WordNet's noun files are not where they were looked for."""


@dataclass(frozen=True)
class Synset:
    """One sense: the words that share it and its gloss without examples."""

    file: int
    words: tuple[str, ...]
    gloss: str


def _parse_synset(line: str) -> tuple[str, Synset]:
    head, gloss = line.split("|", 1)
    fields = head.split()
    count = int(fields[3], 16)
    words = tuple(fields[4 + 2 * i].replace("_", " ").lower() for i in range(count))
    return fields[0], Synset(int(fields[1]), words, re.sub(r"\(.*?\)", "", gloss.split(";")[0]).strip())


def _parse_index(line: str) -> tuple[str, list[str]]:
    fields = line.split()
    return fields[0].replace("_", " "), fields[-int(fields[2]) :]


def _records(path: Path) -> list[str]:
    return [line for line in path.read_text(encoding="utf-8").splitlines() if line and not line.startswith(" ")]


class WordNet:
    """Nouns and their senses of visible things."""

    def __init__(self, folder: Path = DEFAULT_FOLDER) -> None:
        if not (folder / "data.noun").is_file():
            raise WordNetMissing(
                f"no data.noun in {folder}: install the Debian package wordnet-base, or name its folder"
            )
        self._synsets = dict(map(_parse_synset, _records(folder / "data.noun")))
        self._senses = dict(map(_parse_index, _records(folder / "index.noun")))
        self._irregular = dict(line.split()[:2] for line in _records(folder / "noun.exc"))
        self.sense = lru_cache(maxsize=None)(self._first_visible_sense)

    def lemma(self, word: str) -> str | None:
        """The singular under which WordNet knows `word`, or None."""
        stems = (word[: len(word) - len(end)] + singular for end, singular in _ENDINGS if word.endswith(end))
        return next((stem for stem in stems if stem in self._senses), self._irregular.get(word))

    def _first_visible_sense(self, lemma: str) -> Synset | None:
        senses = [self._synsets[offset] for offset in self._senses.get(lemma, [])]
        seen = [sense for sense in senses if sense.file in THINGS]
        return min(seen, key=lambda sense: THINGS.index(sense.file)) if seen else None

    def definition(self, text: str) -> str | None:
        """Synonyms and gloss of the first sense in which the noun `text` is a visible thing, or None."""
        lemma = self.lemma(text)
        sense = self.sense(lemma) if lemma else None
        if not sense:
            return None
        return ", ".join(list(dict.fromkeys([text, *sense.words]))[:5]) + ": " + sense.gloss

    def nouns(self, files: tuple[int, ...] = THINGS, max_words: int = 3) -> list[str]:
        """All nouns with a sense in those lexicographer files, in alphabetical order."""
        found = {word for sense in self._synsets.values() if sense.file in files for word in sense.words}
        return sorted(word for word in found if len(word.split()) <= max_words and re.fullmatch(r"[a-z' -]+", word))
