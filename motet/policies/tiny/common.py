"""What tiny models of all families start from: a tokenizer made from a corpus, and weights that learn at small width.

transformers' own initialisation (standard deviation 0.02) is too small for narrow models: visual questions then stay
at chance for as long as anyone waits, so linear layers start at 0.7 / sqrt(fan_in).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import nn

TAGS = ("<think>", "</think>", "<answer>", "</answer>")


def byte_level_tokenizer(corpus: Iterable[str], vocab_size: int, specials: Sequence[str]) -> Tokenizer:
    """A byte-level BPE of a corpus: frequent words are one token, any text can be written. `TAGS` are added to it.

    `vocab_size` counts the special tokens, which come first, and the 256 bytes, but not the tags.
    """
    tokenizer = Tokenizer(models.BPE())
    word = Regex(r" ?[^\s,.?:<>]+|[,.?:<>]|\s+")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(word, "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(specials),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus, trainer)
    tokenizer.add_tokens(list(TAGS))
    return tokenizer


@torch.no_grad()
def initialise(parts: Iterable[nn.Module]) -> None:
    """Draw the linear layers of these parts at 0.7 / sqrt(fan_in), and their embeddings at 0.5."""
    for part in parts:
        for module in part.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=0.7 / module.in_features**0.5)
            elif isinstance(module, nn.Embedding):
                nn.init.normal_(module.weight, std=0.5)
