"""Query texts: spellings of one thing are one text, and other things stay other texts."""

from __future__ import annotations

import pytest

from ff3r_model.voxel_map.phrases import canonical


@pytest.mark.parametrize(
    ("spellings", "text"),
    [
        (("chair", "Chair", "CHAIRS", " the  chair ", "a chair.", "chairs!", '"chair"', "The chairs?"), "chair"),
        (("red chair", "Red Chairs", "the red chair.", "a  red\tchair"), "red chair"),
        (("floor", "Floors", "the floor,"), "floor"),
        (("shelf", "shelves"), "shelf"),
        (("box", "boxes", "a box"), "box"),
        (("brush", "Brushes"), "brush"),
        (("bench", "benches"), "bench"),
        (("glass", "glass."), "glass"),
        (("glasses", "the glasses"), "glasses"),
        (("battery", "batteries"), "battery"),
        (("person", "people"), "person"),
        (("sofa", "sofas"), "sofa"),
        (("photo", "photos"), "photo"),
        (("bus", "buses"), "bus"),
        (("vase", "vases"), "vase"),
        (("stairs", "the stairs"), "stairs"),
        (("Tür", "tür"), "tür"),
        (("马桶",), "马桶"),
        (("dress", "dresses"), "dress"),
        (("cactus",), "cactus"),
        (("gas",), "gas"),
        (("tv", "TVs"), "tv"),
    ],
)
def test_spellings_of_one_thing(spellings: tuple[str, ...], text: str) -> None:
    assert {canonical(spelling) for spelling in spellings} == {text}


@pytest.mark.parametrize("text", ["the", "a", "s", "as", "is", "all", "", "...", "the the"])
def test_words_without_a_noun_end_in_something_or_nothing(text: str) -> None:
    assert canonical(text) == canonical(canonical(text))
    assert bool(canonical(text)) == any(character.isalpha() for character in text)


def test_normalising_twice_is_normalising_once() -> None:
    for text in ("the glasses cases", "Bookshelves", "a bunch of keys", "someone's shoes", "classes", "trees", "keys"):
        assert canonical(canonical(text)) == canonical(text)
