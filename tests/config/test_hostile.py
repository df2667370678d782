"""Recipes that mean harm, or are broken as if they did: refused in one line, in no time, and nothing of them runs."""

import time
from pathlib import Path

import pytest

from motet.config import load_recipe, parse_recipe
from motet.config.stages import load_plan
from motet.config.sweep import load_sweep
from motet.core.errors import ConfigError

PLAIN = "policy: {path: nowhere}\nrun: {steps: 2}\nscenario: text_to_image\nrewards: [{name: shapes}]\n"
ALIASES = "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"a{n}: &a{n} [{','.join(10 * [f'*a{n - 1}'])}]\n" for n in range(1, 10)
)
MERGES = "m0: &m0 {k0: 1, k1: 1}\n" + "".join(
    f"m{n}: &m{n} {{<<: [{','.join(10 * [f'*m{n - 1}'])}], z{n}: 1}}\n" for n in range(1, 9)
)
BASE = {"policy": {"path": "x"}, "run": {"steps": 1}}
LONG = 300 * "t"
HOSTILE = {
    "ansi_key": ('"\\e[31mred\\e[2J": 1', r"\x1b[31mred\x1b[2J: the key is unknown"),
    "rtl": ("\u202edescription: x", r"\u202edescription: the key is unknown (its value here is 'x'); did you mean"),
    "line_in_key": ('"a\\nmotet: all is well": 1', r"a\nmotet: all is well: the key is unknown"),
    "bomb_description": (ALIASES, "line 9, column 5: this stands for more than 100,000 values"),
    "mergebomb": (MERGES, "stands for more than 100,000 values"),
    "dup": ("run: {steps: 3}", "line 5, column 1: the key 'run' is given twice, on lines 2 and 5"),
    "recursive": ("data: &d {source: shapes, options: *d}", "line 5, column 7: an alias stands for what contains it"),
    "recursive3": ("data: {source: shapes, options: &d {a: *d, b: *d, c: *d}}", "an alias stands for what contains it"),
    "recursive_list": (
        "data: {options: {x: &l [*l,*l,*l,*l]}}",
        "line 5, column 21: an alias stands for",
    ),
    "deep": (f"data: {3000 * '['}", "nested too deeply"),
    "tag_object": ("description: !!python/object/apply:os.system ['touch PWNED']", "could not determine a constructor"),
    "tag_name": ("description: !!python/name:os.system", "could not determine a constructor"),
    "tag_binary": ("description: !!binary aGk=", "is a bytes; expected what YAML can write"),
    "merge_of_a_number": ("data: {<<: 3}", "expected a mapping or list of mappings for merging"),
    "unhashable": ("data: {? [a] : 3}", "found unhashable key"),
    "digits": (f"description: {5000 * '9'}", "Exceeds the limit"),
    "surrogate": ('description: "a\\ud800"', r"'a\ud800' holds half of a character"),
    "surrogate_key": ('data: {options: {"a\\ud800": 1}}', r"data.options: the key 'a\ud800' holds half of a character"),
    "null": ('description: "a\0b"', "a character that YAML does not allow"),
}


def refused(read, words):
    start = time.monotonic()
    with pytest.raises(ConfigError) as caught:
        read()
    assert words in str(caught.value) and "\n" not in str(caught.value) and len(str(caught.value)) < 1000
    assert str(caught.value).isprintable() and time.monotonic() - start < 60


@pytest.mark.parametrize("name", HOSTILE)
def test_recipes_plans_and_studies(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    text, words = HOSTILE[name]
    (tmp_path / "recipe.yaml").write_text(f"{PLAIN}{text}\n", encoding="utf-8")
    refused(lambda: load_recipe(tmp_path / "recipe.yaml"), words)
    if words.startswith(("line", "an alias", "stands", "nested", "could")):
        refused(lambda: load_plan(tmp_path / "recipe.yaml", Path("out")), words)
        refused(lambda: load_sweep(tmp_path / "recipe.yaml", Path("out")), words)
    assert [path.name for path in tmp_path.iterdir()] == ["recipe.yaml"]


@pytest.mark.parametrize("value", ["{x: &l [*l,*l,*l,*l]}", f"{3000 * '['}", "!!python/name:os.system"])
def test_overrides(value):
    refused(
        lambda: parse_recipe({"policy": {"path": "x"}, "run": {"steps": 1}}, [f"data.options={value}"]), "not readable"
    )


def test_mappings_that_contain_themselves():
    """As a notebook may build them; four ways at each of twenty levels never ended."""
    endless: list = []
    endless += [endless, endless, endless, endless]
    with pytest.raises(ConfigError, match="contains itself"):
        parse_recipe({**BASE, "data": {"options": {"x": endless}}})


def test_aliases_that_mean_no_harm():
    recipe = parse_recipe(
        {"policy": {"path": "x"}, "run": {"steps": 1}}, ["data.options={a: &a [1, 2], b: *a, c: {<<: {d: 1}}}"]
    )
    assert recipe.data.options == {"a": [1, 2], "b": [1, 2], "c": {"d": 1}}


@pytest.mark.parametrize("key", ["run.seed", "eval.seed"])
@pytest.mark.parametrize("value", [-1, 2**32])
def test_seeds_have_32_bits(key, value):
    refused(
        lambda: parse_recipe(BASE, ["eval.suite=none", f"{key}={value}"]),
        "expected a whole number >= 0 and < 4294967296",
    )
    assert parse_recipe(BASE, ["eval.suite=none", f"{key}={2**32 - 1}"])


def test_threads_that_no_machine_has():
    """100,000 of them ended in a segmentation fault."""
    refused(lambda: parse_recipe(BASE, ["run.threads=100000"]), "run.threads: 100000 does not fit")
    refused(lambda: parse_recipe(BASE, ["run.threads=0"]), "run.threads: 0 does not fit")
    assert parse_recipe(BASE, ["run.threads=64"]).run.threads == 64


def test_names_that_no_file_can_have(tmp_path):
    path = tmp_path / "x.yaml"
    rewards = "rewards: [{name: shapes}]"
    path.write_text(
        f"policy: {{path: x}}\nrun: {{steps: 2}}\ntracks: {{{LONG}: {{scenario: text_to_image, {rewards}}}}}"
    )
    refused(lambda: load_recipe(path), "a name of 300 characters is too long")
    stage = f"{{policy: {{path: x}}, run: {{steps: 1}}, eval: {{suite: shapes}}, scenario: text_to_image, {rewards}}}"
    strategy = f"{{stages: {{a: {stage}}}, result: a}}"
    for name in (LONG, "../up", "a/b", '"a\\e[2Jb"'):
        path.write_text(f"stages: {{{name}: {stage}}}")
        refused(lambda: load_plan(path, tmp_path / "out"), "is used as a folder name")
        path.write_text(f"seeds: [0]\nstrategies: {{{name}: {strategy}, b: {strategy}}}")
        refused(lambda: load_sweep(path, tmp_path / "out"), "is used as a folder name")


def test_files_that_are_no_recipes(tmp_path):
    (tmp_path / "big.yaml").write_bytes(bytes(4_000_001))
    refused(lambda: load_recipe(tmp_path / "big.yaml"), "larger than 4 MB")
    if Path("/dev/zero").exists():
        refused(lambda: load_recipe("/dev/zero"), "larger than 4 MB")
