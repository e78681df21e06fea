"""SentencePiece models from anywhere: a tokenizer's bytes, checked before and after the library reads them."""

from __future__ import annotations

from sentencepiece import SentencePieceProcessor

MAX_BYTES = 16 * 2**20
"""Of a model: those of 32,000 pieces have less than one million."""
PADDING = 0
"""Id that stands for no piece of a text."""
_BLANK = "▁"
"""A piece: the space before a word."""


class TokenizerError(ValueError):
    """Bytes that are no tokenizer, or not the one that goes with the weights."""


class SentencePieceModel:
    """A SentencePiece tokenizer whose id 0 is padding."""

    def __init__(self, data: bytes, pieces: int) -> None:
        """Raises TokenizerError unless `data` is such a model, of this many pieces."""
        if len(data) > MAX_BYTES:
            raise TokenizerError(
                f"the tokenizer has {len(data):,} bytes, and SentencePiece models at most {MAX_BYTES:,}"
            )
        self._processor = SentencePieceProcessor()
        try:
            self._processor.LoadFromSerializedProto(data)
        except Exception as error:  # the library raises whatever its C++ does
            raise TokenizerError("the tokenizer is no SentencePiece model") from error
        if self.pieces != pieces:
            raise TokenizerError(f"the tokenizer has {self.pieces} pieces, and the weights are of {pieces}")
        if not self._processor.is_control(PADDING):
            name = self._processor.id_to_piece(PADDING)
            raise TokenizerError(f"the tokenizer's first piece must be padding, not {name!r}: it is another network's")

    @property
    def pieces(self) -> int:
        """Size of the vocabulary."""
        return int(self._processor.get_piece_size())

    def encode(self, text: str) -> list[int]:
        """Ids of a text's pieces, without any for its beginning and end."""
        ids: list[int] = self._processor.encode(text, out_type=int, add_bos=False, add_eos=False)
        return ids

    def knows(self, word: str) -> bool:
        """Whether a word has any piece that is more than a byte of it."""
        return any(not self._processor.is_byte(each) and not self._processor.is_unknown(each)
                   and self._processor.id_to_piece(each) != _BLANK for each in self.encode(word))  # fmt: skip
