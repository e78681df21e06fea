"""Query texts: spellings of one thing are one text, and other things stay other texts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ff3r_model.voxel_map.phrases import DETERMINERS, canonical, head_noun

PLURALS = {
    "chair": "chairs", "box": "boxes", "brush": "brushes", "bench": "benches", "battery": "batteries", "key": "keys",
    "person": "people", "shelf": "shelves", "bookshelf": "bookshelves", "knife": "knives", "child": "children",
    "mouse": "mice", "foot": "feet", "leaf": "leaves", "loaf": "loaves", "wolf": "wolves", "scarf": "scarves",
    "valve": "valves", "stove": "stoves", "glove": "gloves", "microwave": "microwaves", "olive": "olives",
    "sofa": "sofas", "pizza": "pizzas", "camera": "cameras", "photo": "photos", "piano": "pianos", "tomato": "tomatoes",
    "potato": "potatoes", "shoe": "shoes", "horseshoe": "horseshoes", "toe": "toes", "hero": "heroes", "bus": "buses",
    "cactus": "cacti", "virus": "viruses", "octopus": "octopuses", "house": "houses", "blouse": "blouses",
    "vase": "vases", "suitcase": "suitcases", "staircase": "staircases", "nose": "noses", "hose": "hoses",
    "dress": "dresses", "mattress": "mattresses", "glass": "glass", "lens": "lenses", "gas": "gases",
    "canvas": "canvases", "tie": "ties", "pie": "pies", "cookie": "cookies", "cherry": "cherries", "lady": "ladies",
    "tv": "tvs", "cd": "cds", "fridge": "fridges", "tree": "trees", "tissue": "tissues", "quiz": "quizzes",
    "taxi": "taxis", "menu": "menus", "purse": "purses", "roof": "roofs", "café": "cafés", "crêpe": "crêpes",
    "chest": "chests", "wine glass": "wine glasses", "red chair": "red chairs", "coffee table": "coffee tables",
    "wall": "walls", "floor": "floors", "door": "doors", "window": "windows", "object": "objects",
}  # fmt: skip
"""Singulars and plurals as an English dictionary has them."""
NO_PLURALS = (
    "glasses", "stairs", "scissors", "trousers", "jeans", "clothes", "headphones", "news", "chess", "bass", "brass",
    "grass", "compass", "lotus", "campus", "iris", "chassis", "tennis", "chaos", "sheep", "fish", "us", "gps", "1990s",
    "reading glasses", "tür", "马桶", "🚽", "50 €",
)  # fmt: skip
PUNCTUATION = (
    "{}.",
    "{}!",
    "{}?",
    "“{}”",
    "‘{}’",
    '"{}"',
    "'{}'",
    "({})",
    "«{}»",
    "…{}",
    "{},",
    "—{}—",
    "*{}*",
    "{}'s",
    "{}’s",
)
SPACES = (" ", "  ", "\t", "\n", "\N{NO-BREAK SPACE}", "-", "\N{NON-BREAKING HYPHEN}", "_")
LEADS = (*sorted(DETERMINERS), "any of the", "all of the", "some of these", "the The")


def wide(text: str) -> str:
    """Full-width letters, as East Asian keyboards type."""
    return "".join(chr(ord(each) + 0xFEE0) if "!" <= each <= "~" else each for each in text)


@st.composite
def spellings(draw: st.DrawFn) -> tuple[str, str]:
    """A thing, and one of the ways in which people write it."""
    singular = draw(st.sampled_from(sorted(PLURALS)))
    text = draw(st.sampled_from((singular, PLURALS[singular])))
    text = draw(st.sampled_from(SPACES)).join(text.split())
    text = draw(st.sampled_from((str, str.upper, str.title, str.capitalize, wide)))(text)
    lead = draw(st.sampled_from(("", *LEADS)))
    text = draw(st.sampled_from(PUNCTUATION)).format(text)
    return singular, draw(st.sampled_from(("", " ", "\n"))) + (f"{lead} {text}" if lead else text)


@pytest.mark.fuzz
@given(spellings())
def test_spellings_of_one_thing(spelling: tuple[str, str]) -> None:
    singular, text = spelling
    assert canonical(text) == singular


@pytest.mark.parametrize("singular", PLURALS)
def test_plurals(singular: str) -> None:
    assert canonical(PLURALS[singular]) == canonical(singular) == singular


@pytest.mark.parametrize("text", NO_PLURALS)
def test_what_is_no_plural_stays(text: str) -> None:
    assert canonical(text) == text


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("T.V.", "tv"),
        ("chair\N{ZERO WIDTH SPACE}", "chair"),
        ("STRASSE", "straße"),
        ("cafe\N{COMBINING ACUTE ACCENT}s", "café"),
        ("ﬂoor", "floor"),
    ],
)
def test_characters_that_mean_the_same(text: str, same: str) -> None:
    assert canonical(text) == canonical(same)


@pytest.mark.parametrize(
    ("one", "other"), [("glass", "glasses"), ("stair", "stairs"), ("pot", "potato"), ("case", "cas")]
)
def test_other_things_stay_other_things(one: str, other: str) -> None:
    assert canonical(one) != canonical(other)


@pytest.mark.parametrize("text", ["the", "a", "s", "as", "is", "all", "", "...", "the the"])
def test_words_without_a_noun_end_in_something_or_nothing(text: str) -> None:
    assert canonical(text) == canonical(canonical(text))
    assert bool(canonical(text)) == any(character.isalpha() for character in text)


@pytest.mark.fuzz
@given(st.text(max_size=40) | st.text(alphabet="aesiu'’. -xzvfl\N{HYPHEN}ßİ", max_size=20))
def test_normalising_twice_is_normalising_once(text: str) -> None:
    assert canonical(canonical(text)) == canonical(text) == canonical(f"  {text} ")


@pytest.mark.parametrize(
    ("text", "noun"),
    [
        ("wall", "wall"), ("the white walls", "wall"), ("a Glass Door.", "door"), ("doors of the fridge", "door"),
        ("picture on the wall", "picture"), ("floor lamp", "lamp"), ("chair by the window", "chair"),
        ("not a wall", ""), ("", ""), ("without windows", ""), ("the window's", "window"),
    ],
)  # fmt: skip
def test_the_thing_that_a_text_names(text: str, noun: str) -> None:
    assert head_noun(text) == noun
