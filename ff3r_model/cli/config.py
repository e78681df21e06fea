"""`ff3r config`: the configuration of the pipeline as a file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

HEADER = """\
# The configuration of the pipeline: `ff3r reconstruct … --config FILE`, the node's parameter `config_file`, or
# PipelineConfig.from_yaml(FILE). Every key has a default, so a file need only hold what differs. Options of a command,
# and parameters of the node that do not stand at their default, go before the file. null: what comments call None.
# The node's engine.kind is auto, not torch, where neither says: leave that key out of its file.

"""


@dataclass(frozen=True)
class Config:
    """Print the whole configuration of the pipeline as YAML, with what every key means.

    Any part of it, saved in a file, is for --config of the other commands and for the node's parameter config_file.
    """

    config: Path | None = None
    """YAML file to check and complete; the defaults if not given."""

    def __call__(self) -> str:
        from ff3r_model.core.config_text import config_text
        from ff3r_model.pipeline import PipelineConfig

        return HEADER + config_text(PipelineConfig.from_yaml(self.config)).removesuffix("\n")
