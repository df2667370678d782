"""BERTScore against loops over tokens, on a tiny random BERT that was saved and loaded; SPICE as far as it goes."""

import math
import sys
import types

import pytest
import torch

from motet.core.errors import ConfigError, RewardError
from motet.rewards.captions import similarity
from motet.rewards.captions.similarity import BertScore, Spice, tuples
from motet.rewards.models import load_model
from tests.rewards.judges import save_bert

CPU = torch.device("cpu")
CANDIDATES = ["a red dog", "two cat on the bus", "a", "blue"]
REFERENCES = ["a dog", "a cat under the bus", "three red man runs", "a red dog"]


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    return str(save_bert(tmp_path_factory.mktemp("bert")))


@pytest.fixture(scope="module")
def scorer(bert):
    return BertScore.open(bert, CPU, key="encoder", batch_size=3)


def cosine(a, b):
    return sum(x * y for x, y in zip(a, b, strict=True)) / math.sqrt(sum(x * x for x in a) * sum(y * y for y in b))


def test_bertscore_equals_the_formula_token_by_token(scorer):
    def states(text):  # one text at a time: no padding; the first and the last token are special
        ids = scorer.tokenizer(text, return_tensors="pt")
        with torch.no_grad():
            return scorer.model(**ids).last_hidden_state[0, 1:-1].tolist()

    wanted = []
    for candidate, reference in zip(CANDIDATES, REFERENCES, strict=True):
        a, b = states(candidate), states(reference)
        p = sum(max(cosine(x, y) for y in b) for x in a) / len(a)
        r = sum(max(cosine(x, y) for x in a) for y in b) / len(b)
        wanted.append(max(0.0, 2 * p * r / (p + r)))
    assert scorer(CANDIDATES, REFERENCES) == pytest.approx(wanted, abs=1e-5)
    assert min(wanted) > 0.05 and max(wanted) < 0.999


def test_bertscore_of_equal_texts_and_of_nothing(scorer):
    assert scorer(["a red dog", ""], ["a red dog", "a red dog"]) == pytest.approx([1.0, 0.0], abs=1e-6)
    assert scorer([], []) == []


def test_the_encoder_is_frozen_and_loaded_once(bert, scorer):
    assert not scorer.model.training and not any(p.requires_grad for p in scorer.model.parameters())
    assert BertScore.open(bert, CPU, key="encoder", batch_size=1).model is scorer.model


def test_a_model_with_gaps_raises(bert, tmp_path):
    from safetensors.torch import load_file, save_file
    from transformers import AutoModel, BertModel

    model = BertModel.from_pretrained(bert)
    model.save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    weights.pop("encoder.layer.0.output.dense.weight")
    save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(ConfigError, match=r"encoder='.*' lacks weights: .*output.dense.weight"):
        load_model(AutoModel, str(tmp_path), CPU, key="encoder")
    with pytest.raises(ConfigError, match="encoder: There is no model at 'no/such/folder'"):
        load_model(AutoModel, "no/such/folder", CPU, key="encoder")


def test_tuples_are_pairwise():
    assert tuples(["a red dog", "a cat"], ["a red dog", "a dog"]) == [1.0, 0.0]


def install_spice(monkeypatch, folder, corenlp=True, score=None):
    """A package of pycocoevalcap's shape in place of the real one, which wants 400 MB of CoreNLP."""
    (folder / "lib").mkdir()
    if corenlp:
        (folder / "lib" / "stanford-corenlp-3.6.0-models.jar").touch()
    module = types.ModuleType("pycocoevalcap.spice.spice")
    module.__file__ = str(folder / "spice.py")
    module.Spice = type("Spice", (), {"compute_score": staticmethod(score)})
    parent = types.ModuleType("pycocoevalcap.spice")
    parent.spice = module
    for name, value in [
        ("pycocoevalcap", types.ModuleType("x")),
        ("pycocoevalcap.spice", parent),
        (module.__name__, module),
    ]:
        monkeypatch.setitem(sys.modules, name, value)


def test_spice_is_asked_once_for_all_pairs(monkeypatch, tmp_path):
    calls = []

    def score(references, candidates):
        calls.append((references, candidates))
        return 0.3, [{"All": {"f": 0.5}}, {"All": {"f": math.nan}}]

    install_spice(monkeypatch, tmp_path, score=score)
    monkeypatch.setattr(similarity.shutil, "which", lambda name: "/usr/bin/java")
    spice = Spice.open("cycle")
    assert spice(["a dog", ""], ["two dogs", "a cat"]) == [0.5, 0.0]
    assert calls == [({0: ["two dogs"], 1: ["a cat"]}, {0: ["a dog"], 1: [""]})]
    assert spice([], []) == []


def test_spice_says_what_is_missing(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "pycocoevalcap", None)
    with pytest.raises(ConfigError, match=r"pycocoevalcap.*motet\[captions\]"):
        Spice.open("cycle")
    monkeypatch.undo()
    install_spice(monkeypatch, tmp_path, corenlp=False)
    monkeypatch.setattr(similarity.shutil, "which", lambda name: None)
    with pytest.raises(ConfigError, match="Java"):
        Spice.open("cycle")
    monkeypatch.setattr(similarity.shutil, "which", lambda name: "/usr/bin/java")
    with pytest.raises(ConfigError, match="CoreNLP"):
        Spice.open("cycle")


def test_a_broken_java_is_one_line(monkeypatch, tmp_path):
    def score(references, candidates):
        raise OSError("java: no memory")

    install_spice(monkeypatch, tmp_path, score=score)
    monkeypatch.setattr(similarity.shutil, "which", lambda name: "/usr/bin/java")
    with pytest.raises(RewardError, match="SPICE failed: OSError: java: no memory"):
        Spice.open("cycle")(["a"], ["b"])
