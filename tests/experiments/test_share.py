"""The model card and the upload: of a run on a tiny Janus, of a LoRA adapter, and of texts that contain markup."""

import json
import re
import shutil
from pathlib import Path

import huggingface_hub
import pytest
import yaml
from PIL import Image
from rich.table import Table

from motet.config import parse_recipe, to_yaml
from motet.core.errors import CheckpointError, ConfigError, OutputError
from motet.experiments.hub_upload import Extra, files_to_upload, upload
from motet.experiments.model_card import find_source, make_card
from motet.report.learning_curve import curve_keys
from motet.report.markdown import code_block, escape_markdown, markdown_table
from tests.runs import mapping, motet_command

HOSTILE = "a <script>alert(1)</script> [x](http://evil) | `code` **b** ![i](u)\n# title \x1b[31m"


@pytest.fixture(scope="module")
def run(tiny_checkpoint, tmp_path_factory):
    """The folder of a finished run: a checkpoint of a tiny Janus, metrics, images, evaluations before and after."""
    folder = tmp_path_factory.mktemp("share") / "my run"
    content = mapping(tiny_checkpoint, run={"steps": 2}, eval={"suite": "rewards"}) | {"description": HOSTILE}
    checkpoint = folder / "checkpoints" / "step_000002"
    shutil.copytree(tiny_checkpoint, checkpoint)
    for name in ("learner.safetensors", "random_state.json", "trainer_state.json", "SHA256SUMS"):
        (checkpoint / name).write_text("{}")
    (folder / "samples").mkdir()
    (folder / "samples" / "step_000001.jsonl").write_text("{}\n")
    (folder / "recipe.yaml").write_text(to_yaml(parse_recipe(content)))
    (folder / "metrics.jsonl").write_text("".join(f'{{"step": {n}, "reward": {n / 2}}}\n' for n in range(2)))
    for name in ("before.png", "after.png"):
        Image.new("RGB", (8, 8)).save(folder / name)
    before, after = (
        {"all": {"a|b": {"mean": mean, "interval": 0.1, "greedy": mean, "by_row": [mean, mean - 0.1]}}}
        for mean in (0.2, 0.7)
    )
    (folder / "summary.json").write_text(json.dumps({"before": before, "after": after, "seconds": 3.0, "steps": 2}))
    versions = [{"step": 0, "motet": "0.0.1"}, {"step": 1, "motet": "0.0.2"}, {"step": 2, "motet": "0.0.2"}]
    (folder / "versions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in versions))
    (folder / "start.json").write_text(json.dumps({"policy": "weights 123456789abc"}))
    return folder


def test_the_card_says_what_the_run_was(run):
    card = make_card(find_source(run), "me/shapes", license="mit")
    head = yaml.safe_load(card.text.split("---")[1])
    del head["model-index"]
    assert head == {
        "library_name": "transformers",
        "license": "mit",
        "tags": ["motet", "reinforcement-learning", "grpo"],
    }
    for text in ("# shapes\n", "Trained with motet 0.0.1, 0.0.2 from step 1.",
                 "seed 0, 2 steps, 3.0 s of training, start: weights 123456789abc",
                 "| a\\|b | 0.200 \u00b1 0.100 | 0.700 \u00b1 0.100 | +0.500 \u00b1 1.165 |", "```yaml\n",
                 'JanusForConditionalGeneration.from_pretrained("me/shapes")', "@software{motet"):  # fmt: skip
        assert text in card.text, text
    assert set(card.files) == {"curve.png", "before.png", "after.png"} and card.notes == ()
    assert all(content.startswith(b"\x89PNG") for content in card.files.values())
    assert all(f"]({name})" in card.text for name in card.files)
    recipe = re.search(r"```yaml\n(.*?)\n```", card.text, re.DOTALL)
    assert recipe and yaml.safe_load(recipe[1])["run"]["steps"] == 2


def test_the_model_index_is_valid_and_has_the_evaluation(run, capsys):
    card = huggingface_hub.ModelCard(make_card(find_source(run), "me/shapes").text)
    (result,) = card.data.eval_results  # the hub's library reads it back
    assert (card.data.model_name, result.metric_name, result.metric_value) == ("shapes", "all: a|b", 0.7)
    assert (result.task_type, result.dataset_type, result.metric_type) == (
        "reinforcement-learning",
        "rewards",
        "reward",
    )
    assert result.metric_args == {"seeds": 1, "items": 2, "interval_95": 0.1}
    shown = motet_command(capsys, "push", str(run), "me/shapes", "--dry-run")
    assert shown.code == 0 and "model-index:" in shown.out


def test_runs_of_several_seeds_give_means_over_seeds(run, tiny_checkpoint, tmp_path, capsys):
    others = []
    for seed, mean in ((1, 0.5), (2, 0.6)):
        others.append(tmp_path / f"seed{seed}")
        others[-1].mkdir()
        recipe = (run / "recipe.yaml").read_text().replace("seed: 0", f"seed: {seed}", 1)
        (others[-1] / "recipe.yaml").write_text(recipe)
        tables = [{"all": {"a|b": {"mean": value, "greedy": 0.0, "by_row": [value]}}} for value in (0.2, mean)]
        (others[-1] / "summary.json").write_text(json.dumps(dict(zip(("before", "after"), tables, strict=True))))
    card = make_card(find_source(run), "me/shapes", seeds=others)
    half = 4.302653 * 0.1 / 3**0.5  # Student's t of 2 degrees of freedom, times s / sqrt(n)
    assert f"| all: a\\|b | 0.200 \u00b1 0.000 | 0.600 \u00b1 {half:.3f} | +0.400 \u00b1 {half:.3f} |" in card.text
    assert "3 runs with the seeds 0, 1, 2" in card.text and "weights are those of seed 0" in card.text
    (result,) = huggingface_hub.ModelCard(card.text).data.eval_results
    assert result.metric_value == 0.6 and result.metric_args == {"seeds": 3, "interval_95": round(half, 4)}
    again = motet_command(capsys, "card", str(run), "--seed-run", str(run), "--out", str(tmp_path / "card"))
    assert again.code == 2 and "have the same seed" in again.err
    (others[0] / "recipe.yaml").write_text((others[0] / "recipe.yaml").read_text().replace("steps: 2", "steps: 3", 1))
    with pytest.raises(ConfigError, match=r"not a run of the recipe of .*run\.steps differs"):
        make_card(find_source(run), seeds=others)
    (others[1] / "summary.json").unlink()
    with pytest.raises(ConfigError, match="has no evaluation after training"):
        make_card(find_source(run), seeds=others[1:])
    with pytest.raises(ConfigError, match="is not known"):
        make_card(find_source(tiny_checkpoint), seeds=others)


def test_texts_of_others_are_no_markup(run):
    prose = re.sub(r"(`{3,})yaml\n.*?\n\1", "", make_card(find_source(run)).text, flags=re.DOTALL)
    assert "<script" not in prose and "[x](" not in prose and "![i](" not in prose and "\x1b" not in prose
    assert "\n# title" not in prose and r"&lt;script&gt;" in prose
    assert r"\[x\](http:&#47;&#47;evil) \| \`code\`" in prose


def test_a_code_block_cannot_be_left():
    assert code_block("a\n````\nb\x1b", "yaml") == "`````yaml\na\n````\nb\\x1b\n`````"
    assert "secret" not in code_block("http://user:secret@host")


def test_a_table_of_rich_becomes_markdown():
    table = Table("", "a\nb", title="t")
    table.add_row("[bold]x|y[/bold]", "1 \u00b1 2")
    assert markdown_table(table) == "|   | a b |\n| --- | ---: |\n| x\\|y | 1 \u00b1 2 |"
    assert escape_markdown("") == ""


def test_the_curve_is_of_rewards_or_of_the_loss():
    assert curve_keys([{"step": 0, "a/reward": 1.0, "loss": 2.0, "a/rewards/x/mean": 1.0}]) == ["a/reward"]
    assert curve_keys([{"step": 0, "loss": 2.0}]) == ["loss"] and curve_keys([]) == []


def test_what_is_uploaded(run, capsys):
    source = find_source(run)
    card = make_card(source, "me/shapes")
    names = set(files_to_upload(source, card, None, Extra()))
    assert {"model.safetensors", "config.json", "README.md", "curve.png"} <= names
    assert not [
        name for name in names if name.startswith(("learner", "trainer_state", "random_state", "SHA256", "samples"))
    ]
    more = set(files_to_upload(source, card, None, Extra(optimizer=True, samples=True)))
    assert {"learner.safetensors", "trainer_state.json"} <= more - names
    assert any(name.startswith("samples/") for name in more - names)
    shown = motet_command(capsys, "push", str(run), "me/shapes", "--dry-run", "--private")
    assert shown.code == 0 and "(private)" in shown.out and "# shapes" in shown.out and "add --license ID" in shown.err
    size = (source.checkpoint / "model.safetensors").stat().st_size
    assert re.search(rf"model.safetensors\W+{size:,}\b", shown.out) and "learner.safetensors" not in shown.out


class FakeApi:
    """The hub client, which looks at the folder that it is given."""

    def __init__(self, error=None):
        self.error, self.created, self.files = error, None, {}

    def create_repo(self, repo, **options):
        if self.error:
            raise self.error
        self.created = repo, options
        return huggingface_hub.RepoUrl(f"https://huggingface.co/{repo}")

    def upload_folder(self, *, repo_id, folder_path, commit_message):
        folder = Path(folder_path)
        paths = [path for path in folder.rglob("*") if path.is_file()]
        self.files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def test_upload_makes_the_repository_and_sends_the_files(run, monkeypatch):
    api = FakeApi()
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: api)
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: "t")
    source = find_source(run)
    files = files_to_upload(source, make_card(source, "me/shapes"), None, Extra())
    assert upload(files, "me/shapes", private=True) == "https://huggingface.co/me/shapes"
    assert api.created == ("me/shapes", {"private": True, "exist_ok": True}) and set(api.files) == set(files)
    assert api.files["config.json"] == (source.checkpoint / "config.json").read_bytes()
    api.error = ConnectionError("no route to host\nmore")
    with pytest.raises(OutputError, match=r"upload to 'me/shapes' failed: .*no route to host.*check the network"):
        upload(files, "me/shapes", private=False)


def test_without_a_token_or_a_repository_id_nothing_is_sent(run, monkeypatch, capsys):
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: None)
    rejected = motet_command(capsys, "push", str(run), "me/shapes")
    assert rejected.code == 2 and "no token" in rejected.err and "hf auth login" in rejected.err
    invalid = motet_command(capsys, "push", str(run), "me//x y")
    assert invalid.code == 2 and "is not a hub id" in invalid.err and "OWNER/NAME" in invalid.err


def test_an_adapter_names_its_base_by_a_hub_id(tmp_path):
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_model.safetensors").write_bytes(b"x")
    (adapter / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(tmp_path), "r": 4}))
    source = find_source(adapter)
    with pytest.raises(ConfigError, match=r"names the base .* not a hub id.*--base OWNER/NAME"):
        files_to_upload(source, make_card(source), None, Extra())
    card = make_card(source, "me/lora", base="big/janus")
    files = files_to_upload(source, card, "big/janus", Extra())
    assert json.loads(files["adapter_config.json"]) == {"base_model_name_or_path": "big/janus", "r": 4}
    assert 'PeftModel.from_pretrained(base, "me/lora")' in card.text and "base_model: big/janus" in card.text
    assert "library_name: peft" in card.text


def test_the_command_card_writes_a_folder(run, tmp_path, capsys):
    out = tmp_path / "card"
    first = motet_command(capsys, "card", str(run), "--out", str(out), "--license", "mit")
    assert first.code == 0 and first.out.strip() == str(out / "README.md")
    assert {path.name for path in out.iterdir()} == {"README.md", "curve.png", "before.png", "after.png"}
    again = motet_command(capsys, "card", str(run), "--out", str(out))
    assert again.code == 2 and "exists" in again.err and "--overwrite" in again.err


def test_a_checkpoint_without_its_run_and_a_folder_without_weights(tiny_checkpoint, run, tmp_path):
    source = find_source(tiny_checkpoint)
    assert source.run is None and "The run that wrote it is not known" in make_card(source).text
    inside = find_source(find_source(run).checkpoint)
    assert inside.run is not None and inside.run.path == run
    with pytest.raises(CheckpointError, match="neither a run with a checkpoint nor a checkpoint"):
        find_source(tmp_path)
    with pytest.raises(CheckpointError, match="does not name a best checkpoint"):
        find_source(run, best=True)


def test_a_pipeline_trained_by_lora_is_loaded_whole_or_by_its_adapter(tmp_path):
    (tmp_path / "lora").mkdir()
    (tmp_path / "model_index.json").write_text("{}")
    (tmp_path / "lora" / "pytorch_lora_weights.safetensors").write_bytes(b"x")
    text = make_card(find_source(tmp_path), "me/sana").text
    assert 'DiffusionPipeline.from_pretrained("me/sana")' in text and "library_name: diffusers" in text
    assert 'load_lora_weights("me/sana", subfolder="lora", weight_name="pytorch_lora_weights.safetensors")' in text
