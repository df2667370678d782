"""The schema stays small, documented and free of torch."""

import subprocess
import sys
from pathlib import Path

from motet.config import Recipe, algorithm, sampling, schema
from motet.config.keys import (
    ALIASES_OF_OTHER_FRAMEWORKS,
    annotation_at,
    as_section,
    describe,
    distinct_keys,
    explain,
    walk,
)
from motet.config.options import OPTIONS, walk_options
from motet.config.section import Section

SECTIONS = {
    section
    for module in (schema, algorithm, sampling)
    for section in vars(module).values()
    if isinstance(section, type) and issubclass(section, Section) and section.model_fields
}


def test_the_keys_of_a_recipe_are_frozen_and_at_most_90() -> None:
    """A new key needs a line in keys.txt, in the order of `motet config --keys`, and another one to go."""
    keys = (Path(__file__).parent / "keys.txt").read_text(encoding="utf-8").splitlines()
    assert distinct_keys() == keys and len(keys) <= 90


def test_every_key_is_documented() -> None:
    assert [key for key, field in walk() if not field.description] == []


def test_every_section_refuses_unknown_keys_and_is_frozen() -> None:
    assert all(s.model_config.get("frozen") for s in SECTIONS)
    strict = SECTIONS - {sampling.SamplingConfig}  # which reads the kinds of plug-ins too
    assert all(s.model_config.get("extra") == "forbid" for s in strict)


def test_walk_reaches_every_section() -> None:
    paths = {tuple(key.split(".")[:depth]) for key, _ in walk() for depth in range(key.count(".") + 1)}
    options = {settings for named in OPTIONS.values() for settings in named.values() if settings.model_fields}
    reached = {as_section(annotation_at(path)[0]) for path in paths} - {None} | options
    assert reached == SECTIONS - {sampling.TokenSamplingConfig}  # the base of two


def test_explain_gives_type_default_and_meaning_of_every_key() -> None:
    text = explain()
    assert len(text.splitlines()) == 2 * len(list(walk()))
    assert "algorithm.num_generations  (a whole number >= 2; default 8)\n    G: generations per prompt" in text
    assert "run.steps  (a whole number > 0; required)" in text
    assert "sampling.text.top_p  (a number > 0 and < 1, or null; default null)" in text
    assert "algorithm.per_kind.KIND.beta" in text and "rewards.N.weight" in text
    with_options = explain(options=walk_options())
    assert "eval.suite.held_out_size  (shapes: a whole number > 0; default 512)" in with_options
    assert (
        with_options.index("eval.suite  (")
        < with_options.index("eval.suite.held_out_size")
        < with_options.index("eval.size")
    )
    assert explain(schema.LoraConfig).startswith("rank  (a whole number > 0; default 16)")


def test_no_type_is_left_undescribed() -> None:
    assert [key for key, field in walk() if describe(field.annotation).startswith("a value")] == []


def test_spellings_of_other_frameworks_lead_to_keys() -> None:
    keys = {key for key, _ in walk()}
    options = {"algorithm.loss.epsilon", "algorithm.loss.entropy_bonus"}  # of a choice, whose name is the key
    assert set(ALIASES_OF_OTHER_FRAMEWORKS.values()) <= keys | options
    assert not {spelling for spelling in ALIASES_OF_OTHER_FRAMEWORKS if spelling in Recipe.model_fields}


def test_config_and_errors_import_no_torch() -> None:
    code = (
        "import sys, motet.config, motet.core.errors\n"
        "print([name for name in ('torch', 'numpy', 'transformers', 'PIL') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
