"""The values of one training run. Where the paper gives none, the choice is ours and the comment says so."""

from __future__ import annotations

from dataclasses import dataclass

from ff3r_model.core.ranges import AT_LEAST_ONE, Range, check_range

RATE = Range(0, 10, above=True)
"""Of learning rates and their factors. Ours: what lies beyond has never been meant."""
MINUTES = Range(0, 1e6)
MOST_WORKERS = 256
LARGEST_SEED = 2**61


@dataclass(frozen=True)
class TrainConfig:
    """How a run is optimised. Either `steps` or `minutes` is its budget, with which the learning rate's cosine ends."""

    steps: int | None = None
    """Steps in all, earlier runs of a resumed training included. With it a resumed run repeats an unbroken one."""
    minutes: float | None = None
    """Wall-clock minutes in all, earlier runs included."""
    learning_rate: float = 2e-4
    """Ours (AnySplat's): for a network that starts from trained weights. From scratch 1e-3 suits `nano`."""
    backbone_factor: float = 0.1
    """Learning rate of aggregator and LSeg as a share of the others'; 1 when training from scratch."""
    muon: bool = False
    """Muon instead of AdamW for the matrices of transformer blocks: fewer steps, each of which costs more. Ours."""
    muon_factor: float = 1.0
    """Muon's learning rate as a share of AdamW's; at 1 an update is as large as AdamW's usually are. Ours."""
    beta2: float = 0.98
    """Ours: AdamW forgets gradients faster than usual, as windows differ much."""
    weight_decay: float = 0.05
    """Of matrices; vectors and biases have none. Ours (AnySplat's)."""
    frozen: tuple[str, ...] = ()
    """Beginnings of the names of weights that stay as they are, such as "lseg."; none as in the paper."""
    warmup: float = 0.03
    """Share of the budget with a rising learning rate. Ours."""
    clip: float = 1.0
    """Largest norm of the gradient. Ours."""
    ema: float = 0.999
    """Decay of the averaged weights, which are what is kept; lower at the start. Ours."""
    bfloat16: bool = True
    """Autocast; rendering and cameras stay in float32."""
    recompute: bool = False
    """Activation checkpointing: a third more time, several times less memory."""
    seed: int = 0
    """Every random choice of a step is a function of this, the step and the process."""
    workers: int = 0
    """Processes that read and decode ahead; 0 reads in between."""
    log_steps: int = 10
    """Steps between lines of log.jsonl and TensorBoard."""
    checkpoint_minutes: float = 5.0
    """Minutes between resumable states."""
    picture_minutes: float = 1.0
    """Minutes between pictures; 0 makes none."""

    def __post_init__(self) -> None:
        if (self.steps is None) == (self.minutes is None):
            raise ValueError(f"give a budget in steps or in minutes: steps={self.steps}, minutes={self.minutes}")
        check_range(self, AT_LEAST_ONE, "steps", "log_steps")
        check_range(self, Range(0, MINUTES.high, above=True), "minutes")
        check_range(self, MINUTES, "checkpoint_minutes", "picture_minutes")
        check_range(self, RATE, "learning_rate", "backbone_factor", "muon_factor")
        check_range(self, Range(0, 1 - 1e-9), "beta2", "ema", "warmup")
        check_range(self, Range(0, 10), "weight_decay")
        check_range(self, Range(0, 1e9, above=True), "clip")
        check_range(self, Range(0, LARGEST_SEED), "seed")
        check_range(self, Range(0, MOST_WORKERS), "workers")
