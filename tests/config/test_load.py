"""What a user writes is what a recipe says; whatever is wrong is one ConfigError that names key, value and fix."""

from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from motet.config import Recipe, load_recipe, parse_recipe, to_yaml
from motet.config.choice import Choice
from motet.config.yaml import from_yaml
from motet.core.errors import ConfigError

MINIMAL = "policy: {path: model}\nrun: {steps: 3}\n"


def load(folder: Path, text: str, *overrides: str) -> Recipe:
    path = folder / "recipe.yaml"
    path.write_text(text, encoding="utf-8")
    return load_recipe(path, overrides)


def refused(folder: Path, text: str, *overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load(folder, text, *overrides)
    assert caught.value.__cause__ is None and (caught.value.__context__ is None or caught.value.__suppress_context__)
    return str(caught.value)


# --- values


def test_defaults_fill_what_the_file_leaves_out(tmp_path: Path) -> None:
    recipe = load(tmp_path, MINIMAL)
    assert recipe == Recipe.model_validate({"policy": {"path": "model"}, "run": {"steps": 3}})
    assert (recipe.policy.path, recipe.run.steps, recipe.algorithm.num_generations) == ("model", 3, 8)


@pytest.mark.parametrize(
    ("written", "rate"),
    [
        ("2e-4", 2e-4),
        ("1e-3", 1e-3),
        ("2.5E-5", 2.5e-5),
        (".5", 0.5),
        ("1.", 1.0),
        ("1e0", 1.0),
        ("1", 1.0),
        ("+1e-06", 1e-6),
    ],
)
def test_numbers_of_every_notation_are_numbers(tmp_path: Path, written: str, rate: float) -> None:
    assert load(tmp_path, f"{MINIMAL}optimizer: {{learning_rate: {written}}}").optimizer.learning_rate == rate
    assert load(tmp_path, MINIMAL, f"optimizer.learning_rate={written}").optimizer.learning_rate == rate


def test_scalars_are_those_of_yaml_1_2(tmp_path: Path) -> None:
    text = "[yes, off, 010, 0x1f, 0o17, 1:30, 1_000, 2026-11-20, ~, null, true, False, 'true', e3, 1e3x]"
    values = load(tmp_path, MINIMAL, f"data.options.all={text}").data.options["all"]
    assert values[:8] == ["yes", "off", 10, 31, 15, "1:30", "1_000", "2026-11-20"]
    assert values[8:] == [None, None, True, False, "true", "e3", "1e3x"]


def test_anchors_and_merge_keys_work(tmp_path: Path) -> None:
    text = MINIMAL + "sampling:\n  text: &t {temperature: 0.5, top_k: 3}\n  image: {<<: *t, top_k: 4}\n"
    recipe = load(tmp_path, text)
    assert (recipe.sampling.image.temperature, recipe.sampling.image.top_k, recipe.sampling.text.top_k) == (0.5, 4, 3)


def test_mappings_may_hold_tuples_and_paths() -> None:
    recipe = parse_recipe({"policy": {"path": Path("a/b"), "train": ("lm_head",)}, "run": {"steps": 1}})
    assert (recipe.policy.path, recipe.policy.train) == ("a/b", ("lm_head",))


def test_parsing_leaves_the_mapping_alone() -> None:
    mapping = {"policy": {"path": "model"}, "run": {"steps": 3}}
    parse_recipe(mapping, ["run.steps=5", "algorithm.beta=0.1"])
    assert mapping == {"policy": {"path": "model"}, "run": {"steps": 3}}


# --- overrides


def test_overrides_reach_every_depth_and_the_last_one_wins(tmp_path: Path) -> None:
    text = MINIMAL + "rewards: [{name: a}, {name: b}]\n"
    recipe = load(
        tmp_path,
        text,
        "run.steps=7",
        "run.steps=8",
        "rewards.1.weight=0.5",
        "rewards.0.acts=[image]",
        "algorithm.per_kind.image.beta=0.01",
        "policy.lora.rank=4",
        "scenario=my.module:play",
        "data.columns={question: problem}",
        "data.source=rows.jsonl",
        "description=a=b",
        "algorithm.loss.epsilon=null",
    )
    assert (recipe.run.steps, recipe.scenario.name, recipe.description) == (8, "my.module:play", "a=b")
    assert [reward.weight for reward in recipe.rewards] == [1.0, 0.5] and recipe.rewards[0].acts == ("image",)
    assert recipe.algorithm.per_kind["image"].beta == 0.01 and recipe.algorithm.loss == Choice.of("grpo", epsilon=None)
    assert recipe.policy.lora is not None and recipe.policy.lora.rank == 4
    assert recipe.data.columns == {"question": "problem"}


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("algorithm.beta", "write algorithm.beta=VALUE."),
        ("--algorithm.beta=1", "write algorithm.beta=1."),
        ("rewards[0].weight=1", "write rewards.0.weight=1."),
        ("run..steps=1", "write run.steps=1."),
        ("=1", "write KEY=1."),
        ("rewards.1.weight=1", "rewards: has 1 entries; expected an index below 1, got '1'"),
        ("rewards.².weight=1", "an index below 1, got '²'"),
        ("rewards.first.weight=1", "rewards: has 1 entries; expected an index below 1, got 'first'"),
        ("run.steps.x=1", "run.steps: is 3, which has no keys; got 'x'"),
        ("run.steps=[1", "run.steps: the override's value '[1' is not readable YAML: line 1"),
        ("run.stps=1", "run.stps: the key is unknown (its value here is 1); did you mean 'run.steps'"),
        ("algoritm.beta=1", "did you mean 'algorithm' (override 'algoritm.beta=1')?"),
        ("run.steps=many", "run.steps: 'many' does not fit; expected a whole number > 0 (override 'run.steps=many')"),
    ],
)
def test_a_wrong_override_is_named(tmp_path: Path, override: str, words: str) -> None:
    assert words in refused(tmp_path, MINIMAL + "rewards: [{name: a}]", override)


def test_an_override_makes_the_sections_on_its_way(tmp_path: Path) -> None:
    assert load(tmp_path, MINIMAL, "data.targets.0=image").data.targets == {"0": "image"}
    assert load(tmp_path, "policy: {lora: ~}", "policy.path=m", "policy.lora.rank=2", "run.steps=1").policy.lora
    assert "rewards: has 0 entries; expected an index below 0" in refused(tmp_path, MINIMAL, "rewards.0.weight=1")


# --- schema


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("scenaro: draw", "scenaro: the key is unknown (its value here is 'draw'); did you mean 'scenario'?"),
        ("algorithm: {advantag: grpo}", "did you mean 'algorithm.advantage'"),
        (
            "rewards: [{name: a, wieght: 1}]",
            "rewards.0.wieght: the key is unknown (its value here is 1); did you mean 'r",
        ),
        ("algorithm: {per_kind: {image: {bta: 1}}}", "did you mean 'algorithm.per_kind.image.beta'?"),
        ("algorithm: {per_kind: {imge: {bta: 1}}}", "did you mean 'algorithm.per_kind.image'?"),
        ("policy: {path: m, lora: {rnk: 1}}", "did you mean 'policy.lora.rank'?"),
        ("learning_rate: 1e-5", "did you mean 'optimizer.learning_rate'?"),
        ("lr: 1e-5", "did you mean 'optimizer.learning_rate'?"),
        ("optimizer: {kl_coef: 1}", "did you mean 'algorithm.beta'?"),
        ("zebra: 1", "a recipe expects description, policy, scenario,"),
        (
            "sampling: {text: {zebra: 1}}",
            "'sampling.text' expects temperature, top_k, top_p, min_p, max_tokens. Fix: remove it.",
        ),
    ],
)
def test_an_unknown_key_is_refused_with_what_was_meant(tmp_path: Path, line: str, words: str) -> None:
    first = "" if line.startswith("policy") else "policy: {path: model}\n"
    assert words in refused(tmp_path, f"{first}run: {{steps: 3}}\n{line}\n")


@pytest.mark.parametrize(
    ("override", "words"),
    [
        (
            "run.seed='8'",
            "expected a whole number >= 0 and < 4294967296 (override \"run.seed='8'\"). Fix: write 8, without",
        ),
        ("run.seed=1_000", "Fix: write 1000, without quotes"),
        (
            "run.seed=2.0",
            "expected a whole number >= 0 and < 4294967296 (override 'run.seed=2.0'). Fix: write 2.",
        ),
        ("run.seed=true", "true does not fit; expected a whole number"),
        ("optimizer.learning_rate=true", "true does not fit; expected a number > 0"),
        ("policy.gradient_checkpointing=yes", "'yes' does not fit; expected true or false"),
        ("policy.gradient_checkpointing=off", "Fix: write false, without quotes."),
        ("policy.gradient_checkpointing=1", "1 does not fit; expected true or false"),
        ("policy.path=3", "Fix: put it in quotes: '3'."),
        ("policy.train=lm_head", "Fix: write a list: [lm_head]."),
        ("optimizer.betas=[0.9]", "expected a list of 2 entries, each a number"),
        ("optimizer.betas=[0.9, 0.9, 0.9]", "optimizer.betas: [0.9, 0.9, 0.9] does not fit"),
        ("algorithm.scale_rewards=grup", "expected one of group, batch, none (override"),
        ("algorithm.scale_rewards=false", "Fix: write none."),
        ("sampling.text.top_p=1.0", "1.0 does not fit; expected a number > 0 and < 1, or null"),
        ("sampling.image.top_p=0", "0 does not fit; expected a number > 0 and < 1, or null"),
        ("sampling.text.temperature=0", "expected a number > 0"),
        ("algorithm.num_generations=1", "1 does not fit; expected a whole number >= 2"),
        ("algorithm.per_kind.text.beta=-1", "expected a number >= 0, or null"),
        ("run.prompts_per_step=null", "Fix: remove the key to take its default."),
        ("data=shapes", "expected a section with keys among source, split"),
        ("data=shapes", "Fix: write its keys, indented, on the lines below."),
        ("rewards=[accuracy]", "rewards.0: 'accuracy' does not fit; expected a section with keys among name, weight"),
        ("optimizer.learning_rate=.nan", "optimizer.learning_rate: nan does not fit"),
        ("data.columns={1: x}", "data.columns: the key 1 is not text"),
    ],
)
def test_a_value_that_does_not_fit_is_named_with_what_was_expected(tmp_path: Path, override: str, words: str) -> None:
    assert words in refused(tmp_path, MINIMAL, override)


def test_missing_keys_are_named_to_the_last_one(tmp_path: Path) -> None:
    message = refused(tmp_path, "rewards: [{weight: 1}]")
    for key in ("policy.path", "run.steps", "rewards.0.name"):
        assert f"{key}: missing; expected" in message and f"Fix: add {key}." in message


def test_several_problems_make_one_message_with_a_line_each(tmp_path: Path) -> None:
    message = refused(tmp_path, MINIMAL, "run.seed=x", "algorithm.bta=1", "sampling.text.top_p=2")
    assert "recipe.yaml has 3 problems:" in message
    lines = message.splitlines()
    assert [line.split(":")[0].strip() for line in lines[1:4]] == ["algorithm.bta", "sampling.text.top_p", "run.seed"]
    assert all(" Fix: " in line for line in lines[1:4])


def test_what_a_recipe_file_could_not_say_is_refused() -> None:
    mapping = {"policy": {"path": "m"}, "run": {"steps": 1}, "data": {"options": {"f": print}}}
    with pytest.raises(
        ConfigError, match=r"the recipe: data\.options\.f: .* is a builtin_function_or_method; expected what YAML"
    ):
        parse_recipe(mapping)


# --- files


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: [1\nb: 2\n", "recipe.yaml is not readable YAML: line 2"),
        ("a:\n\tb: 1\n", "line 2, column 1: found character a tab"),
        ("run: 1\nb: 2\nrun: 3\n", "line 3, column 1: the key 'run' is given twice, on lines 1 and 3"),
        ("a: {b: 1, b: 1}", "the key 'b' is given twice"),
        ("a: 1\n---\nb: 2\n", "line 2"),
        ("a: \x01", "line 1: a character that YAML does not allow"),
        ("a: !!python/object/apply:os.getcwd []", "line 1"),
        ("a: {[1]: 2}", "line 1"),
        ("a: " + "[" * 1500, "nested too deeply"),
        ("a: " + "1" * 5000, "Exceeds the limit"),
        ("a: &a [*a]", "an alias stands for what contains it"),
        ("", "recipe.yaml is empty"),
        ("# only a comment", "recipe.yaml is empty"),
        ("just text", "recipe.yaml is 'just text'; expected keys such as policy and run"),
    ],
)
def test_an_unreadable_text_is_refused_with_its_line(tmp_path: Path, text: str, words: str) -> None:
    assert words in refused(tmp_path, text)


def test_an_unreadable_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "shapes_demo.yaml").write_text(MINIMAL)
    (tmp_path / "latin.yaml").write_bytes("description: é".encode("latin-1"))
    for name, words in [
        ("shapes_dema.yaml", "shapes_demo.yaml'?"),
        ("shapes_demo", "shapes_demo.yaml'?"),
        ("zzz", "There is no recipe"),
        ("nowhere/a.yaml", "check the path"),
        ("", "cannot be read: Is a directory"),
        ("latin.yaml", "is not UTF-8 text"),
    ]:
        with pytest.raises(ConfigError) as caught:
            load_recipe(tmp_path / name)
        assert words in str(caught.value)


def test_a_byte_order_mark_is_no_error(tmp_path: Path) -> None:
    assert load(tmp_path, "\ufeff" + MINIMAL).run.steps == 3


# --- writing

FULL = """
description: |
  several
    lines: yes
scenario: text_to_image
policy: {path: model, train: [lm_head], device: cpu, dtype: bfloat16, gradient_checkpointing: true}
data: {source: rows.jsonl, split: test, columns: {question: problem}, size: 4, targets: {image: image}}
rewards: [{name: a, weight: -0.5, acts: [image], options: {x: .inf, y: '2e-4', z: 'on', '1': ['', ~, 1e-7]}}]
algorithm: {loss: {name: dapo, epsilon: 0.2}, advantage: rloo, per_kind: {image: {loss: {name: grpo, delta: 4}}}}
sampling:
  text: {top_p: 0.9, top_k: 5}
  image: {guidance: guided, guidance_scale: 3}
optimizer: {learning_rate: 1e-5, betas: [0.9, 0.95]}
eval: {suite: shapes, size: 8}
run: {steps: 1, save_every: 5, threads: 2}
"""


ADAPTED = "policy: {path: model, lora: {rank: 2}}\nrun: {steps: 3}\n"
BESIDE = "policy: {path: model, lora: {rank: 2}, train: [queries]}\nrun: {steps: 3}\n"


@pytest.mark.parametrize("text", [MINIMAL, FULL, ADAPTED, BESIDE])
def test_a_written_recipe_reads_back_equal(tmp_path: Path, text: str) -> None:
    recipe = load(tmp_path, text)
    written = to_yaml(recipe)
    assert load(tmp_path, written) == recipe
    assert to_yaml(load(tmp_path, written)) == written


def test_a_written_recipe_spells_every_default_out(tmp_path: Path) -> None:
    content = yaml.safe_load(to_yaml(load(tmp_path, FULL)))
    assert content["algorithm"]["num_minibatches"] == 1 and content["run"]["log_samples_every"] == 20
    assert content["rewards"][0]["options"]["y"] == "2e-4" and content["rewards"][0]["options"]["z"] == "on"


def test_a_recipe_that_a_file_could_not_hold_is_not_written() -> None:
    recipe = parse_recipe({"policy": {"path": "m"}, "run": {"steps": 1}})
    data = recipe.data.model_copy(update={"options": {"f": print}})
    with pytest.raises(ConfigError, match=r"data\.options\.f"):
        to_yaml(recipe.model_copy(update={"data": data}))


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=40)
@given(options=st.dictionaries(st.text(), VALUES, max_size=3), description=st.text())
def test_any_option_and_any_text_survives_writing(options: dict[str, object], description: str) -> None:
    mapping = {"policy": {"path": "m"}, "run": {"steps": 1}, "data": {"options": options}, "description": description}
    recipe = parse_recipe(mapping)
    assert recipe.data.options == options and recipe.description == description
    assert parse_recipe(from_yaml(to_yaml(recipe))) == recipe
