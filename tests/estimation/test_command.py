"""`motet estimate` as from the command line."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from motet.cli.app import app
from motet.config import load_recipe
from motet.config.stages import recipe_of
from motet.core.errors import ConfigError
from motet.estimation.estimate import Launch, estimate

RECIPE = "recipes/janus_pro_1b_step.yaml"
SMALL = "policy.path=Janus-Pro-1B"


@pytest.fixture
def run(monkeypatch, request):
    monkeypatch.chdir(request.config.rootpath)

    def run(*arguments):
        return CliRunner(env={"COLUMNS": "120"}).invoke(app, ["estimate", *arguments])

    return run


def test_it_prints_memory_time_and_scaling(run, tmp_path) -> None:
    file = tmp_path / "estimate.json"
    done = run(RECIPE, SMALL, "--gpus", "4", "--gpus", "64", "--gpu", "h200", "--json", str(file))
    assert done.exit_code == 0, done.output
    for text in ("AdamW moments", "sampler's copy", "not known", "Simulated", "64 GPU(s)", "fits into 139.7 GiB"):
        assert text in done.output
    found = json.loads(file.read_text())
    assert found["model"]["trainable"] == 1_652_656_128
    first, last = found["results"]
    assert first["memory"]["phases"]["learn"]["AdamW moments"] == 8 * 1_652_656_128
    assert last["simulated"]["idle"] > 0.5 > last["grown"]["idle"]


def test_a_cpu_decodes_one_image_of_384_pixels_at_a_time_and_a_gpu_14() -> None:
    recipe, held = load_recipe(RECIPE, [SMALL]), {}
    for gpu in ("cpu", "h100"):
        found = estimate(recipe, Launch(gpu=gpu))
        held[gpu] = found.results[0].memory.phases["rollout"]["image decoding"]
    one = 3 * 4 * 384**2 * 128  # bytes of three float32 feature maps of 128 channels
    assert held == {"cpu": one, "h100": 14 * one}


def test_a_reward_that_asks_the_reference_has_a_copy_of_it_without_a_kl() -> None:
    """CoRL's unified stage has beta 0, and token matching by the reference."""

    def reference(*overrides: str) -> float:
        recipe = recipe_of(Path("recipes/janus_pro_1b_corl.yaml"), [SMALL, *overrides], "unified")
        assert recipe.algorithm.beta == 0
        return estimate(recipe, Launch()).results[0].memory.phases["rollout"]["reference"]

    assert reference() == 4 * 1_652_656_128
    assert reference("rewards=[{name: exact_answer, acts: [answer]}, {name: jpeg_compressibility, acts: [image]}]") == 0


def test_what_does_not_fit_exits_with_1_and_says_what_would(run) -> None:
    options = (SMALL, "policy.gradient_checkpointing=false", "--gpus", "4", "--gpu", "rtx4090")
    done = run(RECIPE, *options)
    assert done.exit_code == 1
    assert "does not fit into 23.5 GiB" in done.output
    changes = done.output.split("It would with:")[1].split()
    assert changes
    assert run(RECIPE, *options, *changes).exit_code == 0


def test_a_stage_is_as_large_as_what_the_first_stage_starts_from(request, monkeypatch) -> None:
    monkeypatch.chdir(request.config.rootpath)
    plan = Path("recipes/janus_pro_1b_corl.yaml")
    recipe = recipe_of(plan, [], "mc")
    from motet.cli.estimate import _with_first_checkpoint

    assert recipe.policy.path.startswith("OUTPUT/")
    assert _with_first_checkpoint(recipe, plan, "mc").policy.path == "deepseek-community/Janus-Pro-1B"
    own = recipe_of(plan, ["policy.path=mine"], "mc")
    assert _with_first_checkpoint(own, plan, "mc").policy.path == "mine"


@pytest.mark.parametrize(
    ("launch", "problem"),
    [
        ({"gpu": "h2000"}, "--gpu is 'h2000'; must be one of: h100, h200"),
        ({"parallel": "zero"}, "--parallel is 'zero'; must be one of: replicas, fsdp"),
        ({"gpus": (0,)}, "--gpus is 0"),
    ],
)
def test_options_that_do_not_exist(launch, problem) -> None:
    with pytest.raises(ConfigError, match=problem):
        estimate(load_recipe(RECIPE, [SMALL]), Launch(**launch))


def test_a_measured_run_scales_the_phases(tmp_path) -> None:
    recipe, file = load_recipe(RECIPE, [SMALL]), tmp_path / "bench.json"
    plain = estimate(recipe, Launch()).results[0].time.seconds
    measured = {"rollout": 2 * plain["rollout"], "learn": 3 * plain["learn"]}
    bench = {"seconds": measured, "num_trainable": 1_652_656_128, "trajectories": 32, "peak_gb": 1.0}
    file.write_text(json.dumps(bench))
    found = estimate(recipe, Launch(calibrate=file)).results[0].time.seconds
    assert found == pytest.approx({**measured, "rewards": 0.0})
    file.write_text(json.dumps({"parts": {"steps": {"images": {}, "images_and_texts": bench}}}))  # gpu_check.sh's
    assert estimate(recipe, Launch(calibrate=file)).results[0].time.seconds == found
    file.write_text(json.dumps({**bench, "trajectories": 16}))
    with pytest.raises(ConfigError, match="16 trajectories per step; this recipe has 1,652,656,128 and 32"):
        estimate(recipe, Launch(calibrate=file))
    file.write_text("{}")
    with pytest.raises(ConfigError, match=r"lacks seconds\.rollout"):
        estimate(recipe, Launch(calibrate=file))
