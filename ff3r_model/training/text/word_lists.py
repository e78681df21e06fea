"""Small word lists of our own (indoor objects, adjectives, synonyms, definitions) and a reader for WordNet's files."""

from __future__ import annotations

from importlib import resources


def _lines(name: str) -> list[str]:
    text = resources.files(__package__).joinpath("words", f"{name}.txt").read_text(encoding="utf-8")
    return [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]


def word_list(name: str) -> list[str]:
    """The entries of `<name>.txt`, separated by commas or line ends, without repetitions."""
    words = (word.strip() for line in _lines(name) for word in line.split(","))
    return list(dict.fromkeys(word for word in words if word))


def word_groups(name: str) -> dict[str, list[str]]:
    """The lines `key: entry, entry, …` of `<name>.txt`."""
    pairs = (line.split(":", 1) for line in _lines(name))
    return {key.strip(): [word.strip() for word in words.split(",")] for key, words in pairs}


def definitions() -> dict[str, str]:
    """What the classes of the rooms mean indoors: word → definition."""
    pairs = (line.split(":", 1) for line in _lines("definitions"))
    return {key.strip(): text.strip() for key, text in pairs}
