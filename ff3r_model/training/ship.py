"""`python -m ff3r_model.training.ship RUN`: averaged weights and text tower → the shipped nano checkpoint.

`ff3r eval` measures it afterwards; docs/evaluation.md has the commands.
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

import torch
from safetensors.torch import load_file

from ff3r_model.network.checkpoint import NANO_WEIGHTS, load_checkpoint, save_checkpoint
from ff3r_model.network.config import FF3RConfig
from ff3r_model.network.model import FF3R
from ff3r_model.network.text_encoder import TextConfig, TextEncoder
from ff3r_model.training.run_folder import AVERAGE, CHECKPOINT

log = logging.getLogger(__name__)

MADE_FROM = (
    "Trained on procedural rooms of ff3r_model.synthetic with their exact depth, poses, classes and colours as teacher "
    "(so not annotation-free), and against a fixed text space fitted to MiniLM sentence embeddings; its text tower was "
    "distilled into that space. It has never seen a real image."
)

FIGURES = "docs/evaluation/synthetic_8.json"
"""Where what it measures is written down, with the file's own hash."""


def load_run(folder: Path) -> FF3R:
    """The network with the averaged weights of a training run."""
    network = FF3R(FF3RConfig.nano())
    network.load_state_dict(torch.load(folder / AVERAGE, weights_only=True))
    return network.eval()


def load_tower(path: Path) -> TextEncoder:
    """The distilled text tower."""
    tower = TextEncoder(TextConfig.nano())
    tower.load_state_dict(load_file(path))
    return tower.eval()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, help="output folder of `ff3r train --rooms`")
    parser.add_argument(
        "--text", type=Path, help="output of ff3r_model.training.text.distill; the run's own tower if not given"
    )
    parser.add_argument("-o", "--out", type=Path, default=NANO_WEIGHTS)
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    if options.text is None:
        made = load_checkpoint(options.run / CHECKPOINT)
        network, text = made.network, made.text_encoder
    else:
        network, text = load_run(options.run), load_tower(options.text)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    card = {"made_from": MADE_FROM, "figures": FIGURES}
    save_checkpoint(options.out, network, text, mode="trained", card=card, dtype=torch.float16)
    log.info("%s: %.1f MB", options.out, options.out.stat().st_size / 1e6)


if __name__ == "__main__":
    main()
