"""TRL's whole reward contract: rewards as its users write them, with TRL's own, called as a run calls them.

The functions are in `tests/cases/rewards`.
"""

import json
from pathlib import Path

import pytest
from PIL import Image

from motet.config import RewardConfig, load_recipe, parse_recipe, to_yaml
from motet.core.errors import ConfigError, RewardError
from motet.core.task import Task
from motet.core.trajectory import Sampling
from motet.report.resume_check import check_resume_compatible
from motet.report.run_dir import RunFolder
from motet.rewards import StepLog, resolve, score_groups
from motet.scenarios import answer, generate_and_answer, text_to_image
from motet.testing import FakePolicy
from motet.training.rollout import rollout
from tests.runs import mapping, metrics, run_loop

CASES = Path(__file__).parents[1] / "cases" / "rewards"
STYLE, TRL = f"{CASES}/rewards_trl_style.py:", f"{CASES}/trl_rewards.py:"
TEXTS = {0: "x ab", 1: "ab ab ab ab ab ab"}
COLUMNS = ("question", "answer", "solution", "prompt")


def roll(scenario=answer, writes=lambda request: TEXTS[request.key[-2]], kinds=("text", "image"), G=2, **columns):
    row = {"question": "how many?", "prompt": "a dog", "answer": "4", "solution": "4", **columns}
    samplings = {"text": Sampling(), "image": Sampling(), "denoising": Sampling()}
    policy = FakePolicy(writes=writes, kinds=kinds)
    return rollout(policy, scenario, [Task(0, row)], G, samplings=samplings, seed=0, step=0)


def bound(name, scenario=answer, columns=COLUMNS, **settings):
    return resolve(RewardConfig(name=name, **settings), scenario.acts, columns)


def values(name, groups=None, log=None, **settings):
    """What a reward says of two generations of a group that wrote `TEXTS`."""
    reward = bound(name, **settings)
    (scores,) = score_groups(roll() if groups is None else groups, [reward], log)
    return list(scores.values[reward.name])


LENGTHS = [4.0, 17.0]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        *((STYLE + name, [1.0, 1.0]) for name in ("slow", "tensor", "array", "bools", "ints", "tensors")),
        *((STYLE + name, [1.0, 1.0]) for name in ("wants_solution", "completions_text", "environments")),
        (STYLE + "with_ids", [5.0, 18.0]),  # with the end of the sequence, as in TRL
        (STYLE + "with_log", [0.5, 0.5]),
        (STYLE + "with_log_required", [0.5, 0.5]),
        (STYLE + "judge", [0.25, 0.25]),
        (STYLE + "ModelReward", [0.25, 0.25]),
        (STYLE + "ajudge", [0.7, 0.7]),
        (STYLE + "AsyncJudge", [0.7, 0.7]),
        (STYLE + "part", [0.3, 0.3]),
        (STYLE + "lam", [0.1, 0.1]),
        (STYLE + "first_content", [1.0, 0.0]),
        (f"{CASES}/r.py:length", LENGTHS),
        *((TRL + name, LENGTHS) for name in ("as_tensor", "as_array", "as_tuple", "as_tensors", "fine")),
        *((TRL + name, LENGTHS) for name in ("with_state", "with_log")),
        (TRL + "with_ids", [5.0, 18.0]),
        (TRL + "prompts_text", [9.0, 9.0]),  # a question without an image is a string
        (TRL + "weighted", [8.0, 34.0]),
        (TRL + "Weighted", [8.0, 34.0]),
        (TRL + "lam", [0.0, 1.0]),
        (TRL + "soft_overlong", [0.0, -1.0]),
        (TRL + "think_format_reward", [0.0, 0.0]),
    ],
)
def test_rewards_as_people_write_them(name, expected):
    assert values(name) == expected


def test_the_penalty_for_repetition_sees_the_token_ids():
    first, second = values(TRL + "repetition")
    assert first == 0.0 and -1.0 < second < -0.5


@pytest.mark.parametrize(
    ("name", "expected"), [("accuracy_reward", 1.0), ("reasoning_accuracy_reward", 1.0), ("cosine", 0.5)]
)
def test_trls_rewards_for_mathematics(name, expected):
    pytest.importorskip("math_verify")
    groups = roll(writes=[r"<think>2 + 2</think> It is \boxed{4}."])
    assert values(TRL + name, groups) == [expected, expected]


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("get_soft_overlong_punishment", {"max_completion_len": 12, "soft_punish_cache": 7}, [0.0, -1.0]),
        ("get_soft_overlong_punishment", {"max_completion_len": 20, "soft_punish_cache": 4}, [0.0, -0.5]),
        ("get_repetition_penalty_reward", {}, [0.0, -0.75]),
    ],
)
def test_a_factory_is_called_with_the_options(name, options, expected):
    assert values(f"trl.rewards:{name}", options=options) == expected


def test_a_class_is_made_with_the_options():
    assert values(STYLE + "ModelReward", options={"bonus": 2}) == [2.0, 2.0]
    assert values(STYLE + "base", options={"bonus": 3}) == [3.0, 3.0]


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("needs_environments", {}, "takes `environments`: part of TRL's tool calling, which motet does not support"),
        ("solution_str", {}, "takes `solution_str`: verl's name"),
        ("flow_grpo", {}, r"needs column 'images' \(the images of the data; generated ones are `completion_images`\)"),
        ("ddpo", {}, r"needs column 'images' \(the images of the data; generated ones are `completion_images`\)"),
        ("wants_solution", {"columns": ("question",)}, "needs column 'solution'"),
        ("too_few", {}, "returned 1 values for 2 completions"),
        ("strs", {}, r"returned '1' \(str\) for completion 0, not a number"),
        ("nothing", {}, "returned a NoneType, not a list of 2"),
        ("dicts", {}, r"returned {'score': 1.0} \(dict\) for completion 0, not a number"),
        ("strings", {}, r"text is completion\[0\]\['content'\]"),
    ],
)
def test_unsupported_arguments_raise(name, settings, message):
    with pytest.raises(RewardError, match=message):
        values(STYLE + name, **settings)
    with pytest.raises(RewardError, match="'one' returned 1 values for 2"):
        values(TRL + "one")


def test_none_for_single_completions_drops_them():
    groups = roll(writes=["x"], G=4)
    (scores,) = score_groups(groups, [bound(TRL + "faulty")])
    assert list(scores.dropped) == [1] and scores.values["faulty"][1] is None


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        (
            "trl.rewards:get_repetition_penalty_reward",
            {"max_penalty": 1},
            r"\(max_penalty=1\): ValueError: max_penalty",
        ),
        ("trl.rewards:get_soft_overlong_punishment", {"max_completion_len": 9, "soft_punish_cache": 1, "x": 1}, "'x'"),
        (STYLE + "ModelReward", {"bonsu": 1}, "'bonsu', which is not an option; its options are: bonus"),
        (STYLE + "re.compile", {"pattern": "x"}, "makes re.compile.*, not a reward function"),
    ],
)
def test_options_that_make_no_reward(name, options, message):
    with pytest.raises(ConfigError, match=message):
        bound(name, options=options)


def test_a_factory_without_an_option_that_it_requires():
    with pytest.raises(RewardError, match="'soft_punish_cache'") as caught:
        bound("trl.rewards:get_soft_overlong_punishment", options={"max_completion_len": 9})
    assert "rewards.options.soft_punish_cache" in caught.value.fix


def test_a_class_that_exits(tmp_path):
    (tmp_path / "exits.py").write_text("import sys\nclass Exits:\n    def __init__(self): sys.exit(0)")
    with pytest.raises(ConfigError, match="cannot be created with rewards"):
        bound(f"{tmp_path}/exits.py:Exits")


def test_a_model_raises(tmp_path):
    (tmp_path / "model.py").write_text(
        "from transformers import BertConfig, BertForSequenceClassification as B\n"
        "model = B(BertConfig(hidden_size=4, num_hidden_layers=1, num_attention_heads=1, intermediate_size=4))"
    )
    with pytest.raises(ConfigError, match="a model, not a function"):
        bound(f"{tmp_path}/model.py:model")


def test_the_state_of_the_training():
    log = StepLog(step=3, steps=12, epoch=0.5)
    assert values(STYLE + "with_state", log=log) == [3.0, 3.0]
    assert values(STYLE + "with_state_max", log=log) == [0.25, 0.25]


# --- drawn images


def test_generated_images_stand_beside_input_images(tmp_path):
    (tmp_path / "both.py").write_text(
        "seen = []\n"
        "def both(prompts, images, completion_images):\n"
        "    seen.append((prompts, images, completion_images))\n"
        "    return [1.0] * len(prompts)"
    )
    own = Image.new("RGB", (3, 3), "red")
    groups = roll(generate_and_answer, image=own)
    reward = bound(f"{tmp_path}/both.py:both", generate_and_answer, (*COLUMNS, "image"), acts=("image", "answer"))
    score_groups(groups, [reward])
    ((prompts, images, drawn),) = reward.function.__globals__["seen"]
    assert images == [[own], [own]]
    assert drawn == [[group.acts[0].image] for group in groups[0].trajectories]
    assert prompts[0] == [{"role": "user", "content": "a dog"}]


def test_a_question_with_an_image_comes_in_parts(capsys):
    groups = roll(image=Image.new("RGB", (3, 3)))
    assert values(STYLE + "show", groups, columns=(*COLUMNS, "image")) == [1.0, 1.0]
    said = capsys.readouterr().out
    assert "'content': [{'type': 'image', 'image': <PIL" in said and "{'type': 'text', 'text': 'how many?'}" in said


def test_redness_by_either_name():
    groups = roll(text_to_image)
    expected = [t.acts[0].image.getpixel((0, 0))[0] for t in groups[0].trajectories]
    for file, name in (("r.py", "redness"), ("rewards_trl_style.py", "redness_of_images")):
        (scores,) = score_groups(groups, [bound(f"{CASES}/{file}:{name}", text_to_image)])
        assert list(scores.values[name]) == expected


def test_image_tokens_are_among_the_ids_and_denoising_has_none():
    tokens, steps = roll(text_to_image), roll(text_to_image, kinds=("denoising",))
    assert values(STYLE + "with_ids", tokens, scenario=text_to_image) == [4.0, 4.0]
    with pytest.raises(RewardError, match="'with_ids' requires completion_ids"):
        values(STYLE + "with_ids", steps, scenario=text_to_image)
    assert values(STYLE + "redness_of_images", steps, scenario=text_to_image)


def test_improvement_rejects_a_reward_that_needs_token_ids():
    config = RewardConfig(name="improvement", options={"of": STYLE + "with_ids"})
    with pytest.raises(ConfigError, match="needs completion_ids, which"):
        resolve(config, {"draft": "image", "revision": "image"}, ())


# --- what rewards log


def test_what_is_logged_belongs_to_its_trajectory():
    log = StepLog()
    (scores,) = score_groups(roll(), [bound(STYLE + "with_log_required"), bound(TRL + "fine")], log)
    assert log.metrics == {"with_log_required/mean_len": 3.0}
    assert scores.logged == {n: {"with_log_required": {"gold": "4"}} for n in range(2)}


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ("log_extra('c', [1])", r"log_extra\('c', ...\) with 1 values for 2 completions"),
        ("log_metric('m', 'x')", r"log_metric\('m', 'x'\), which is not a number"),
        ("log_metric('mean', 1.0)", r"log_metric\('mean', 1.0\), which is motet's own name"),
    ],
)
def test_wrong_logs_raise(tmp_path, call, message):
    (tmp_path / "logs.py").write_text(
        f"def logs(completions, log_extra, log_metric, **kw):\n    {call}\n    return [1.0] * len(completions)"
    )
    with pytest.raises(RewardError, match=message):
        values(f"{tmp_path}/logs.py:logs")


@pytest.mark.parametrize(("scenario", "reward"), [("answer", "length"), ("text_to_image", "redness")])
def test_a_recipe_with_a_reward_beside_it(scenario, reward, tiny_checkpoint, tmp_path, monkeypatch):
    monkeypatch.chdir(CASES)
    rows = [{"question": f"how many {n}?", "prompt": f"{n} dogs"} for n in range(4)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    own = [f"policy.path={tiny_checkpoint}", "policy.device=cpu", f"data.source={tmp_path}/rows.jsonl"]
    recipe = load_recipe(CASES / "r.yaml", [*own, f"scenario={scenario}", f"rewards=[{{name: r.py:{reward}}}]"])
    run_loop(recipe, tmp_path / "run")
    assert [line[f"rewards/{reward}/mean"] > 0 for line in metrics(tmp_path / "run")] == [True, True]


def test_a_run_keeps_what_rewards_log(tiny_checkpoint, tmp_path):
    rewards = [
        {"name": STYLE + "with_log_required", "acts": ["answer"]},
        {"name": STYLE + "with_state", "acts": ["image"]},
    ]
    run_loop(mapping(tiny_checkpoint, rewards=rewards, run={"steps": 2, "log_samples_every": 1}), tmp_path / "run")
    lines = metrics(tmp_path / "run")
    assert [line["rewards/with_log_required/mean_len"] for line in lines] == [3.0, 3.0]
    assert [line["rewards/with_state/mean"] for line in lines] == [0.0, 1.0]  # steps done before
    samples = [json.loads(line) for line in (tmp_path / "run/samples/step_000001.jsonl").read_text().splitlines()]
    assert all(set(line["logged"]["with_log_required"]) == {"gold"} for line in samples) and samples


def test_a_run_that_ended_for_a_timeout_goes_on_with_another(tmp_path):
    folder = tmp_path / "run"
    policies = [{"name": "raise", "timeout": 1.0}, "drop"]
    recipes = [
        parse_recipe(mapping(tmp_path, rewards=[{"name": "format", "on_failure": policy, "weight": weight}]))
        for policy, weight in [(policies[0], 1.0), (policies[1], 1.0), (policies[1], 2.0)]
    ]
    folder.mkdir()
    (folder / "recipe.yaml").write_text(to_yaml(recipes[0]))
    check_resume_compatible(RunFolder(folder, resume=True), recipes[1], {})
    with pytest.raises(ConfigError, match=r"rewards.0.weight was 1.0 and is 2.0"):
        check_resume_compatible(RunFolder(folder, resume=True), recipes[2], {})
