"""From a recipe's reward to a bound function, and what is rejected on the way."""

import sys

import pytest

from motet.config import RewardConfig
from motet.core.errors import ConfigError, RewardError
from motet.rewards import bind_policy, built_in_rewards, resolve, resolve_all
from motet.rewards.base import BUILT_INS, BuiltIn
from motet.testing import FakePolicy

ACTS = {"image": "image", "answer": "text"}
COLUMNS = ("prompt", "question", "answer", "spec")

USER_FILE = """
from dataclasses import dataclass
loads = []
loads.append(1)

@dataclass
class Judge:
    bonus: float = 0.0

    def __call__(self, completions):
        return [self.bonus for _ in completions]

judge = Judge(2.0)

def mine(prompts, completions, solution=None, *, scale=1.0, **columns):
    return [scale * len(columns) for _ in completions]

def plain(completions, answer):
    return [float(a == "4") for a in answer]

def needy(completions, soluton):
    return []

constant = 3
"""


@pytest.fixture
def user_file(tmp_path, monkeypatch):
    (tmp_path / "my_rewards.py").write_text(USER_FILE)
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    sys.modules.pop("my_rewards", None)


def bound(name, columns=COLUMNS, **settings):
    return resolve(RewardConfig(name=name, **settings), ACTS, columns)


def test_built_ins_are_listed_with_a_line_each():
    listed = built_in_rewards()
    assert {"exact_answer", "multiple_choice", "open_ended", "format", "shapes"} <= set(listed)
    assert all(entry.meaning for entry in listed.values())


def test_every_built_in_says_what_it_is():
    own = {name: entry for name, entry in BUILT_INS.entries.items() if isinstance(entry, BuiltIn)}
    without = [name for name, entry in own.items() if entry.info is None and entry.function.__module__[:6] == "motet."]
    assert "shapes" in own and not without, f"give @reward(..., info=RewardInfo(...)): {without}"


def test_a_built_in_gets_only_what_it_names():
    reward = bound("open_ended", acts=("answer",), weight=0.8)
    assert (reward.name, reward.weight, reward.acts) == ("open_ended", 0.8, ("answer",))
    assert reward.accepts == {"completions", "answer"}
    completion = [{"role": "assistant", "content": "<answer>4</answer>"}]
    assert reward(prompts=[[]], completions=[completion], answer=["four"], spec=[None]) == [1.0]


def test_acts_default_to_all():
    assert bound("format").acts == ("image", "answer")


def test_an_option_is_never_filled_from_a_column_of_that_name():
    reward = bound("open_ended", columns=("answer", "answer_tags"))
    said = [[{"role": "assistant", "content": "4"}]]
    assert reward(prompts=[[]], completions=said, answer=["4"], answer_tags=[False]) == [0.0]
    untagged = bound("open_ended", options={"answer_tags": False})
    assert untagged(prompts=[[]], completions=said, answer=["4"]) == [1.0]


def test_a_user_function_by_file_and_by_module(user_file):
    reward = bound("my_rewards.py:mine", options={"scale": 0.5, "anything": 1})
    assert reward.name == "mine"
    assert reward(prompts=[[]], completions=[[]], answer=[""], spec=[""], scale=["a column"]) == [0.5 * 4]
    assert bound("my_rewards:plain")(prompts=[[]], completions=[[]], answer=["4"], spec=[""]) == [1.0]
    assert bound("my_rewards.py:Judge", options={"bonus": 0.5})(prompts=[[]], completions=[[]]) == [0.5]
    assert bound("my_rewards.py:judge")(prompts=[[]], completions=[[]]) == [2.0]


def test_a_user_file_is_run_once(user_file):
    first, second = bound("my_rewards.py:mine"), bound("./my_rewards.py:plain")
    assert first.function.__globals__ is second.function.__globals__
    assert first.function.__globals__["loads"] == [1]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("exact_anser", r"rewards.name='exact_anser' is not a reward.*Did you mean 'exact_answer'"),
        ("zzz", r"there are: .*answer_format, .*clip_direction"),
        ("my_rewards.mine", r"Did you mean 'my_rewards:mine'"),
        ("my_rewards.py:mien", r"has no 'mien'. Did you mean 'mine'"),
        ("my_reward.py:mine", r"my_reward.py', which does not exist. Did you mean 'my_rewards.py'"),
        ("no_such_module:mine", r"there is no module 'no_such_module'"),
        ("my_rewards:", r"is not a path"),
        ("my_rewards.py:constant", r"which is not a function"),
    ],
)
def test_unknown_names(user_file, name, message):
    with pytest.raises(ConfigError, match=message):
        bound(name)


@pytest.mark.parametrize("source", ["def broken(:", "import nothing_like_this", "raise SystemExit(3)", "1 / 0"])
def test_a_file_that_fails_to_import(tmp_path, source):
    (tmp_path / "bad.py").write_text(source)
    with pytest.raises(ConfigError, match=r"bad.py', which fails to import") as caught:
        bound(f"{tmp_path}/bad.py:f")
    assert caught.value.__cause__ is not None


def test_a_module_whose_own_import_fails_is_not_called_missing(tmp_path, monkeypatch):
    (tmp_path / "half_there.py").write_text("import nothing_like_this")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="fails to import: ModuleNotFoundError: No module named 'nothing_like_this'"):
        bound("half_there:f")
    (tmp_path / "quarter_there.py").write_text("1 / 0")
    with pytest.raises(ConfigError, match="fails to import: ZeroDivisionError"):
        bound("quarter_there:f")


def test_unknown_acts():
    with pytest.raises(ConfigError, match=r"names 'anser'.*its acts are: image, answer. Did you mean 'answer'"):
        bound("format", acts=("anser",))
    with pytest.raises(ConfigError, match="is empty"):
        bound("format", acts=())


def test_unknown_options(user_file):
    with pytest.raises(ConfigError, match=r"'shapes' has 'parital'.*Did you mean 'partial'"):
        bound("shapes", options={"parital": 0.5})
    with pytest.raises(ConfigError, match=r"has 'answer', which is not an option; it has no options"):
        bound("format", options={"answer": "4"})
    with pytest.raises(ConfigError, match=r"'scale', which is not an option"):
        bound("my_rewards.py:plain", options={"scale": 1})
    with pytest.raises(ConfigError, match="'prompts'"):
        bound("my_rewards.py:mine", options={"prompts": 1})


def test_a_missing_column(user_file):
    with pytest.raises(RewardError, match=r"needs column 'answer'; the data has: prompt, spec") as caught:
        bound("exact_answer", columns=("prompt", "spec"))
    assert "data.columns.answer=NAME" in caught.value.fix
    with pytest.raises(RewardError, match=r"needs column 'soluton'.*Did you mean 'solution'"):
        bound("my_rewards.py:needy", columns=("solution",))
    assert bound("my_rewards.py:needy", columns=(), options={"soluton": [1]}).options == {"soluton": [1]}


def test_images_are_there_when_image_is(tmp_path):
    (tmp_path / "sees.py").write_text("def f(images): return [float(len(i)) for i in images]")
    assert bound(f"{tmp_path}/sees.py:f", columns=("image",)).accepts == {"images"}
    with pytest.raises(RewardError, match="needs column 'images'"):
        bound(f"{tmp_path}/sees.py:f", columns=("prompt",))


def test_equal_names_are_numbered():
    configs = [RewardConfig(name="format", acts=(act,)) for act in ("answer", "image", "answer")]
    assert [r.name for r in resolve_all(configs, ACTS, COLUMNS)] == ["format", "format#2", "format#3"]


# --- a reward that asks for the policy, and one with models and settings of its own

ASKS = """
from motet.rewards.base import ModelReward

def asks(completions, policy):
    return [float(policy.version)] * len(completions)

def asks_with_all(completions, *, policy, **columns):
    return [float(policy.version + len(columns))] * len(completions)

class NeedsReal(ModelReward):
    uses_reference = True
    required_columns = ("real",)
    prepared = None

    def prepare(self, policy):
        self.prepared = policy

    def __call__(self, completions, policy):
        assert self.prepared is policy
        return [1.0] * len(completions)

needs_real = NeedsReal()
"""


@pytest.fixture
def asks(tmp_path):
    (tmp_path / "asks.py").write_text(ASKS)
    return f"{tmp_path}/asks.py:"


def test_a_parameter_called_policy_receives_the_policy(asks):
    policy = FakePolicy()
    policy.version = 3
    plain, greedy = bind_policy([bound(asks + "asks"), bound(asks + "asks_with_all")], policy)
    assert plain(prompts=[[]], completions=[[]], policy=["a column"]) == [3.0]
    assert greedy(prompts=[[]], completions=[[]], spec=[0]) == [6.0]  # prompts, spec, completion_images
    assert not plain.uses_reference


def test_a_reward_without_the_parameter_is_unchanged():
    reward = bound("format")
    assert bind_policy([reward], FakePolicy()) == [reward]


def test_scoring_without_the_policy_says_what_is_missing(asks):
    with pytest.raises(RewardError, match="'asks' needs the policy"):
        bound(asks + "asks")(prompts=[[]], completions=[[]])


def test_policy_is_not_an_option(asks):
    with pytest.raises(ConfigError, match="has 'policy', which is not an option"):
        bound(asks + "asks", options={"policy": 1})


def test_a_model_reward_that_exits_in_prepare_raises(tmp_path):
    (tmp_path / "exits.py").write_text(
        "import sys\nfrom motet.rewards.base import ModelReward\n"
        "class Exits(ModelReward):\n    def prepare(self, policy): sys.exit(0)\n"
        "    def __call__(self, completions): ..."
    )
    with pytest.raises(RewardError, match=r"'Exits' called sys.exit\(0\) in prepare"):
        bind_policy([bound(f"{tmp_path}/exits.py:Exits")], FakePolicy())


def test_a_model_reward_is_prepared_and_declares_its_columns(asks):
    with pytest.raises(RewardError, match="needs column 'real'"):
        bound(asks + "needs_real")
    reward = bound(asks + "needs_real", columns=("real",))
    assert reward.uses_reference and reward.accepts == {"completions"}
    (ready,) = bind_policy([reward], FakePolicy())
    assert ready(prompts=[[]], completions=[[]], real=[0]) == [1.0]


@pytest.mark.parametrize(
    ("name", "option", "value", "known"),
    [
        ("multiple_choice", "on_invalid_gold", "Skip", "error, skip"),
        ("qa_accuracy", "open", "loose", "exact, soft"),
        ("open_ended", "answer_tags", "yes", "True, False"),
    ],
)
def test_invalid_option_values_raise(name, option, value, known):
    config = RewardConfig(name=name, options={option: value})
    with pytest.raises(ConfigError, match=f"rewards.options.{option}={value!r} of {name!r} must be one of {known}"):
        resolve(config, {"answer": "text"}, ("question", "answer", "qa_type"))
