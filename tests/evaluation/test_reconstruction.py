"""Reconstruction of target images by the image tokenizer, and the warning before training."""

import json

import numpy as np
import pytest
from PIL import Image, ImageDraw

from motet.config import parse_recipe
from motet.evaluation.reconstruction import POOR_LOSS, images_to_generate, reconstruct, reconstruct_sample
from motet.experiments.single_run import run_sft, run_training
from motet.policies import load_policy
from motet.report.run_dir import RunFolder
from motet.rewards.image.psnr import psnr
from motet.shapes.world import ShapesRows
from motet.training.setup import setup_rl, setup_sft
from tests.policies.unified import save
from tests.runs import mapping

SHIPPED = "checkpoints/shapes_janus"
SFT = {"rewards": None, "algorithm": None, "sampling": {"text": {"max_tokens": 60}}}
TARGETS = {"image": "target", "answer": "solution"}


@pytest.fixture(scope="module")
def shipped():
    return load_policy(SHIPPED)


def words():
    """Black words on white: 20 dB, and unreadable afterwards."""
    for number in range(8):
        image = Image.new("RGB", (64, 64), "white")
        ImageDraw.Draw(image).text((6, 24), f"word{number}", fill="black")
        yield image


def photographs():
    """Gradients with noise: nothing like the shapes world."""
    random = np.random.default_rng(0)
    for _ in range(8):
        ramp = np.linspace(0, 1, 48)[:, None, None] * random.uniform(60, 255, 3) + random.normal(0, 20, (48, 48, 3))
        yield Image.fromarray(ramp.clip(0, 255).astype(np.uint8))


def test_images_of_the_world_are_reconstructed(shipped):
    for split in ("test", "held_out"):
        rows = ShapesRows(split, 7, {})
        found = reconstruct(shipped, [rows.row(i)["target"] for i in range(16)])
        assert found.loss < 0.01 and found.psnr > 35 and not found.is_poor


@pytest.mark.parametrize("images", [words, photographs])
def test_other_images_are_not_reconstructed(shipped, images):
    found = reconstruct(shipped, list(images()))
    assert (
        found.loss > 2 * POOR_LOSS and found.is_poor and found.warning.startswith("Warning: the frozen image tokenizer")
    )
    assert found.psnr == pytest.approx(np.mean([psnr(*pair) for pair in found.pairs]))
    assert all(one.size == other.size == (32, 32) and one.mode == "RGB" for one, other in found.pairs)


def test_loss_is_relative_to_the_variance_within_images(shipped, monkeypatch):
    """A reconstruction in the mean colour of the image loses everything; single-colour images lose nothing."""
    faint = np.full((32, 32, 3), 128, np.uint8)
    faint[:16], faint[16:] = 118, 138
    flat = Image.new("RGB", (32, 32), (128, 128, 128))
    monkeypatch.setattr(shipped, "reconstruct", lambda images: [(p, flat) for p in images])
    found = reconstruct(shipped, [Image.fromarray(faint)])
    assert found.loss == pytest.approx(1.0) and found.psnr > 25
    assert reconstruct(shipped, [flat]).loss == 0
    assert not reconstruct(shipped, [Image.new("RGB", (32, 32), (129, 129, 129))]).is_poor  # off by one level of 255
    assert reconstruct(shipped, []) is None


def test_pairs_contain_the_input_of_the_tokenizer(shipped):
    """Cropped to the central square, like targets."""
    wide = Image.new("RGB", (96, 32), "red")
    wide.paste("blue", (32, 0, 64, 32))
    ((shown, _),) = shipped.reconstruct([wide])
    assert np.asarray(shown).tolist() == np.asarray(Image.new("RGB", (32, 32), "blue")).tolist()


def test_a_diffusion_policy_reconstructs_with_its_autoencoder(tmp_path):
    policy = load_policy(save(tmp_path / "unified"))
    pairs = policy.reconstruct(list(words())[:2])
    assert len(pairs) == 2 and all(one.size == other.size for one, other in pairs)


# --- in a run


def own_rows(folder, images):
    folder.mkdir()
    lines = []
    for number, image in enumerate(images):
        image.save(folder / f"{number}.png")
        lines.append(json.dumps({"prompt": f"word {number}", "target": f"{number}.png", "image": f"{number}.png"}))
    (folder / "rows.jsonl").write_text("\n".join(lines))
    return str(folder / "rows.jsonl")


def image_recipe(checkpoint, source, **changes):
    data = {"source": source, "options": {}, "targets": {"image": "target"}}
    return mapping(checkpoint, scenario="text_to_image", data=data, run={"steps": 1}, **changes)


@pytest.mark.parametrize("way", ["sft", "rl"])
def test_a_run_on_other_images_warns_once(tiny_checkpoint, tmp_path, capsys, way):
    source = own_rows(tmp_path / "data", words())
    content = image_recipe(tiny_checkpoint, source, **(SFT if way == "sft" else {}))
    if way == "rl":
        content["rewards"], content["algorithm"]["advantage_assignment"] = content["rewards"][:1], "joint"
    run = run_sft if way == "sft" else run_training
    run(parse_recipe(content), RunFolder(tmp_path / "run", resume=False), "")
    said = capsys.readouterr().out
    assert said.count("Warning: the frozen image tokenizer loses") == 1 and "8 images" in said
    assert f"See {tmp_path / 'run' / 'reconstruction.png'}." in said and said.index("Warning") < said.index("train 1/1")
    assert Image.open(tmp_path / "run" / "reconstruction.png").width > 500
    content["run"]["steps"] = 2
    run(parse_recipe(content), RunFolder(tmp_path / "run", resume=True), "")
    assert "Warning" not in capsys.readouterr().out


def test_images_of_the_world_cause_no_warning(tmp_path, capsys):
    world = {"source": "shapes", "options": {}, "targets": TARGETS}
    content = mapping(SHIPPED, **SFT, data=world, run={"steps": 1}) | {"data": world}
    run_sft(parse_recipe(content), RunFolder(tmp_path / "run", resume=False), "")
    assert "Warning" not in capsys.readouterr().out and (tmp_path / "run" / "reconstruction.png").is_file()


def test_a_text_only_scenario_is_not_reconstructed(tiny_checkpoint, tmp_path):
    content = mapping(tiny_checkpoint, scenario="answer", rewards=[mapping(tiny_checkpoint)["rewards"][1]])
    assert reconstruct_sample(setup_rl(parse_recipe(content))) is None


def test_the_images_are_the_targets(tiny_checkpoint):
    """In supervised training the targets, in reinforcement learning what comes with the rows; the cursor stays."""
    taught = setup_sft(parse_recipe(mapping(tiny_checkpoint, **SFT, data={"targets": TARGETS})))
    (track,) = taught.tracks
    task = track.cursor.rows.task(0)
    assert list(images_to_generate(task, track)) == [task["target"]]
    assert len(reconstruct_sample(taught).pairs) == 16 and track.cursor.num_consumed == 0
    (track,) = setup_rl(parse_recipe(mapping(tiny_checkpoint))).tracks
    assert list(images_to_generate(task, track)) == task.images
