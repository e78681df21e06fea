"""Licences of public weights: what they allow, in a sentence, and where their text is."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Licence:
    """Terms of somebody's weights. The sentence is ours and no substitute for the text at `url`."""

    name: str
    """What `--accept-licence` takes."""
    title: str
    commercial: bool
    """Whether it allows commercial use."""
    consent: bool
    """Whether it must be accepted before anything is fetched."""
    url: str
    sentence: str


APACHE = Licence(
    "apache-2.0",
    "Apache-2.0",
    commercial=True,
    consent=False,
    url="https://www.apache.org/licenses/LICENSE-2.0",
    sentence="Use, change and pass on, also commercially; keep the notices.",
)
CC_BY_NC = Licence(
    "cc-by-nc-4.0",
    "CC BY-NC 4.0",
    commercial=False,
    consent=True,
    url="https://creativecommons.org/licenses/by-nc/4.0/legalcode",
    sentence="Use, change and pass on with attribution, for non-commercial purposes only. What is made of the weights, "
    "such as the converted file, is bound by the same.",
)
VGGT = Licence(
    "vggt",
    "VGGT licence, non-commercial",
    commercial=False,
    consent=True,
    url="https://huggingface.co/facebook/VGGT-1B",
    sentence="Meta's terms for VGGT-1B: research and other non-commercial purposes only, as its page on the hub says, "
    "which is what counts.",
)
LSEG = Licence(
    "lseg",
    "LSeg's own",
    commercial=False,
    consent=False,
    url="https://github.com/isl-org/lang-seg",
    sentence="Read the terms of LSeg's repository and of the data that its weights were trained on.",
)
