"""The checkpoint under test, with everything needed to measure it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from ff3r_model.core.types import Predict
from ff3r_model.engine.device import device_named
from ff3r_model.engine.torch_engine import TorchEngine
from ff3r_model.evaluation.benchmark import BenchmarkConfig, Judge, run
from ff3r_model.evaluation.picture_sheets import save_sheet
from ff3r_model.evaluation.sample import Sample
from ff3r_model.evaluation.vocabulary import Vocabulary
from ff3r_model.network.checkpoint import load_checkpoint
from ff3r_model.network.named_weights.places import find_weights
from ff3r_model.pipeline import PipelineConfig, refinement
from ff3r_model.slam.refinement.refine import settle


class CheckpointUnderTest:
    """A checkpoint's network and words. Raises CheckpointError for a file that is missing, damaged or foreign."""

    def __init__(
        self,
        weights: str | Path | None = None,
        device: str = "auto",
        trunk: torch.nn.Module | None = None,
        config: PipelineConfig | None = None,
    ) -> None:
        """`config`: of the pipeline, whose `engine.torch`, `refine`, `tracks`, `flow` and `depth` are measured."""
        config = config or PipelineConfig()
        self.path, self.device = find_weights(weights), device_named(device)
        self.trunk = None if trunk is None else trunk.to(self.device)
        checkpoint = load_checkpoint(self.path, self.device)
        self.text, network = checkpoint.text_encoder, checkpoint.network
        self.space = checkpoint.text_space
        self.image_side, self.patch = network.config.image_side, network.config.encoder.patch
        self.engine = TorchEngine(network, config.engine.torch)
        refine, tracks = settle(config.refine, config.tracks, network.config.refine_poses)
        config = replace(config, refine=refine, tracks=tracks)
        refinement(config)  # refuses what does not go together, before the work
        engine = TorchEngine(network, config.engine.torch)
        self.refining = None if refine == "off" else _refining(engine, config)

    def judge(self, vocabularies: Sequence[Vocabulary], config: BenchmarkConfig | None = None) -> Judge:
        """A judge of this checkpoint's predictions."""
        return Judge(self.text.encode, self.space, vocabularies, config, self.trunk)

    def measure(
        self,
        samples: Iterable[Sample],
        vocabularies: Sequence[Vocabulary],
        pictures: Path | None = None,
        count: int = 0,
    ) -> Iterator[dict[str, Any]]:
        """All figures over the first `samples`, again and again, and at last over all of them.

        The first `count` windows are drawn into the folder `pictures`.
        """
        judge, drawn = self.judge(vocabularies), list[str]()
        about = {"checkpoint": self.path.name, "sha256": hashlib.sha256(self.path.read_bytes()).hexdigest()}
        shown = run(samples, self.engine, judge, self.device, self.refining)
        for windows, picture in enumerate(shown, start=1):
            if pictures is not None and windows <= count:
                drawn.append(str(save_sheet(picture, vocabularies[0].words, pictures)))
            yield about | {"windows": windows, "pictures": drawn} | judge.figures()


def _refining(engine: TorchEngine, config: PipelineConfig) -> Predict:
    """The engine with the refinement that the pipeline would add to it, each window on its own."""
    return lambda window: refinement(config)(engine(window), window)
