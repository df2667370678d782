"""An evaluation whose items several processes share has the table of one process."""

from dataclasses import replace

from motet.config import parse_recipe
from motet.config.choice import Choice
from motet.distributed.replicas import Replicas
from motet.evaluation.image_benchmarks.base import BenchmarkOptions, ImageBenchmark
from motet.evaluation.image_benchmarks.prompts import Prompt
from motet.evaluation.image_benchmarks.scores import ImageScore
from motet.evaluation.rewards_suite import evaluate_tracks
from motet.evaluation.shapes_suite import evaluate_shapes
from motet.training.setup import setup_rl
from motet.training.suites import FunctionSuite, SuiteSettings, evaluate
from tests.distributed.threads import in_threads
from tests.evaluation.test_shapes_suite import CONFIG, WORLD, Known, samplings
from tests.runs import mapping


def test_the_shapes_suite(monkeypatch):
    monkeypatch.setattr("motet.evaluation.shapes_suite.ITEMS_PER_BATCH", 2)

    def work(processes):
        told = []
        policy = Known(lambda n, sample: (n + (sample or 0)) % 3 == 0, lambda row, n, sample: "<answer> 2</answer>")
        result = evaluate_shapes(policy, CONFIG, WORLD, samplings(200), lambda *done: told.append(done), processes)
        return result.table, [(s.prompt, s.correct, s.image.tobytes()) for s in result.samples], told[-1]

    (alone,), shared = in_threads(1, work), in_threads(3, work)
    assert shared == [alone] * 3


def test_the_rewards_suite(tiny_checkpoint):
    recipe = parse_recipe(mapping(tiny_checkpoint, eval={"suite": "rewards", "size": 5, "samples_per_item": 2}))

    def work(processes):
        result = evaluate_tracks(setup_rl(recipe, Replicas(processes)))
        return result.table, [(s.prompt, s.correct, s.image.tobytes()) for s in result.samples]

    (alone,), shared = in_threads(1, work), in_threads(3, work)
    assert shared == [alone] * 3


class Lengths(ImageBenchmark):
    """Scores an image by its prompt's number; no models, no files."""

    name = "lengths"
    title = "Lengths"
    Settings = BenchmarkOptions

    def read(self, options):
        return [Prompt(str(n), f"{n} circles", {}, f"Line {n}") for n in range(8)]

    def open(self, options, policy):
        return lambda prompts, images: [
            [ImageScore(None, reason="no reply") if p.name == "4" else ImageScore(int(p.name) / 7, {"all": [1.0]})] * 2
            for p in prompts
        ]

    def weights(self, prompts):
        return {"all": 1.0}


def test_benchmarks_of_image_generation(tiny_checkpoint, monkeypatch, recwarn):
    monkeypatch.setattr("motet.evaluation.image_benchmarks.base.PROMPTS_PER_BATCH", 2)
    suite = {"name": "lengths", "prompts": "x"}
    recipe = parse_recipe(mapping(tiny_checkpoint, eval={"suite": "rewards", "size": 7, "samples_per_item": 2}))
    recipe = recipe.model_copy(update={"eval": recipe.eval.model_copy(update={"suite": Choice.model_validate(suite)})})

    def work(processes):
        setup = replace(setup_rl(parse_recipe(mapping(tiny_checkpoint)), Replicas(processes)), recipe=recipe)
        result = Lengths()(setup.policy, SuiteSettings(setup))
        again = Lengths()(setup.policy, SuiteSettings(setup, same_items_as=result.table))
        assert again.table == result.table and len(result.table["prompts"]) == 7
        assert result.table["prompts"] == sorted(result.table["prompts"])
        return result.table, result.metrics, [(image.tobytes(), text, right) for image, text, right in result.samples]

    (alone,), shared = in_threads(1, work), in_threads(3, work)
    assert shared == [alone] * 3 and len(alone[2]) == 7


def test_a_function_is_called_in_the_main_process_alone(tiny_checkpoint):
    recipe = parse_recipe(mapping(tiny_checkpoint))
    calls = []

    def counted(policy, settings):
        settings.progress(1, 1)
        calls.append(settings.setup.processes.rank)
        return {"score": 0.5}

    def work(processes):
        setup = setup_rl(recipe, Replicas(processes))
        settings = SuiteSettings(setup, progress=lambda done, total: processes.all_gather(done))
        return evaluate(FunctionSuite("counted", counted), setup.policy, settings).metrics

    assert in_threads(2, work) == [{"score": 0.5}] * 2
    assert calls == [0]
