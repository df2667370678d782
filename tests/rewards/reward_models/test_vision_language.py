"""DeQA's readout and UnifiedReward on tiny vision-language models, against one forward pass per image by hand."""

import math

import pytest
import torch

from motet.core.errors import ConfigError
from motet.rewards.reward_models.deqa import DeQA
from motet.rewards.reward_models.qwen_vl import QwenInputs
from motet.rewards.reward_models.unified_reward import UnifiedReward, parse_score
from tests.rewards.judges import chat_server, save_clip, shows
from tests.rewards.reward_models.scoring import IMAGES, bound, score
from tests.rewards.reward_models.tiny_qwen import SPECIAL, WORDS, save_qwen

LEVELS = {"excellent": 5, "good": 4, "fair": 3, "poor": 2, "bad": 1}
PROMPTS = ["a red dog", "a blue bus on the man", "a red dog", "a cat"]


@pytest.fixture(scope="module", params=["qwen2_vl", "qwen2_5_vl"])
def vlm(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    (folder / "template.txt").write_text("rate how well this shows {text_prompt}")
    return str(folder), save_qwen(folder, request.param)


def encoded(path, image, text, answer=""):
    return QwenInputs.open(path, key="k").encode([[image]], [text], torch.device("cpu"), answer=answer)


def test_deqa_is_the_expected_level_of_the_next_token(vlm):
    path, model = vlm
    ids = torch.tensor([len(SPECIAL) + WORDS.index(level) for level in LEVELS])
    wanted = []
    for image in IMAGES:
        given = encoded(path, image, "how good", "this is")
        with torch.no_grad():
            chances = model(**given).logits[0, -1, ids].softmax(dim=0)
        wanted.append(float((chances * torch.tensor([5.0, 4.0, 3.0, 2.0, 1.0])).sum()))
    options = {"path": path, "question": "how good", "opening": "this is"}
    assert score(bound("deqa", **options)) == pytest.approx(wanted, abs=1e-4)
    assert score(bound("deqa", **options, batch_size=3)) == pytest.approx(wanted, abs=1e-4)
    assert all(1 < value < 5 for value in wanted) and len({round(value, 4) for value in wanted}) == 3
    assert score(bound("deqa", **options), [], []) == []


def test_unified_reward_parses_the_models_greedy_answer(vlm, monkeypatch):
    path, model = vlm
    replies = []
    for image, prompt in zip(IMAGES, PROMPTS, strict=True):
        given = encoded(path, image, f"rate how well this shows {prompt}")
        ids = model.generate(**given, do_sample=False, max_new_tokens=5, pad_token_id=0)
        replies.append(QwenInputs.open(path, key="k").tokenizer.decode(ids[0, given["input_ids"].shape[1] :]))
    reward = bound("unified_reward", path=path, template=f"{path}/template.txt", max_tokens=5, batch_size=3)
    seen = []
    monkeypatch.setattr(
        "motet.rewards.reward_models.unified_reward.parse_score", lambda reply, axis: seen.append(reply) or 4.0
    )
    assert score(reward, prompts=PROMPTS) == pytest.approx([0.8] * 4)
    assert [reply.split() for reply in seen] == [
        [word for word in reply.split() if word not in SPECIAL] for reply in replies
    ]


@pytest.mark.parametrize(
    ("reply", "axis", "wanted"),
    [
        ("dog (object): 1\nFinal Score: 3.5", "final", 3.5),
        ("Final Score: 1. No: **Final Score:** 4.25", "final", 4.25),
        ("Final Score: 7", "final", math.nan),
        ("no number", "final", math.nan),
        (None, "final", math.nan),
        ("Alignment Score (1-5): 2.69\nCoherence Score (1-5): 2.37\nStyle Score (1-5): 2.80", "coherence", 2.37),
        ("Alignment Score (1-5): 2.69\nCoherence Score (1-5): 2.37\nStyle Score (1-5): 2.80", "style", 2.8),
        ("Alignment Score (1-5): 2.69", "style", math.nan),
    ],
)
def test_scores_are_parsed(reply, axis, wanted):
    assert parse_score(reply, axis) == pytest.approx(wanted, nan_ok=True)


def test_unified_reward_asks_an_endpoint(tmp_path):
    (tmp_path / "t.txt").write_text("rate {text_prompt} now")
    with chat_server() as server:
        server.reply = lambda request: "Final Score: 4" if "a cat" in str(request["messages"]) else "I cannot."
        endpoint = {"base_url": server.url, "model": "m", "retries": 0}
        reward = bound("unified_reward", endpoint=endpoint, template=str(tmp_path / "t.txt"), max_tokens=99)
        scores = reward(prompts=[], completions=shows(*IMAGES[:3]), prompt=["a cat", "a dog", None])
    assert scores[0] == pytest.approx(0.8) and math.isnan(scores[1]) and scores[2] is None
    (_, body) = server.seen[0]
    assert body["max_tokens"] == 99 and "rate a cat now" in str([body for _, body in server.seen])


def test_other_models_and_wrong_options_raise(tmp_path):
    clip = str(save_clip(tmp_path / "clip"))
    with pytest.raises(ConfigError, match=r"options.path of 'deqa'.*is a clip model, but must be one of qwen2_vl"):
        bound("deqa", path=clip)
    with pytest.raises(ConfigError, match="path=None of 'deqa' is not a path of a Qwen2-VL"):
        DeQA()
    (tmp_path / "t.txt").write_text("{text_prompt}")
    template = str(tmp_path / "t.txt")
    for options in ({}, {"path": "x", "endpoint": {"base_url": "http://h", "model": "m"}}):
        with pytest.raises(ConfigError, match="must have either path or endpoint"):
            UnifiedReward(template=template, **options)
    with pytest.raises(ConfigError, match="axis='beauty' of 'unified_reward'"):
        UnifiedReward(path="x", template=template, axis="beauty")
    (tmp_path / "t.txt").write_text("no place")
    with pytest.raises(ConfigError, match=r"must contain \{text_prompt\} once"):
        UnifiedReward(path="x", template=template)
