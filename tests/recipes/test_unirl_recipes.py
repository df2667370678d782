"""The recipes of UniRL-Zero and PromptRL: their settings are those of the papers, and they run with tiny models."""

import json
from pathlib import Path

import pytest
from PIL import Image

from motet.config import Recipe, load_recipe
from motet.config.choice import Choice
from motet.data import open_rows
from motet.rewards import resolve_all
from motet.scenarios import resolve_scenario
from motet.training.advantages import check_reward_assignment
from tests.policies import tiny_pipelines
from tests.policies.unified import save as save_unified
from tests.policies.vlms import save_tiny
from tests.rewards.image.test_gen_eval import save_detector
from tests.rewards.judges import chat_server, save_clip
from tests.runs import motet_command

RECIPES = Path(__file__).parent.parent.parent / "recipes"
NAMES = ("unirl_zero_t2i", "unirl_zero_cot", "unirl_zero_edit_cycle", "promptrl_flux_geneval", "promptrl_klein_edit")
GENEVAL = {"tag": "colors", "include": [{"class": "dog", "count": 1, "color": "red"}], "prompt": "a photo of a red dog"}
EDIT = {"image": "source.png", "prompt": "make it blue", "reverse_prompt": "make it red", "caption": "a red object",
        "target_caption": "a blue object"}  # fmt: skip


def rows(folder: Path, row: dict) -> Path:
    Image.new("RGB", (32, 32), "red").save(folder / "source.png")
    path = folder / "rows.jsonl"
    path.write_text(f"{json.dumps(row)}\n" * 3)
    return path


def row_of(name: str) -> dict:
    return EDIT if "edit" in name else GENEVAL


@pytest.mark.parametrize("name", NAMES)
def test_every_act_has_a_reward_and_every_column_exists(name, tmp_path):
    recipe = load_recipe(RECIPES / f"{name}.yaml", [f"data.source={rows(tmp_path, row_of(name))}", "data.options={}"])
    scenario = resolve_scenario(recipe.scenario.name).with_options(recipe.scenario.options)
    opened = open_rows(recipe.data, scenario.columns)
    check_reward_assignment(scenario, resolve_all(recipe.rewards, scenario.acts, opened.columns))
    task = opened.task(0)
    requests = next(scenario(task))
    assert requests.conversation.text  # the instruction contains the row's text


def beta(recipe: Recipe, kind: str) -> float:
    own = recipe.algorithm.per_kind.get(kind)
    return recipe.algorithm.beta if own is None or own.beta is None else own.beta


def test_settings_of_the_papers():
    read = {name: load_recipe(RECIPES / f"{name}.yaml") for name in NAMES}
    for name, recipe in read.items():
        assert recipe.algorithm.num_generations == 8 and recipe.run.prompts_per_step == 8, name
        assert recipe.algorithm.per_kind["denoising"].loss == Choice.of("grpo", epsilon=1e-4), name
        assert recipe.algorithm.advantage_assignment == "joint", name
        assert recipe.sampling.denoising.noise_level == (0.7 if "unirl" in name else 0.8), name
    t2i, cot, edit, flux, klein = read.values()
    assert [r.sampling.denoising.num_steps for r in read.values()] == [10, 10, 10, 20, 8]
    assert [beta(r, "denoising") for r in read.values()] == [4e-3, 4e-3, 3e-4, 4e-3, 1e-2]
    assert [beta(r, "text") for r in (cot, flux, klein)] == [1e-2] * 3
    assert (
        cot.algorithm.loss == Choice.of("grpo", epsilon=None)
        and cot.sampling.text.max_tokens == 512
        and cot.sampling.text.top_k is None
    )
    assert t2i.optimizer.learning_rate == edit.optimizer.learning_rate == 1e-5
    assert (cot.optimizer.learning_rate, cot.optimizer.param_group_lrs["language_model"]) == (3e-6, 5e-7)
    assert flux.optimizer.learning_rate == 1e-6 and klein.optimizer.learning_rate == 3e-7
    assert [r.weight for r in edit.rewards] == [4.0, 1.0] and edit.sampling.denoising.guidance_scale == 3.0
    assert flux.scenario.options["keep"] == klein.scenario.options["keep"] == 2
    assert klein.sampling.denoising.sde_window is not None and klein.sampling.denoising.sde_window.size == 2
    assert t2i.sampling.denoising.guidance == klein.sampling.denoising.guidance == "guided"


OTHERS = {
    "promptrl_flux_geneval": [
        "policy.diffusion.path=black-forest-labs/FLUX.2-klein-base-4B",
        "policy.diffusion.embedded_guidance=null",
        "sampling.denoising.sde_window.size=8",
        "sampling.denoising.sde_window.schedule=fixed",
        "sampling.denoising.guidance=guided",
        "sampling.denoising.guidance_scale=4",
    ],
    "promptrl_klein_edit": [
        "policy.diffusion.path=black-forest-labs/FLUX.1-Kontext-dev",
        "policy.diffusion.embedded_guidance=2.5",
        "sampling.denoising.sde_window.size=4",
    ],
    "unirl_zero_t2i": ["rewards=[{name: jpeg_compressibility}]"],
}
ADAPTED = {
    "promptrl_flux_geneval": ["policy.lora.rank=32", "policy.train=[]"],
    "promptrl_klein_edit": ["policy.lora.rank=32", "policy.train=[]"],
    "unirl_zero_cot": [
        "policy.lora.rank=32",
        "policy.train=[queries, connector, transformer]",
        "optimizer.param_group_lrs={language_model: 5.0e-6}",
    ],
}
"""Adapters on the language model."""


@pytest.mark.parametrize(("name", "changes"), [*OTHERS.items(), *ADAPTED.items()])
def test_overrides_in_descriptions_are_valid(name, changes):
    recipe = load_recipe(RECIPES / f"{name}.yaml", changes)
    assert all(change in " ".join(recipe.description.split()) for change in changes)


def test_pretraining_runs_on_a_tiny_model(tmp_path, capsys):
    (tmp_path / "draw.jsonl").write_text(f"{json.dumps({'image': 'source.png', 'prompt': 'a object'})}\n" * 4)
    edits = rows(tmp_path, {"image": "source.png", "instruction": "make it blue", "edited": "source.png"})
    changes = ["run.steps=1", "policy.device=cpu", "policy.dtype=float32", "policy.gradient_checkpointing=false",
               f"policy.path={save_unified(tmp_path / 'unified')}", "policy.max_pixels=256",
               f"tracks.draw.data.source={tmp_path / 'draw.jsonl'}", f"tracks.edit.data.source={edits}",
               "tracks.draw.prompts_per_step=2", "tracks.edit.prompts_per_step=2"]  # fmt: skip
    out = tmp_path / "out"
    answer = motet_command(capsys, "sft", RECIPES / "unirl_zero_pretrain.yaml", *changes, "--output", out)
    assert answer.code == 0, answer.err
    (line,) = [json.loads(text) for text in (out / "metrics.jsonl").read_text().splitlines()]
    assert 0 < line["denoising/nll"] < 100


SMALL = ("run.steps=1", "run.prompts_per_step=1", "run.log_samples_every=1", "algorithm.num_generations=2",
         "policy.device=cpu", "policy.dtype=float32", "policy.gradient_checkpointing=false",
         "sampling.text.max_tokens=6", "sampling.denoising.num_steps=3", "data.options={}")  # fmt: skip


@pytest.mark.parametrize(("name", "adapted"), [*((name, []) for name in NAMES), *list(ADAPTED.items())[1:]])
def test_recipes_run_on_tiny_models(name, adapted, tmp_path, capsys):
    changes = [*adapted, *SMALL, f"data.source={rows(tmp_path, row_of(name))}"]
    if "promptrl" in name:
        height, width = tiny_pipelines.SIZES["flux"]
        pipeline = tiny_pipelines.write("klein" if "klein" in name else "flux", tmp_path / "pipeline")
        reader = save_tiny(tmp_path / "reader", "qwen2_5_vl", max_positions=1024)
        changes += [f"policy.path={reader}", f"policy.diffusion.path={pipeline}",
                    f"policy.diffusion.size=[{height}, {width}]", "scenario.keep=1",
                    "policy.diffusion.lora.rank=2"]  # fmt: skip
        if "flux" in name:
            changes.append("policy.diffusion.embedded_guidance=null")
    else:
        changes.append(f"policy.path={save_unified(tmp_path / 'unified')}")
    if "edit" in name:
        changes.append("policy.max_pixels=256")
    content = load_recipe(RECIPES / f"{name}.yaml")
    for place, reward in enumerate(content.rewards):
        if reward.name == "gen_eval":
            changes += [f"rewards.{place}.options.detector={save_detector(tmp_path / 'detector')}",
                        f"rewards.{place}.options.clip={save_clip(tmp_path / 'clip')}"]  # fmt: skip
        elif reward.name.startswith("clip"):
            changes.append(f"rewards.{place}.options.path={save_clip(tmp_path / 'clip')}")
    with chat_server() as server:
        server.reply = lambda body: f"Final Score: {len(server.seen) % 5 + 1}"
        changes += [f"rewards.{place}.options.endpoint.base_url={server.url}"
                    for place, reward in enumerate(content.rewards) if reward.name == "judged"]  # fmt: skip
        out = tmp_path / "out"
        answer = motet_command(capsys, "train", RECIPES / f"{name}.yaml", *changes, "--output", out)
    assert answer.code == 0, answer.err
    (line,) = [json.loads(text) for text in (out / "metrics.jsonl").read_text().splitlines()]
    assert line["denoising/loss"] is not None and line["failures"] == 0
    assert ("text/loss" in line) == (name not in ("unirl_zero_t2i", "unirl_zero_edit_cycle"))
    assert (out / "checkpoints" / "step_000001").is_dir()
