"""Normalisation of query texts: one spelling for "the Chairs", "a chair" and "chair."."""

from __future__ import annotations

import re

ARTICLES = frozenset({"a", "an", "the", "some", "any", "all", "every"})
"""Words before a noun that change nothing about what is looked for."""
IRREGULAR = {
    "people": "person", "men": "man", "women": "woman", "children": "child", "mice": "mouse", "feet": "foot",
    "shelves": "shelf", "bookshelves": "bookshelf", "knives": "knife", "leaves": "leaf", "loaves": "loaf",
    "scarves": "scarf", "halves": "half", "buses": "bus", "cactuses": "cactus", "lenses": "lens", "gases": "gas",
    "vases": "vase", "cases": "case", "bases": "base", "houses": "house", "hoses": "hose", "roses": "rose",
    "shoes": "shoe", "canoes": "canoe", "axes": "axe", "cookies": "cookie", "movies": "movie", "hoodies": "hoodie",
    "tvs": "tv", "pcs": "pc",
}  # fmt: skip
"""Plurals that no rule below takes to their singular."""
ALWAYS_PLURAL = frozenset({
    "glasses", "sunglasses", "eyeglasses", "stairs", "scissors", "trousers", "pants", "jeans", "shorts", "clothes",
    "headphones", "earphones", "goggles", "binoculars", "tongs", "pliers", "tweezers", "pajamas", "pyjamas", "tights",
    "groceries", "drapes", "goods", "news", "series", "species", "chess", "gas", "lens", "bus", "canvas", "atlas",
})  # fmt: skip
"""Words that end like a plural and are none, or that mean another thing in the singular."""


def canonical(text: str) -> str:
    """The text in lower case and single spaces, without punctuation around it and articles before it, in the singular.

    Only the last word is taken for a noun: "two chairs" is "two chair", "glasses case" stays.
    """
    words = [word.strip(".,;:!?\"'()[]") for word in text.casefold().split()]
    words = [word for word in words if word]
    while len(words) > 1 and words[0] in ARTICLES:
        words.pop(0)
    return " ".join([*words[:-1], _singular(words[-1])]) if words else ""


def _singular(noun: str) -> str:
    """An English noun in the singular, by rule; what is no plural stays."""
    if noun in IRREGULAR:
        return IRREGULAR[noun]
    if noun in ALWAYS_PLURAL or len(noun) < 4 or not re.fullmatch(r"[a-z-]*[^s\W]s|[a-z-]*sses", noun):
        return noun
    if noun.endswith(("us", "is", "as")) and not noun.endswith(("eas", "fas", "las", "mas")):
        return noun
    for ending, rest in (("ies", "y"), ("sses", "ss"), ("shes", "sh"), ("ches", "ch"), ("xes", "x"), ("toes", "to")):
        if noun.endswith(ending):
            return noun.removesuffix(ending) + rest
    return noun.removesuffix("s")
