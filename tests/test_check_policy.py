"""Every clause of `check_policy` catches a policy that breaks it, and a policy that breaks none passes."""

from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file

from motet.core.errors import ConfigError
from motet.core.protocols import Replay
from motet.core.trajectory import Sampling
from motet.numerics.logprobs import sample, scoring_logits
from motet.testing import FakePolicy, PolicyContractError, check_policy
from tests.tiny_policy import TinyPolicy


def test_a_policy_that_keeps_the_contract_passes():
    policy = TinyPolicy()
    before = {name: p.detach().clone() for name, p in policy.trainable().items()}
    report = check_policy(policy, load=TinyPolicy.load)
    assert set(report.clauses("holds")) == {result.clause for result in report.results}
    assert policy.version == 0 and all(p.equal(before[name]) for name, p in policy.trainable().items())
    assert all(p.requires_grad and p.grad is None for p in policy.trainable().values())


class WrongTemperatureAtReplay(TinyPolicy):
    def replayed(self, act, needs):
        return super().replayed(replace(act, sampling=Sampling()), needs)


class ShiftedByOne(TinyPolicy):
    def replayed(self, act, needs):
        logits = self.logits(act.encoding, act.ids)[1:]
        return Replay(torch.log_softmax(logits, dim=-1).gather(1, act.ids[:, None])[:, 0])


class ReplayDependsOnTheBatch(TinyPolicy):
    def replay(self, acts, needs=()):
        replays = super().replay(acts, needs)
        return [replace(one, log_probs=one.log_probs - 1e-3 * (len(acts) - 1)) for one in replays]


class ReplaysInOrderOfKinds(TinyPolicy):
    def replay(self, acts, needs=()):
        return super().replay(sorted(acts, key=lambda act: act.kind), needs)


class NoiseByPlaceInTheBatch(TinyPolicy):
    def noise(self, keys, sampling):
        return super().noise([(n,) for n in range(len(keys))], sampling)


class NoiseOfTheGlobalGenerator(TinyPolicy):
    def noise(self, keys, sampling):
        return torch.rand(len(keys), 16, dtype=torch.float64)


class NoNoise(TinyPolicy):
    def noise(self, keys, sampling):
        return super().noise([(0,)] * len(keys), sampling)


class SamplesHotterThanItScores(TinyPolicy):
    def choose(self, logits, sampling, uniform):
        return sample(scoring_logits(logits, temperature=3.0 * sampling.scoring_temperature), uniform)


class IgnoresTemperature(TinyPolicy):
    def act(self, requests, sampling):
        return super().act(requests, replace(sampling, temperature=1.0))


class IgnoresTopK(TinyPolicy):
    def act(self, requests, sampling):
        return super().act(requests, replace(sampling, top_k=None))


class GreedyByChance(TinyPolicy):
    def choose(self, logits, sampling, uniform):
        return sample(scoring_logits(logits, **sampling.scoring), uniform)


class AnswersOutOfOrder(TinyPolicy):
    def act(self, requests, sampling):
        return super().act(requests, sampling)[::-1]


class LosesARequest(TinyPolicy):
    def act(self, requests, sampling):
        return super().act(requests, sampling)[:-1] if len(requests) > 1 else super().act(requests, sampling)


class ClaimsDenoising(TinyPolicy):
    kinds = frozenset({"text", "denoising"})

    def act(self, requests, sampling):
        return super().act([replace(r, kind="text") for r in requests], sampling)


class FailsOnNothing(TinyPolicy):
    def act(self, requests, sampling):
        assert requests[0].kind in self.kinds
        return super().act(requests, sampling)


class ExtrasUnasked(TinyPolicy):
    def replayed(self, act, needs):
        return super().replayed(act, ("entropy",))


class TargetsWithLogProbs(TinyPolicy):
    def target(self, request, target):
        act = super().target(request, target)
        return replace(act, log_probs=torch.zeros(act.num_actions))


class TargetOfAnother(TinyPolicy):
    def encode_targets(self, requests, targets):
        return super().encode_targets(requests, targets[::-1])


class PromptStaysInTheUnconditionalBranch(TinyPolicy):
    def encode(self, context, drop_prompt=False):
        return super().encode(context)


class FreeOfCharge(TinyPolicy):
    def num_tokens(self, act):
        return 0


class PerformsAnything(TinyPolicy):
    def check_kinds(self, requests):
        pass


class RejectsWithAnyError(TinyPolicy):
    def check_kinds(self, requests):
        for request in requests:
            if request.kind not in self.kinds:
                raise KeyError(request.kind)
        super().check_kinds(requests)


class PerformsImpossibleWindows(FakePolicy):
    load = None

    def __init__(self):
        super().__init__(kinds=("denoising",))


class GradientIntoWhatIsFrozen(TinyPolicy):
    def __init__(self):
        super().__init__()
        self.frozen.requires_grad_(True)


class NoGradient(TinyPolicy):
    def logits(self, encoding, ids):
        bigrams = self.bigrams[torch.cat([torch.tensor([27]), ids])]
        return bigrams + self.prompts.detach()[encoding.ids].mean(dim=0) + self.frozen


class CoarseWeights(TinyPolicy):
    def __init__(self):
        super().__init__()
        self.prompts.data = self.prompts.data.bfloat16()


class HalfAGradient(TinyPolicy):
    def logits(self, encoding, ids):
        logits = super().logits(encoding, ids)
        return 2 * logits.detach() - logits


class CountsItsRollouts(TinyPolicy):
    def act(self, requests, sampling):
        self.version += 1
        return super().act(requests, sampling)


class SamplesWithStaleWeights(TinyPolicy):
    stale = None

    def perform(self, request, sampling, noise):
        if self.stale is None:
            self.stale = self.bigrams.detach().clone()
        current, self.bigrams.data = self.bigrams.data, self.stale
        act = super().perform(request, sampling, noise)
        self.bigrams.data = current
        return act


class ReferenceIsThePresent(TinyPolicy):
    @contextmanager
    def reference(self):
        with torch.no_grad():
            yield


class ReferenceStaysAfterAnError(TinyPolicy):
    @contextmanager
    def reference(self):
        now = {name: p.data for name, p in self.trainable().items()}
        for name, p in self.trainable().items():
            p.data = self.start[name]
        with torch.no_grad():
            yield
        for name, p in self.trainable().items():
            p.data = now[name]


class SavesHalf(TinyPolicy):
    def save(self, folder):
        folder.mkdir(parents=True, exist_ok=True)
        save_file({"bigrams": self.bigrams.detach().clone()}, folder / "tiny.safetensors")


class LoadsAnotherNoise(TinyPolicy):
    seed = 0

    @classmethod
    def load(cls, folder):
        policy = super().load(folder)
        policy.seed = 1
        return policy

    def noise(self, keys, sampling):
        return super().noise([(self.seed, *key) for key in keys], sampling)


BROKEN = {
    "acts are complete": (AnswersOutOfOrder, LosesARequest, ClaimsDenoising),
    "noise follows the request's key": (NoiseByPlaceInTheBatch, NoiseOfTheGlobalGenerator, NoNoise),
    "temperature 0 is deterministic": (GreedyByChance,),
    "settings change the distribution": (IgnoresTemperature, IgnoresTopK),
    "sampled from what is scored": (SamplesHotterThanItScores,),
    "nothing in, nothing out": (FailsOnNothing,),
    "sampled log-probs are replayed": (WrongTemperatureAtReplay, ShiftedByOne, ReplayDependsOnTheBatch),
    "acts of all kinds replay together": (ReplaysInOrderOfKinds,),
    "extras are what was asked for": (ExtrasUnasked,),
    "targets replay": (TargetsWithLogProbs, TargetOfAnother),
    "dropped prompts do not count": (PromptStaysInTheUnconditionalBranch,),
    "num_tokens is positive": (FreeOfCharge,),
    "other kinds are rejected": (PerformsAnything, RejectsWithAnyError),
    "impossible settings are rejected": (PerformsImpossibleWindows,),
    "trainable is what trains": (GradientIntoWhatIsFrozen, NoGradient, CoarseWeights),
    "the gradient is that of the log-probs": (HalfAGradient,),
    "version counts updates": (CountsItsRollouts,),
    "sampling follows updates": (SamplesWithStaleWeights,),
    "the reference is where it was frozen": (ReferenceIsThePresent, ReferenceStaysAfterAnError),
    "saved is loaded": (SavesHalf, LoadsAnotherNoise),
}


@pytest.mark.parametrize(("clause", "broken"), [(c, b) for c, classes in BROKEN.items() for b in classes])
def test_a_broken_policy_is_caught_by_its_clause(clause, broken):
    others = dict.fromkeys(set(BROKEN) - {clause}, "the test of another clause")
    with pytest.raises(PolicyContractError) as caught:
        check_policy(broken(), load=broken.load, waive=others)
    report = caught.value.report
    assert report.clauses("violated") == (clause,)
    (result,) = [result for result in report.results if result.clause == clause]
    assert clause in str(caught.value) and str(result.violations[0]) in str(caught.value)
    assert all(violation.fix for violation in report.violations)


def test_every_clause_was_seen_to_fail():
    report = check_policy(TinyPolicy(), load=TinyPolicy.load)
    assert {result.clause for result in report.results} == set(BROKEN)


def test_what_does_not_apply_is_not_checked():
    policy = TinyPolicy()
    report = check_policy(policy, waive={"num_tokens is positive": "counted elsewhere"})
    assert report.clauses("not checked") == ("num_tokens is positive", "saved is loaded")
    assert "waived: counted elsewhere" in str(report)
    with pytest.raises(ConfigError, match="not clauses"):
        check_policy(policy, waive={"punctuality": "never"})


@pytest.mark.parametrize(
    "settings",
    [
        {"temperature": -1.0},
        {"top_k": 0},
        {"top_p": 0.0},
        {"top_p": 1.5},
        {"min_p": 2.0},
        {"max_tokens": 0},
        {"num_steps": 0},
        {"noise_level": -1.0},
        {"sde_type": "cps", "noise_level": 1.5},
    ],
)
def test_impossible_settings_raise(settings):
    with pytest.raises(ConfigError, match=next(reversed(settings))):
        Sampling(**settings)
