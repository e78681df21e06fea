"""Distillation of a sentence encoder into `nano`'s text tower: `python -m ff3r_model.training.text.distill -o FILE`.

The tower learns to put any phrase where the fixed text space (`target_space.py`) has it: the rooms' own phrases most
often, then indoor things, then WordNet's artifacts and foods. Articles, questions, plurals and light typos keep the
bare phrase's target. About a quarter of an hour on one CPU core.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

import torch
import torch.nn.functional as F
import tyro
from jaxtyping import Float, Int
from safetensors.torch import save_file
from torch import Tensor
from tqdm import tqdm

from ff3r_model.network.text_encoder import TextConfig, TextEncoder
from ff3r_model.training.text.corpus import Corpus, build_corpus
from ff3r_model.training.text.target_space import (
    Encoder,
    MiniLM,
    PhraseTeacher,
    TargetSpace,
    TextSpaceConfig,
    indoor_definitions,
    load_wordnet,
    space_statistics,
)
from ff3r_model.training.text.wordnet import DEFAULT_FOLDER

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class DistillConfig:
    """Choices of the distillation; the paper has no such step."""

    steps: int = 4000
    batch: int = 256
    learning_rate: float = 2e-3
    warmup: int = 100
    weight_decay: float = 0.01
    clip: float = 1.0
    bfloat16: bool = True
    """Matrix products in bfloat16: 1.6 times as fast on a CPU that knows it. The loss and the weights stay float32."""
    contrastive_weight: float = 0.1
    temperature: float = 0.05
    """Of the contrastive term: a phrase's own target against those of the batch's other phrases."""
    shares: dict[str, float] = field(
        default_factory=lambda: {"rooms": 0.15, "room variants": 0.2, "indoor": 0.25, "broad": 0.4}
    )
    """How much of a batch each pool gives; pools without texts give their share to the others."""
    held_out: float = 0.04
    """Share of WordNet's nouns kept for measuring only."""
    seed: int = 0


@dataclass(frozen=True)
class Lesson:
    """Tokens of all texts, by pool, and the row of `targets` that each should reach."""

    tokens: Int[Tensor, "texts length"]
    rows: Int[Tensor, " texts"]
    pools: dict[str, Int[Tensor, " members"]]
    targets: Float[Tensor, "phrases dim"]


def make_lesson(encoder: TextEncoder, corpus: Corpus, phrases: Sequence[str], targets: Tensor) -> Lesson:
    """Tokenizes a corpus once. `targets` has one row per phrase of `phrases`."""
    row_of = {phrase: row for row, phrase in enumerate(phrases)}
    pairs = [pair for pool in corpus.pools.values() for pair in pool]
    sizes = [len(pool) for pool in corpus.pools.values()]
    pools = dict(zip(corpus.pools, torch.arange(len(pairs)).split(sizes), strict=True))
    rows = torch.tensor([row_of[phrase] for _, phrase in pairs])
    return Lesson(encoder.tokenize([text for text, _ in pairs]), rows, pools, targets)


def draw(lesson: Lesson, config: DistillConfig, generator: torch.Generator) -> Int[Tensor, " batch"]:
    """Indices of one batch, each pool with its share."""
    pools = {name: members for name, members in lesson.pools.items() if config.shares.get(name, 0) and len(members)}
    weights = torch.tensor([config.shares[name] for name in pools])
    chosen = torch.multinomial(weights, config.batch, replacement=True, generator=generator)
    picks = [
        members[torch.randint(len(members), (int(count),), generator=generator)]
        for members, count in zip(pools.values(), chosen.bincount(minlength=len(pools)), strict=True)
    ]
    return torch.cat(picks)


def distillation_loss(
    features: Float[Tensor, "batch dim"],
    targets: Float[Tensor, "batch dim"],
    rows: Int[Tensor, " batch"],
    config: DistillConfig,
) -> Float[Tensor, ""]:
    """(1 − cos) to the own target, plus cross-entropy of cos/temperature against the batch's other targets."""
    unit = F.normalize(features, dim=-1)
    # Contrast leaves out other texts of the same phrase: their target is the text's own.
    cosine = unit @ targets.T
    same = (rows[:, None] == rows[None]) & ~torch.eye(len(rows), dtype=torch.bool, device=rows.device)
    logits = (cosine / config.temperature).masked_fill(same, float("-inf"))
    contrast = F.cross_entropy(logits, torch.arange(len(rows), device=rows.device))
    return (1 - cosine.diagonal()).mean() + config.contrastive_weight * contrast


@torch.no_grad()
def start_table(encoder: TextEncoder, phrases: Sequence[str], targets: Float[Tensor, "phrases dim"]) -> int:
    """Starts the vocabulary table at the targets (their leading directions) of one-token words; returns how many."""
    embedding = encoder.tower.token_embedding
    tokens = encoder.tokenize(list(phrases))
    single = (tokens != 0).sum(1) == 3  # start, word, end
    _, _, axes = torch.linalg.svd(targets, full_matrices=False)
    rank = embedding.table.embedding_dim
    reduced = targets[single] @ axes[:rank].T
    embedding.table.weight[tokens[single, 1]] = F.pad(reduced, (0, rank - reduced.shape[1])).to(embedding.table.weight)
    torch.nn.init.orthogonal_(embedding.expand.weight)
    return int(single.sum())


def distil(encoder: TextEncoder, lesson: Lesson, config: DistillConfig) -> list[float]:
    """Distillation: trains `encoder` in place on its own device; returns the loss of every step."""
    # AdamW, and a one-cycle learning-rate schedule.
    optimizer = torch.optim.AdamW(_groups(encoder, config), lr=config.learning_rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, config.learning_rate, total_steps=config.steps, pct_start=min(0.5, config.warmup / config.steps)
    )
    # Every step draws a batch from the pools of texts.
    generator = torch.Generator().manual_seed(config.seed)
    losses = []
    encoder.train()
    for _ in (progress := tqdm(range(config.steps), desc="text tower", mininterval=5)):
        batch = draw(lesson, config, generator)
        losses.append(_step(encoder, lesson, batch, optimizer, config))
        schedule.step()
        progress.set_postfix(loss=f"{losses[-1]:.3f}", refresh=False)
    encoder.eval()
    return losses


def _groups(encoder: TextEncoder, config: DistillConfig) -> list[dict[str, Any]]:
    """Decay for matrices of the blocks alone: a rare token's row must not fade between its appearances."""
    parameters = list(encoder.named_parameters())
    decayed = [p for name, p in parameters if p.ndim > 1 and "embedding" not in name]
    others = [p for name, p in parameters if p.ndim <= 1 or "embedding" in name]
    return [{"params": decayed, "weight_decay": config.weight_decay}, {"params": others, "weight_decay": 0.0}]


def _step(
    encoder: TextEncoder, lesson: Lesson, batch: Tensor, optimizer: torch.optim.Optimizer, config: DistillConfig
) -> float:
    device = next(encoder.parameters()).device
    rows = lesson.rows[batch]
    with torch.autocast(device.type, torch.bfloat16, enabled=config.bfloat16):
        features = features_by_length(encoder, lesson.tokens[batch].to(device))
    loss = distillation_loss(features.float(), lesson.targets[rows].to(device), rows.to(device), config)
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(encoder.parameters(), config.clip)
    optimizer.step()
    return loss.item()


def features_by_length(
    encoder: TextEncoder, tokens: Int[Tensor, "batch length"], parts: int = 4
) -> Float[Tensor, "batch dim"]:
    """The tower's output, computed in parts of like length: half of a mixed batch is padding."""
    lengths = (tokens != 0).sum(1)
    order = lengths.argsort()
    features = [encoder(tokens[part, : int(lengths[part].max())]) for part in order.chunk(parts)]
    return torch.cat(features)[order.argsort()]


def agreement(
    encoder: TextEncoder, phrases: Sequence[str], targets: Float[Tensor, "n dim"], classes: Float[Tensor, "c dim"]
) -> dict[str, float]:
    """Mean and least cosine to the targets, and how often tower and teacher choose the same nearest class."""
    vectors = encoder.encode(list(phrases)).to(targets)
    cosine = (vectors * targets).sum(-1)
    agree = (vectors @ classes.T).argmax(-1) == (targets @ classes.T).argmax(-1)
    return {
        "cosine": cosine.mean().item(),
        "cosine_min": cosine.min().item(),
        "nearest_class": agree.float().mean().item(),
    }


def evaluate(
    encoder: TextEncoder, corpus: Corpus, targets: dict[str, Tensor], space: dict[str, Any]
) -> dict[str, float]:
    """Flat figures for the rooms' phrases, indoor things, held-out nouns and synonyms."""
    indoor = list(dict.fromkeys(phrase for _, phrase in corpus.pools["indoor"]))
    groups = {
        "rooms": [*space["classes"], *space["phrases"]],
        "indoor": indoor,
        "held_out": corpus.held_out,
    }
    figures: dict[str, float] = {}
    for name, phrases in groups.items():
        if phrases:
            wanted = torch.stack([targets[phrase] for phrase in phrases])
            found = agreement(encoder, phrases, wanted, space["class_targets"])
            figures |= {f"{name}_{key}": value for key, value in found.items()} | {f"{name}_phrases": len(phrases)}
    vectors = encoder.encode(space["phrases"])
    exact = (vectors @ space["phrase_targets"].T).argmax(-1) == torch.arange(len(vectors))
    synonyms = space_statistics(space, lambda texts: encoder.encode(list(texts)))
    return figures | {
        "phrase_itself_nearest": exact.float().mean().item(),
        "synonym_accuracy": synonyms["synonym_accuracy"],
        "blind_synonym_accuracy": synonyms["blind_synonym_accuracy"],
    }


@dataclass(frozen=True)
class Arguments:
    """Distils the text teacher into the small tower."""

    output: Annotated[Path, tyro.conf.arg(aliases=["-o"])]
    """safetensors file of the tower; config and figures go beside it, with the ending .json."""
    space: Path
    """The text space that the visual network is trained in, as `text_space` wrote it."""
    wordnet: Path = DEFAULT_FOLDER
    cache: Path | None = None
    """Keeps the teacher's embeddings between runs; remove it when the teacher or the definitions change."""
    text: TextConfig = field(default_factory=TextConfig.nano)
    distill: DistillConfig = field(default_factory=DistillConfig)
    teacher: TextSpaceConfig = field(default_factory=TextSpaceConfig)


def teach(teacher: Encoder, phrases: Sequence[str], cache: Path | None, chunk: int = 1024) -> Float[Tensor, "n width"]:
    """The teacher's embeddings of all phrases, with progress, from and to `cache` where it is given."""
    known = dict(zip(*torch.load(cache), strict=True)) if cache and cache.is_file() else {}
    missing = [phrase for phrase in phrases if phrase not in known]
    for start in tqdm(range(0, len(missing), chunk), desc="teacher", disable=not missing):
        part = missing[start : start + chunk]
        known.update(zip(part, teacher(part), strict=True))
    if cache and missing:
        torch.save((list(known), torch.stack(list(known.values()))), cache)
    return torch.stack([known[phrase] for phrase in phrases])


def main(arguments: Arguments) -> None:
    """Command: builds the corpus, asks the teacher, distils, measures, writes."""
    logging.basicConfig(level=logging.INFO)
    # The corpus and its targets.
    config = arguments.distill
    torch.manual_seed(config.seed)
    space = torch.load(arguments.space)
    wordnet = load_wordnet(arguments.wordnet)
    corpus = build_corpus(space["classes"], space["colors"], wordnet, config.seed, config.held_out)
    phrases = corpus.phrases()
    teacher = PhraseTeacher(MiniLM(), indoor_definitions(wordnet), arguments.teacher)
    targets = TargetSpace(space["mean"], space["projection"])(teach(teacher, phrases, arguments.cache))

    # The tower starts where the targets are known, and learns.
    encoder = TextEncoder(arguments.text)
    taught = len(phrases) - len(corpus.held_out)
    log.info("%d words start at their target", start_table(encoder, phrases[:taught], targets[:taught]))
    losses = distil(encoder, make_lesson(encoder, corpus, phrases, targets), config)

    # What is written is what is measured: half precision.
    halves = {name: tensor.half().contiguous() for name, tensor in encoder.state_dict().items()}
    encoder.load_state_dict(halves)
    figures = evaluate(encoder, corpus, dict(zip(phrases, targets, strict=True)), space)
    figures["loss"] = sum(losses[-100:]) / len(losses[-100:])
    figures["megabytes"] = sum(tensor.nbytes for tensor in halves.values()) / 1e6
    save_file(halves, arguments.output)
    report = {"text_config": asdict(arguments.text), "distill": asdict(config), "figures": figures}
    arguments.output.with_suffix(".json").write_text(json.dumps(report, indent=1))
    log.info("%s", json.dumps(figures, indent=1))


if __name__ == "__main__":
    main(tyro.cli(Arguments))
