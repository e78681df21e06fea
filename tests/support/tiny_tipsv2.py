"""A tiny TIPSv2: its sizes, and a SentencePiece tokenizer that has read a few sentences."""

from __future__ import annotations

import io
from dataclasses import replace
from functools import cache
from pathlib import Path

import sentencepiece
import torch

from ff3r_model.network.config import TIPSv2Config
from ff3r_model.network.tipsv2_text import TIPSv2TextConfig, TIPSv2TextEncoder

SENTENCES = (
    "itap of a red chair", "a bad photo of a wooden table", "art of the large door", "a photo of many lamps",
    "a plant in a video game", "this is a test of the floor and the wall", "hello how are you doing.",
)  # fmt: skip
PIECES = 340
IMAGE = TIPSv2Config(replace(TIPSv2Config.b14().vit, width=64, depth=2, heads=4, grid=4))


@cache
def tokenizer(pieces: int = PIECES, pad: int = 0, model_type: str = "bpe") -> bytes:
    """A tokenizer laid out as TIPSv2's: padding, end, unknown, begin, bytes, then pieces of words."""
    buffer = io.BytesIO()
    ids = {"pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": 3} if pad == 0 else {"pad_id": pad, "unk_id": 0}
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(SENTENCES), model_writer=buffer, vocab_size=pieces, model_type=model_type,
        byte_fallback=True, minloglevel=2, **ids,
    )  # fmt: skip
    return buffer.getvalue()


def text_config(size: int = 0) -> TIPSv2TextConfig:
    """Of the tiny text tower, for a tokenizer of this size in bytes."""
    return TIPSv2TextConfig(size or len(tokenizer()), width=64, heads=4, layers=2, vocabulary=PIECES, context_length=32)


def text_encoder() -> TIPSv2TextEncoder:
    """The tiny text encoder with random weights."""
    torch.manual_seed(0)
    encoder = TIPSv2TextEncoder(text_config()).eval()
    encoder.set_tokenizer(tokenizer())
    return encoder


def write_tokenizer(folder: Path) -> Path:
    """As tokenizer.model."""
    path = folder / "tokenizer.model"
    path.write_bytes(tokenizer())
    return path
