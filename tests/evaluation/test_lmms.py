"""The model `motet` of lmms-eval on stand-ins of its classes; with lmms-eval itself where it is installed."""

import importlib
import json
import math
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch
from PIL import Image

from motet.core.conversation import user
from motet.core.errors import ConfigError, DataError
from motet.core.protocols import Request
from motet.core.sampling import Sampling
from motet.evaluation.lmms_eval.requests import conversation_of, sampling_of, stops_of
from motet.evaluation.lmms_eval.suite import TASKS, LmmsSuite, metrics_of
from motet.policies.loading import load_policy
from motet.testing import FakePolicy
from motet.training.suites import find_suite

ROOT = Path(__file__).parent.parent.parent
RED, BLUE = (Image.new("RGB", (16, 16), colour) for colour in ("red", "blue"))


@pytest.fixture
def model_class(monkeypatch):
    """`MotetModel` over a stand-in of lmms-eval's base class."""

    class lmms:
        def __init__(self):
            self.task_dict = {}

    for name in ("lmms_eval", "lmms_eval.api", "lmms_eval.api.model", "lmms_eval.api.instance"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    sys.modules["lmms_eval.api.model"].lmms = lmms
    sys.modules["lmms_eval.api.instance"].GenerationResult = lambda text: SimpleNamespace(text=text)
    monkeypatch.delitem(sys.modules, "motet.evaluation.lmms_eval.model", raising=False)
    yield importlib.import_module("motet.evaluation.lmms_eval.model").MotetModel
    sys.modules.pop("motet.evaluation.lmms_eval.model", None)


def with_docs(model, docs):
    model.task_dict = {"task": {"test": docs}}
    return model


def asked(*documents, settings=None):
    """An Instance of `generate_until` for each document."""
    return [
        SimpleNamespace(args=(doc["text"], dict(settings or {}), lambda doc: [doc["image"]], n, "task", "test"))
        for n, doc in enumerate(documents)
    ]


DOCS = [{"text": f"question {n}?", "image": (RED, BLUE)[n % 2]} for n in range(5)]


def test_each_request_is_answered_about_its_own_image_in_order(model_class):
    policy, seen = FakePolicy(writes=lambda request: request.context.text.upper()), []
    model = model_class(policy=policy, batch_size="2", progress=lambda done, total: seen.append((done, total)))
    texts = with_docs(model, DOCS).generate_until(asked(*DOCS))
    assert texts == [f"QUESTION {n}?" for n in range(5)]
    assert [len(requests) for _, requests in policy.calls] == [2, 2, 1] and seen == [(2, 5), (4, 5), (5, 5)]
    images = [request.context.images[0].getpixel((0, 0)) for _, requests in policy.calls for request in requests]
    assert images == [image["image"].getpixel((0, 0)) for image in DOCS]


def test_a_text_ends_before_its_stop_string(model_class):
    model = with_docs(model_class(policy=FakePolicy(writes=["yes\n\nno"])), DOCS)
    assert model.generate_until(asked(DOCS[0], settings={"until": ["\n\n"]})) == ["yes"]
    assert stops_of({"until": "x"}) == ["x"] and stops_of({}) == []


def test_loglikelihood_is_the_mean_loss_of_the_tokens_and_whether_greedy_gives_them(model_class, tiny_checkpoint):
    policy = load_policy(tiny_checkpoint)
    model = with_docs(model_class(policy=policy, batch_size=2), DOCS)
    context = user(RED, "question 0?")
    best = policy.generate_text([context], temperature=0.0, max_tokens=3)[0]
    targets = [best.text, "two red circles", "two"]
    requests = [
        SimpleNamespace(args=("question 0?", t, lambda doc: [doc["image"]], 0, "task", "test")) for t in targets
    ]
    results = [result.text for result in model.loglikelihood(requests)]
    for (loss, _), text in zip(results, targets, strict=True):
        ids = torch.tensor(policy.encoder.text_ids(text))
        (act,) = policy.encode_targets([Request("text", "text", context, (0,))], [text])
        assert act.ids.tolist()[:-1] == ids.tolist()
        by_hand = policy.log_probs([act])[0][: len(ids)]
        assert loss == pytest.approx(-float(by_hand.sum()) / len(ids), abs=1e-5)
    assert [same for _, same in results] == [policy.encoder.text_ids(best.text) == best.ids.tolist(), False, False]


def test_images_take_their_places_in_the_text():
    parts = conversation_of("first <image> then <image>", [RED, BLUE]).messages[0].parts
    assert [getattr(part, "text", None) for part in parts] == ["first", None, "then", None]
    assert [part.image for part in parts[1::2]] == [RED, BLUE]
    leading = conversation_of("look", [[RED], BLUE])
    assert len(leading.images) == 2 and leading.messages[0].parts[-1].text == "look"
    assert conversation_of("<image 1> and <image>", [RED, BLUE]).text == "<image 1> and "
    assert conversation_of("no image", None).images == []
    with pytest.raises(DataError, match=r"a str .*see images only"):
        conversation_of("look", ["video.mp4"])


def test_sampling_is_greedy_unless_the_task_samples():
    assert sampling_of("t", {"temperature": 0, "top_p": 0, "num_beams": 1, "max_new_tokens": 900}, 64) == Sampling(
        temperature=0.0, max_tokens=64
    )
    assert sampling_of("t", {"temperature": 0.7, "do_sample": False}, 64).temperature == 0
    warm = sampling_of("t", {"temperature": 0.7, "top_p": 0.9, "top_k": 0, "max_new_tokens": 16}, 64)
    assert warm == Sampling(temperature=0.7, top_p=0.9, max_tokens=16)
    with pytest.raises(ConfigError, match="The task 't' sets num_beams=4"):
        sampling_of("t", {"num_beams": 4}, 64)


def test_what_the_model_does_not_support_is_told(model_class):
    with pytest.raises(ConfigError, match="no checkpoint"):
        model_class()
    with pytest.raises(ConfigError, match="generates no text"):
        model_class(policy=FakePolicy(kinds=("image",)))
    with pytest.raises(ConfigError, match="several rounds"):
        model_class(policy=FakePolicy()).generate_until_multi_round([])


def test_the_suite_says_what_is_missing(monkeypatch):
    suite = find_suite("lmms:mmstar")
    assert isinstance(suite, LmmsSuite) and suite.task == "mmstar"
    with pytest.raises(ConfigError, match="no task"):
        find_suite("lmms").check(FakePolicy())
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'motet\[lmms\]'"):
        suite.check(FakePolicy())
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    with pytest.raises(ConfigError, match="generates only: image"):
        suite.check(FakePolicy(kinds=("image",)))


def test_metrics_are_those_with_a_value():
    results = {"a": {"alias": "a", "acc,none": 0.5, "acc_stderr,none": 0.1, "f1,strict": 1, "gpt,none": "N/A"}}
    assert metrics_of(results) == {"a": {"acc": 0.5, "f1,strict": 1.0}}
    with pytest.raises(ConfigError, match="no metric for a"):
        metrics_of({"a": {"gpt,none": []}})


def test_the_shipped_tasks_name_what_exists():
    import yaml

    source = (TASKS / "rows_task.py").read_text(encoding="utf-8")
    yaml.SafeLoader.add_constructor("!function", lambda loader, node: loader.construct_scalar(node))
    for path in sorted(TASKS.glob("*.yaml")):
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
        functions = [value for value in config.values() if isinstance(value, str) and value.startswith("rows_task.")]
        assert config["task"] == f"motet_{path.stem}" and len(functions) >= 3
        for function in functions:
            name = function.removeprefix("rows_task.")
            assert f"def {name}(" in source or f"class {name}(" in source


@pytest.mark.slow
@pytest.mark.skipif(find_spec("lmms_eval") is None, reason="needs motet[lmms]")
def test_the_harness_and_motet_eval_give_one_score(tmp_path):
    """`lmms_eval --model motet`, `motet eval --suite lmms:`, and motet's own suite of rewards on the same rows."""
    checkpoint, task, size = "checkpoints/shapes_janus", "motet_shapes_choice", 24
    own = [f"{sys.executable} -m motet eval {checkpoint} --suite lmms:{task} --option limit={size}"]
    own[0] += f" --option max_new_tokens=64 --json {tmp_path / 'own.json'}"
    arguments = f"pretrained={checkpoint},max_new_tokens=64"
    harness = f"{sys.executable} -m lmms_eval --model motet --model_args {arguments} --include_path {TASKS}"
    harness += f" --tasks {task} --limit {size} --output_path {tmp_path / 'harness'}"
    for command in (*own, harness):
        done = subprocess.run(command.split(), capture_output=True, text=True, cwd=ROOT, timeout=600)
        assert done.returncode == 0, done.stderr[-2000:]
    (found,) = (tmp_path / "harness").rglob("*results.json")
    score = json.loads(found.read_text())["results"][task]["acc,none"]
    assert not math.isnan(score) and f'"acc": {score}' in (tmp_path / "own.json").read_text()
