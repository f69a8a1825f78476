"""A tokenizer that a person can work out by hand: each word is one token, long ones are several."""

import hashlib

import numpy as np

PIECE = 4  # letters in a token


class WordTokenizer:
    """Cuts words into pieces of up to four letters; a piece's number is made from its letters."""

    start, separator, end = (1,), (2,), (2,)
    pad, unknown = 0, 3
    uses_segments = True
    fingerprint = "words"

    def encode(self, texts):
        rows = [
            [self.number(p) for word in text.split() for p in self.pieces(word)] for text in texts
        ]
        return self._flat(rows)

    def encode_words(self, words):
        return self._flat([[self.number(p) for p in self.pieces(word.strip())] for word in words])

    @staticmethod
    def pieces(word):
        return [word[i : i + PIECE] for i in range(0, len(word), PIECE)]

    def number(self, piece):
        if "?" in piece:
            return self.unknown
        return 10 + int.from_bytes(hashlib.blake2b(piece.encode(), digest_size=2).digest())

    @staticmethod
    def _flat(rows):
        flat = np.array([n for row in rows for n in row], np.int32)
        return flat, np.concatenate([[0], np.cumsum([len(row) for row in rows])]).astype(np.int64)
