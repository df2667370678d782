"""An evaluation whose items several processes share has the table of one process."""

from motet.config import parse_recipe
from motet.distributed.replicas import Replicas
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
