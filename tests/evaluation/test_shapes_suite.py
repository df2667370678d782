"""The shapes suite: whose numbers they are, that items repeat, and tallies counted by hand."""

import io
from dataclasses import replace

import pytest
from PIL import Image

from motet.config import Choice, EvalConfig, parse_recipe
from motet.core.errors import ConfigError
from motet.core.trajectory import ImageTokens, Sampling
from motet.evaluation.shapes_suite import ITEMS_PER_BATCH, evaluate_shapes, is_right, pass_at_k
from motet.experiments.single_run import run_evaluation
from motet.policies import load_policy
from motet.policies.diffusion.policy import DiffusionPolicy
from motet.report.run_dir import RunFolder
from motet.report.tables import suite_table
from motet.report.terminal import Terminal
from motet.shapes.large.prompts import part_of_set
from motet.shapes.large.vocabulary import SETS
from motet.shapes.prompts import CATEGORIES
from motet.shapes.questions import KINDS
from motet.shapes.world import HARD_CATEGORIES, evaluation_splits, open_world
from motet.testing import FakePolicy
from motet.training.setup import setup_eval, setup_rl, setup_sft
from tests.policies.unified import save
from tests.policies.vlms import save_tiny
from tests.runs import REWARDS, mapping, motet_command

WORLD = {"canvas": 16, "grid": 2, "max_objects": 3, "max_count": 3}
FORMS = ("multiple choice", "open-ended")
CONFIG = EvalConfig(suite=Choice.of("shapes", held_out_size=6), size=40, samples_per_item=3, seed=9)


def samplings(max_tokens: int, **others: Sampling) -> dict[str, Sampling]:
    return {"text": Sampling(max_tokens=max_tokens), "image": Sampling(), **others}


def changed(**options):
    """The settings with options of the suite changed."""
    return CONFIG.model_copy(update={"suite": CONFIG.suite.with_options(**options)})


def items(split, size, world=WORLD):
    rows = open_world(split, CONFIG.seed, world, size)
    return [rows.row(index) for index in range(size)]


class Known(FakePolicy):
    """Knows the items' prompts and questions by heart; what it makes of them is said by `draws_right` and `says`.

    Both are functions of the item's index and of the sample, None for the greedy one.
    """

    def __init__(self, draws_right, says, world=WORLD):
        super().__init__(writes=self.write)
        self.draws_right, self.says = draws_right, says
        self.rows = {}
        for split in evaluation_splits(world):
            rows = items(split, CONFIG.size if split == "test" else 6, world)
            self.rows |= {(r["prompt"], i): r for i, r in enumerate(rows)}
            self.rows |= {(r["question"], i): r for i, r in enumerate(rows)}
        self.greedy = False

    def row(self, request):
        return self.rows[request.context.text.strip(), request.key[1]]

    def write(self, request):
        return self.says(self.row(request), request.key[1], None if self.greedy else request.key[2])

    def act(self, requests, sampling):
        self.greedy = sampling.temperature == 0
        acts = super().act(requests, sampling)
        if requests[0].kind == "text":
            return acts
        return [self.draw(request, act) for request, act in zip(requests, acts, strict=True)]

    def draw(self, request, act):
        right = self.draws_right(request.key[1], None if self.greedy else request.key[2])
        target = self.row(request)["target"]
        image = target if right else Image.new("RGB", target.size, "white")
        return ImageTokens(**{**vars(act), "image": image})


def solved(draws_right=lambda index, sample: True, says=lambda row, index, sample: row["solution"]):
    return evaluate_shapes(Known(draws_right, says), CONFIG, WORLD, samplings(200))


def test_keys_of_the_summary():
    table = solved().table
    assert list(table) == ["draw", "answer", "held_out", "greedy", "pass@2", "pass@3", "diversity", "items", "by_item"]
    assert table["items"] == {"test": 40, "held_out": 6}
    for section in (table, table["held_out"], table["greedy"], table["pass@3"], table["greedy"]["held_out"]):
        for skill, labels in (("draw", CATEGORIES), ("answer", (*KINDS, *FORMS))):
            names = list(section[skill])
            assert names[0] == "overall" and set(names[1:]) <= set(labels) and names[1:] == sorted(names[1:])
    assert set(table["draw"]) == {"overall", *(row["category"] for row in items("test", 40))}
    assert set(table["answer"]) == {"overall", *FORMS, *(row["kind"] for row in items("test", 40))}


def test_a_perfect_policy_is_always_correct():
    table = solved().table
    for section in (table, table["held_out"], table["greedy"], table["pass@3"], table["pass@3"]["held_out"]):
        assert all(value == 1.0 for skill in ("draw", "answer") for value in section[skill].values())


def test_the_large_world_has_three_sets_of_held_out_compositions():
    world = {"world": "large", "canvas": 32}
    few = CONFIG.model_copy(update={"size": 8, "samples_per_item": 1})
    policy = Known(lambda index, sample: index != 0, lambda row, index, sample: row["solution"], world)
    table = evaluate_shapes(policy, few, world, samplings(400)).table
    assert table["items"] == {"test": 8, "only_drawn": 6, "only_asked": 6, "held_out": 6}
    for part in (table["only_drawn"], table["only_asked"], table["held_out"]):
        assert part["draw"]["overall"] == 0.8333 and part["answer"]["overall"] == 1.0
    for split in SETS:
        images = table["by_item"][split]["draw"]
        assert sum(len(values) for name, values in images.items() if name.startswith("names a ")) == 6
        first = items(split, 1, world)[0]  # the item whose image is wrong
        assert images[f"names a {part_of_set(first['spec'], split)}"][0] == 0.0
    assert not any(name.startswith("names a ") for name in (*table["draw"], *table["held_out"]["answer"]))
    console = Terminal(width=120, record=True, file=io.StringIO())
    console.print(suite_table({"after": table}, "title"))
    text = console.export_text()
    for row in ("image: only-drawn", "image: only-asked", "image: held-out", "answer: only-drawn"):
        assert row in text


def test_pass_at_k_by_hand():
    """Of 5 samples 2 are right: of the 10 pairs, 3 have none of them; of the 10 triples, 1."""
    assert [pass_at_k(2, 5, k) for k in (1, 2, 3, 4)] == pytest.approx([0.4, 0.7, 0.9, 1.0])
    assert pass_at_k(0, 8, 8) == 0.0 and pass_at_k(1, 8, 8) == 1.0


def test_tallies_by_hand():
    """Sample 0 of even items is drawn right, greedy of every third; answers are right in sample 1 of kind count."""

    def draws_right(index, sample):
        return index % 3 == 0 if sample is None else sample == 0 and index % 2 == 0

    def says(row, index, sample):
        return row["solution"] if row["kind"] == "count" and sample == 1 else "<answer>I do not know</answer>"

    table = solved(draws_right, says).table
    assert table["draw"]["overall"] == round(20 / 40 / 3, 4) and table["pass@3"]["draw"]["overall"] == 0.5
    assert table["pass@2"]["draw"]["overall"] == round(0.5 * 2 / 3, 4)  # two of the three pairs contain sample 0
    assert table["greedy"]["draw"]["overall"] == round(14 / 40, 4)
    assert table["held_out"]["draw"]["overall"] == round(3 / 6 / 3, 4)
    assert table["greedy"]["held_out"]["draw"]["overall"] == round(2 / 6, 4)
    rows = items("test", 40)
    for category in table["draw"].keys() - {"overall"}:
        mine = [index for index, row in enumerate(rows) if row["category"] == category]
        even = sum(index % 2 == 0 for index in mine)
        assert table["draw"][category] == round(even / len(mine) / 3, 4)
        assert table["pass@3"]["draw"][category] == round(even / len(mine), 4)
    counts = sum(row["kind"] == "count" for row in rows)
    assert counts and table["answer"]["count"] == round(1 / 3, 4) and table["pass@3"]["answer"]["count"] == 1.0
    assert table["answer"]["overall"] == round(counts / 40 / 3, 4) and table["greedy"]["answer"]["count"] == 0.0
    assert all(table["answer"][kind] == 0 for kind in table["answer"].keys() - {"overall", "count", *FORMS})
    for form, chosen in (("multiple choice", True), ("open-ended", False)):
        mine = [row["kind"] == "count" for row in rows if bool(row["options"]) == chosen]
        assert table["answer"][form] == round(sum(mine) / len(mine) / 3, 4)


def test_guidance_applies_to_images_only():
    seen = set()

    class Guided(FakePolicy):
        def act(self, requests, sampling):
            seen.add((requests[0].kind, sampling.temperature, sampling.guidance, sampling.guidance_scale))
            return super().act(requests, sampling)

    evaluate_shapes(Guided(side=16), changed(guidance_scale=3.0), WORLD, samplings(20))
    assert seen == {(kind, t, *how) for t in (0.0, 1.0) for kind, how in KINDS_GUIDED}
    seen.clear()
    evaluate_shapes(Guided(side=16), CONFIG, WORLD, samplings(20))
    assert {how[2:] for how in seen} == {("none", 1.0)}


KINDS_GUIDED = (("image", ("guided", 3.0)), ("text", ("none", 1.0)))


@pytest.fixture(scope="module")
def unified(tmp_path_factory):
    """A tiny unified model, which writes and draws by denoising, 16 pixels wide."""
    return save(tmp_path_factory.mktemp("unified") / "tiny")


@pytest.fixture
def samplings_used(monkeypatch):
    """The sampling settings of all generated images."""
    seen, act = [], DiffusionPolicy.act
    monkeypatch.setattr(DiffusionPolicy, "act", lambda self, asked, how: seen.append(how) or act(self, asked, how))
    return seen


def test_a_diffusion_policy(unified, samplings_used):
    """Samples take the configured stochastic steps, greedy images follow the ODE."""
    few = changed(held_out_size=2, guidance_scale=3.0).model_copy(update={"size": 4, "samples_per_item": 2})
    steps = Sampling(num_steps=3, noise_level=0.5, shift=2.0, guidance="conditional", guidance_scale=7.0)
    outcome = evaluate_shapes(load_policy(unified), few, WORLD, samplings(8, denoising=steps))
    assert list(outcome.table) == ["draw", "answer", "held_out", "greedy", "pass@2", "diversity", "items", "by_item"]
    assert [sample.image.size for sample in outcome.samples] == [(16, 16)] * 4
    sampled = replace(steps, guidance="guided", guidance_scale=3.0)
    assert samplings_used == [sampled, replace(sampled, temperature=0.0)] * 2


def test_denoising_settings_of_the_command_and_of_a_run(unified, samplings_used, tmp_path, capsys):
    world = [part for name, value in WORLD.items() for part in ("--world", f"{name}={value}")]
    small = ["--size", 2, "--held-out-size", 2, "--samples-per-item", 1, "--max-tokens", 4]
    answer = motet_command(capsys, "eval", unified, *small, *world, "--num-steps", 2, "--noise-level", 0.3)
    assert answer.code == 0 and "image: overall" in answer.out
    assert {(how.num_steps, how.noise_level, how.guidance) for how in samplings_used} == {(2, 0.3, "none")}
    samplings_used.clear()
    evaluated = {"suite": {"name": "shapes", "held_out_size": 2}, "size": 2, "samples_per_item": 1}
    content = mapping(unified, eval=evaluated, sampling={"denoising": {"num_steps": 4, "sde_type": "cps"}})
    run_evaluation(parse_recipe(content), RunFolder(tmp_path / "run", resume=False), "")
    assert {(how.num_steps, how.sde_type) for how in samplings_used} == {(4, "cps")}


@pytest.mark.parametrize("prepared", [setup_rl, setup_eval, setup_sft])
def test_an_unsupported_suite_is_rejected_before_training(prepared, tmp_path):
    content = mapping(save_tiny(tmp_path / "reader", "qwen2_5_vl"), scenario="answer", eval={"suite": "shapes"})
    content["rewards"] = [{"name": f"{REWARDS}spacious"}]
    if prepared is setup_sft:
        content |= {"rewards": [], "data": {**content["data"], "targets": {"answer": "solution"}}}
    with pytest.raises(ConfigError, match=r"eval\.suite=shapes needs images and text, but .* only: text\."):
        prepared(parse_recipe(content))


def test_the_items_are_the_same_before_and_after():
    """Seeds alone decide items and noise: a policy that did not change is measured the same."""
    first, second = FakePolicy(side=16), FakePolicy(side=16)
    tables = [evaluate_shapes(policy, CONFIG, WORLD, samplings(20)).table for policy in (first, second)]
    assert tables[0] == tables[1]
    asked = [
        [[(r.context.text, r.key) for r in requests] for _, requests in policy.calls] for policy in (first, second)
    ]
    assert asked[0] == asked[1]
    sizes = [len(requests) for _, requests in first.calls]
    assert max(sizes) == ITEMS_PER_BATCH * 3 and sum(sizes) == 2 * (40 + 6) * (3 + 1)
    assert len({r.key for _, requests in first.calls[:1] for r in requests}) == sizes[0]
    other = FakePolicy(side=16)
    evaluate_shapes(other, CONFIG.model_copy(update={"seed": 10}), WORLD, samplings(20))
    assert [r.context.text for r in other.calls[0][1]] != [text for text, _ in asked[0][0]]


def test_items_are_not_those_of_training():
    trained = {open_world("train", seed, WORLD).row(n)["prompt"] for seed in range(2) for n in range(200)}
    assert not trained & {row["prompt"] for split in ("test", "held_out") for row in items(split, 6)}


def test_progress_and_samples():
    told = []
    policy = FakePolicy(side=16)
    outcome = evaluate_shapes(policy, CONFIG, WORLD, samplings(20), lambda done, total: told.append((done, total)))
    assert told == [(6, 92), (12, 92), (44, 92), (76, 92), (84, 92), (92, 92)]
    rows = items("test", 40)
    hard = [row["prompt"] for row in rows if row["category"] in HARD_CATEGORIES]
    easy = [row["prompt"] for row in rows if row["category"] not in HARD_CATEGORIES]
    assert hard and easy and [sample.prompt for sample in outcome.samples] == hard + easy
    assert not any(sample.correct for sample in outcome.samples)


def test_images_too_small_for_the_grid_raise():
    with pytest.raises(ConfigError, match=r"8 pixels wide and cannot be divided into a grid of 2 x 2"):
        evaluate_shapes(FakePolicy(side=8), CONFIG, WORLD, samplings(20))


@pytest.mark.parametrize(
    ("text", "answer", "options", "right"),
    [
        ("<think> a</think><answer> B</answer>", "B", ["one", "two"], True),
        ("<answer>b</answer>", "B", ["one", "two"], True),
        ("<answer> two</answer>", "B", ["one", "two"], True),  # as the reward has it
        ("<answer> one</answer>", "B", ["one", "two"], False),
        ("<answer> Two </answer>", "two", [], True),
        ("<answer>B. two</answer>", "B", ["one", "two"], True),
        ("B", "B", ["one", "two"], False),
        ("<answer>B</answer><answer>B</answer>", "B", ["one", "two"], False),
        ("<answer></answer>", "B", ["one", "two"], False),
        ("<answer>A</answer>", "B", ["one", "two"], False),
        ("<answer>A</answer>", "two", [], False),
    ],
)
def test_correct_answers_are_those_of_the_reward(text, answer, options, right):
    assert is_right(text, answer, options) is right


def test_the_table_shows_both_columns_and_the_change():
    before, after = solved(lambda index, sample: False).table, solved().table
    console = Terminal(width=120, record=True, file=io.StringIO())
    console.print(suite_table({"before": before, "after": after}, "title"))
    text = console.export_text()
    for words in ("image: overall", "answer: count", "image: held-out", "+100.0", "0.0%", "100.0%"):
        assert words in text
    single = Terminal(width=120, record=True, file=io.StringIO())
    assert before["diversity"] == {} and after["diversity"].keys() == {"cells", "colours"}  # empty images, correct ones
    row = next(line for line in text.splitlines() if "open in the prompt: cells" in line)
    assert [part.strip() for part in row.split("│")[2:5]] == ["-", f"{after['diversity']['cells']:.1f}", ""]
    single.print(suite_table({"a[b]c": after}, "title"))
    assert "a[b]c" in single.export_text() and "change" not in single.export_text()


def test_an_evaluation_stops_at_its_time_limit_and_counts_its_items(monkeypatch):
    now = iter(range(0, 10_000, 30))
    monkeypatch.setattr("motet.evaluation.shapes_suite.time.monotonic", lambda: next(now))
    config = changed(held_out_size=64).model_copy(update={"size": 200, "minutes": 1.0})
    told = []
    policy = FakePolicy(side=16)
    table = evaluate_shapes(policy, config, WORLD, samplings(20), lambda done, total: told.append((done, total))).table
    assert table["items"] == {"test": 96, "held_out": 32} and told[-1] == (256, 256)
    assert [len(table["by_item"][skill]["overall"]) for skill in ("draw", "answer")] == [96, 96]
    whole = evaluate_shapes(policy, config.model_copy(update={"minutes": None}), WORLD, samplings(20)).table
    assert whole["by_item"]["draw"]["overall"][:96] == table["by_item"]["draw"]["overall"]


def test_the_change_has_a_paired_interval():
    before, after = solved(lambda index, sample: index % 2 == 0).table, solved().table
    console = Terminal(width=80, record=True, file=io.StringIO())
    console.print(suite_table({"before": before, "after": after}, "title"))
    assert "+50.0 \u00b1 16.2" in console.export_text()  # 40 differences of 0 and 1: 1.96 -> t(39) = 2.0227
