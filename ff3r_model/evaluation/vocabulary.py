"""Vocabularies of open-vocabulary segmentation: the words that compete, and which is right for each pixel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from ff3r_model.evaluation.sample import TrueViews
from ff3r_model.synthetic.vocabulary import CLASS_COLORS, CLASSES, COLORS
from ff3r_model.training.text.word_lists import word_groups

WORD_SETS = 2
"""Synonyms per class that are tried, one set after the other; their figures are averaged."""


@dataclass(frozen=True)
class Vocabulary:
    """Words that compete for every pixel: each pixel is named by the word of the highest cosine."""

    figure: str
    """Key of the mean IoU; vocabularies of the same key are averaged."""
    words: tuple[str, ...]
    lookup: Int[Tensor, "classes colors"] | None = None
    """Word by class and colour, -1 for none; None: the words are the classes, in their order."""

    def truth(self, views: TrueViews) -> Int[Tensor, "views height width"]:
        """The right word for each pixel, -1 where there is none."""
        if self.lookup is None:
            return views.classes
        known = (views.classes >= 0) & (views.colors >= 0)
        ids = self.lookup.to(views.classes.device)[views.classes.clamp(min=0), views.colors.clamp(min=0)]
        return torch.where(known, ids, -1)


def of_classes(words: Sequence[str]) -> Vocabulary:
    """The classes by their own names."""
    return Vocabulary("miou", tuple(words))


def attributes() -> Vocabulary:
    """Colour and class ("red chair"): all phrases that the rooms can show."""
    words: list[str] = []
    lookup = torch.full((len(CLASSES), len(COLORS)), -1)
    for row, name in enumerate(CLASSES):
        for column, color in enumerate(COLORS):
            if color in CLASS_COLORS.get(name, COLORS):
                lookup[row, column] = len(words)
                words.append(f"{color} {name}")
    return Vocabulary("miou_attributes", tuple(words), lookup)


def synonyms(figure: str, file: str) -> list[Vocabulary]:
    """The rooms' classes by the first other names that `training/words/<file>.txt` has for each."""
    groups = word_groups(file)
    return [Vocabulary(figure, tuple(groups[name][number] for name in CLASSES)) for number in range(WORD_SETS)]


def of_rooms() -> list[Vocabulary]:
    """Everything that the synthetic benchmark asks for.

    `miou_synonyms`: words that the text tower never read. `miou_synonyms_taught`: words that it read and no room shows.
    """
    unread, taught = synonyms("miou_synonyms", "unseen"), synonyms("miou_synonyms_taught", "synonyms")
    return [of_classes(CLASSES), attributes(), *unread, *taught]
