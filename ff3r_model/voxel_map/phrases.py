"""Normalisation of query texts: one spelling for "the Chairs", "a chair" and "chair."."""

from __future__ import annotations

import re
import unicodedata

DETERMINERS = frozenset({
    "a", "an", "the", "some", "any", "all", "every", "each", "both", "several", "many", "this", "that", "these",
    "those", "my", "your", "our", "his", "her", "its", "their",
})  # fmt: skip
"""Words before a noun that change nothing about what is looked for."""
PREPOSITIONS = frozenset({
    "of", "on", "in", "at", "by", "with", "without", "near", "under", "below", "above", "over", "behind", "beside",
    "between", "inside", "outside", "against", "along", "around", "through", "from", "to", "for", "next", "not", "no",
    "and", "or", "except", "that", "which",
})  # fmt: skip
"""Words that end a noun phrase: the thing itself is named before them."""
IRREGULAR = {
    "people": "person", "men": "man", "women": "woman", "firemen": "fireman", "policemen": "policeman",
    "snowmen": "snowman", "workmen": "workman", "children": "child", "grandchildren": "grandchild", "mice": "mouse",
    "feet": "foot", "teeth": "tooth", "geese": "goose", "oxen": "ox", "cacti": "cactus", "fungi": "fungus",
    "leaves": "leaf", "loaves": "loaf", "sheaves": "sheaf", "thieves": "thief", "hooves": "hoof", "scarves": "scarf",
    "wharves": "wharf", "dwarves": "dwarf", "lives": "life", "matrices": "matrix", "vertices": "vertex",
    "canvases": "canvas", "atlases": "atlas", "gases": "gas", "biases": "bias", "irises": "iris",
    "trellises": "trellis", "lenses": "lens", "axes": "axe", "pickaxes": "pickaxe", "fuses": "fuse", "uses": "use",
    "quizzes": "quiz", "toes": "toe", "canoes": "canoe", "oboes": "oboe", "hoes": "hoe", "foes": "foe", "aloes": "aloe",
    "cookies": "cookie", "movies": "movie", "hoodies": "hoodie", "brownies": "brownie", "selfies": "selfie",
    "smoothies": "smoothie", "zombies": "zombie", "neckties": "necktie", "bowties": "bowtie", "magpies": "magpie",
    "headaches": "headache", "caches": "cache", "niches": "niche", "quiches": "quiche", "mustaches": "mustache",
    "moustaches": "moustache", "kiwis": "kiwi", "bikinis": "bikini", "taxis": "taxi", "skis": "ski",
    "paninis": "panini", "zucchinis": "zucchini", "menus": "menu", "emus": "emu", "tutus": "tutu", "gurus": "guru",
    "cpus": "cpu", "gpus": "gpu", "tvs": "tv", "pcs": "pc", "cds": "cd",
}  # fmt: skip
"""Plurals that no rule below takes to their singular."""
UNCHANGED = frozenset({
    "glasses", "sunglasses", "eyeglasses", "stairs", "downstairs", "upstairs", "scissors", "trousers", "pants", "jeans",
    "shorts", "clothes", "headphones", "earphones", "goggles", "binoculars", "tongs", "pliers", "tweezers", "pajamas",
    "pyjamas", "tights", "groceries", "drapes", "goods", "news", "series", "species", "gas", "lens", "canvas", "atlas",
    "bias", "alias", "pancreas", "christmas", "pampas", "chaos", "cosmos", "thermos", "rhinoceros", "asbestos",
    "was", "has", "does", "eaves", "always",
})  # fmt: skip
"""Words that end like a plural and are none, or that mean another thing in the singular."""
FILLED = frozenset({"wine", "beer", "water", "champagne", "cocktail", "shot", "drinking", "juice", "whisky", "milk"})
"""Words before "glasses" that make them vessels, not spectacles."""
ENDINGS = (
    ("shoes", "shoe"), ("oes", "o"), ("knives", "knife"), ("wives", "wife"), ("valves", "valve"), ("lves", "lf"),
    ("ouses", "ouse"), ("auses", "ause"), ("uses", "us"), ("sses", "ss"), ("shes", "sh"), ("ches", "ch"), ("xes", "x"),
    ("zzes", "zz"), ("tzes", "tz"), ("eaus", "eau"), ("ies", "y"),
)  # fmt: skip
"""Endings of plurals and their singular's; the first that fits. Other plurals lose their s."""
_SPACES = re.compile(r"[\s,;:/!?\"_\N{HYPHEN}\N{NON-BREAKING HYPHEN}\N{EN DASH}\N{EM DASH}-]+")
"""What stands between words, hyphens included."""
_UNSEEN = dict.fromkeys(map(ord, "\N{ZERO WIDTH SPACE}\N{WORD JOINER}\N{ZERO WIDTH NO-BREAK SPACE}\N{SOFT HYPHEN}"))
_QUOTES = str.maketrans(
    "\N{RIGHT SINGLE QUOTATION MARK}\N{LEFT SINGLE QUOTATION MARK}\N{PRIME}`\N{ACUTE ACCENT}", "'" * 5
)


def canonical(text: str) -> str:
    """The text in lower case and single spaces, without punctuation and determiners before it, in the singular.

    Only the last word is taken for a noun: "two chairs" is "two chair", "glasses case" stays. Characters of one look
    and meaning are one (NFKC), a hyphen is a space.
    """
    words = _words(text)
    while len(words) > 1 and words[0] in DETERMINERS:
        words.pop(0)
        if len(words) > 1 and words[0] == "of":  # some of the chairs
            words.pop(0)
    if not words:
        return ""
    words[-1] = _without_possessive(words[-1])
    if words[-1] == "glasses" and words[-2:-1] and words[-2] in FILLED:
        words[-1] = "glass"
    return " ".join([*words[:-1], _singular(words[-1])])


def head_noun(text: str) -> str:
    """The thing that a text names, in the singular: door of "the white doors" and of "door of the fridge".

    Empty where none is named, as in "not a wall".
    """
    words = canonical(text).split()
    end = next((index for index, word in enumerate(words) if word in PREPOSITIONS), len(words))
    return _singular(_without_possessive(words[end - 1])) if end else ""


def _words(text: str) -> list[str]:
    """The words of a text without what surrounds them."""
    plain = unicodedata.normalize("NFKC", text.translate(_QUOTES).translate(_UNSEEN)).casefold()
    words = [_bare(word) for word in _SPACES.split(unicodedata.normalize("NFKC", plain).translate(_QUOTES))]
    return [word for word in words if word]


def _bare(word: str) -> str:
    """A word without punctuation around it and dots of an abbreviation."""
    while word and (unicodedata.category(word[0])[0] == "P" or word[0] in "<>|~^=+"):
        word = word[1:]
    while word and (unicodedata.category(word[-1])[0] == "P" or word[-1] in "<>|~^=+"):
        word = word[:-1]
    return word.replace(".", "") if re.fullmatch(r"[^\W\d_](\.[^\W\d_])+", word) else word


def _without_possessive(word: str) -> str:
    """The word without endings as in "chair's"."""
    shorter = _bare(word.removesuffix("'s"))
    return word if shorter in ("", word) else _without_possessive(shorter)


def _singular(noun: str) -> str:
    """An English noun in the singular, by rule; what is no plural stays."""
    if noun in IRREGULAR:
        return IRREGULAR[noun]
    if noun in UNCHANGED or len(noun) < 4 or not re.fullmatch(r"[^\W\d_]+s", noun) or noun.endswith(("ss", "is")):
        return noun
    if len(noun) > 4 or not noun.endswith("ies"):  # ties, pies
        for ending, rest in ENDINGS:
            if noun.endswith(ending):
                return noun.removesuffix(ending) + rest
    return noun if noun.endswith("us") else noun.removesuffix("s")
