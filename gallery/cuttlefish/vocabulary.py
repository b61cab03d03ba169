"""The tokenizer: CLIP's, with a vocabulary learnt from what cuttlefish is asked for. Any text can be encoded."""

import json

from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers
from transformers import CLIPTokenizer

from gallery.cuttlefish.scenes import COLOURS, COUNTS, SHAPES

LONGEST = 16
"""Tokens of a prompt; the rest is cut off."""
_END = "</w>"
_EXTRA = ["a", "an", "on", "background", "small", "big", "and", "with", "of", "the", "picture", "drawing"]


def tokenizer() -> CLIPTokenizer:
    """Each word that is known is one token."""
    words = [*COLOURS, *SHAPES, *(f"{shape}s" for shape in SHAPES), *COUNTS, *_EXTRA]
    learner = Tokenizer(models.BPE(end_of_word_suffix=_END))
    learner.pre_tokenizer = pre_tokenizers.Split(Regex(r"\s+"), "removed")
    trainer = trainers.BpeTrainer(vocab_size=2000, end_of_word_suffix=_END, show_progress=False)
    learner.train_from_iterator(words, trainer)
    merges = [tuple(merge) for merge in json.loads(learner.to_str())["model"]["merges"]]
    bytes_ = sorted(pre_tokenizers.ByteLevel.alphabet())
    entries = [*bytes_, *(byte + _END for byte in bytes_), *("".join(merge) for merge in merges)]
    entries += ["<|startoftext|>", "<|endoftext|>"]
    vocabulary = {entry: index for index, entry in enumerate(dict.fromkeys(entries))}
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=LONGEST)
