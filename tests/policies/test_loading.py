"""Opening checkpoints: what is broken is refused in one line, and what is whole is loaded and saved in silence."""

import json
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import transformers
from packaging.version import Version
from safetensors.torch import load_file, save_file
from transformers import JanusForConditionalGeneration, JanusProcessor
from transformers.utils import logging

from motet.config import PolicyConfig
from motet.core.conversation import assistant, user
from motet.core.errors import CheckpointError
from motet.policies import load_policy
from motet.policies.generation import chat_template as templates
from motet.policies.janus import JanusPolicy
from motet.policies.janus.prompt_encoding import ContextEncoder
from motet.weights.hf_output import suppress_hf_output


@pytest.fixture
def copy(checkpoint: Path, tmp_path: Path) -> Path:
    """The checkpoint, to break."""
    return Path(shutil.copytree(checkpoint, tmp_path / "copy"))


def refused(folder: Path | str) -> str:
    with pytest.raises(CheckpointError) as caught:
        load_policy(folder, PolicyConfig(path=str(folder), device="cpu"))
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500
    return str(caught.value)


def edit(file: Path, **changes: object) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    assert f"There is no checkpoint at {str(tmp_path / 'no')!r}." in refused(tmp_path / "no")
    assert "There is no checkpoint at 'nothing'." in refused("nothing")


def test_a_hub_id_that_cannot_be_had() -> None:
    assert "'nobody/nothing' is not a local folder, and could not be found on the Hub" in refused("nobody/nothing")


def test_a_folder_without_a_config(copy: Path) -> None:
    (copy / "config.json").unlink()
    assert "holds no config.json" in refused(copy)


@pytest.mark.parametrize("content", ["{", "", "[]"])
def test_a_config_that_is_no_config(copy: Path, content: str) -> None:
    (copy / "config.json").write_text(content)
    assert ("config.json cannot be read" if content != "[]" else "is a None model") in refused(copy)


def test_a_model_of_another_architecture(copy: Path) -> None:
    edit(copy / "config.json", model_type="multi_modality")
    assert "is a 'multi_modality' model, which motet has no policy for" in refused(copy)
    assert "transformers format" in refused(copy)


@pytest.mark.parametrize("bytes_kept", [0, 100, 100_000])
def test_weights_that_are_cut_off(copy: Path, bytes_kept: int) -> None:
    weights = copy / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:bytes_kept])
    assert "SafetensorError" in refused(copy)


def test_no_weights_at_all(copy: Path) -> None:
    (copy / "model.safetensors").unlink()
    assert "cannot be loaded" in refused(copy)


@pytest.mark.parametrize("files", [["tokenizer.json"], ["tokenizer.json", "tokenizer_config.json"]])
def test_no_tokenizer(copy: Path, files: list[str]) -> None:
    for name in files:
        (copy / name).unlink()
    assert "cannot be loaded" in refused(copy)


def test_no_chat_template(copy: Path) -> None:
    (copy / "chat_template.jinja").unlink()
    assert "no chat template" in refused(copy)


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("{% for m in messages %}<|User|>: draw{% endfor %}", "leaves out 1 of 1 texts"),
        ("{{ raise_exception('no') }}", "rejects a user's prompt"),
        ("{% for i in range(99999) %}{% for k in range(99999) %}{% endfor %}{% endfor %}", "takes more than 0.3 s"),
    ],
)
def test_a_chat_template_that_drops_the_prompt_or_never_ends(
    copy: Path, monkeypatch: pytest.MonkeyPatch, template: str, words: str
) -> None:
    monkeypatch.setattr(templates, "RENDER_SECONDS", 0.3)
    (copy / "chat_template.jinja").write_text(template)
    assert words in refused(copy)


def test_a_template_that_drops_a_later_text_is_refused_when_it_does(policy: JanusPolicy) -> None:
    encoder = ContextEncoder(policy.processor, 160)
    encoder.template = "{{ messages[0]['content'][0]['text'] }}"
    with pytest.raises(CheckpointError, match="leaves out 1 of 2 texts"):
        encoder.encode(user("one") + assistant("two"), max_new_tokens=1)


@pytest.mark.parametrize(
    ("part", "key", "value"),
    [
        ("text_config", "num_hidden_layers", 10**9),
        ("vision_config", "num_hidden_layers", 10**9),
        ("text_config", "vocab_size", 10**12),
        ("vq_config", "num_embeddings", 10**12),
    ],
)
def test_a_config_of_more_than_the_weights_is_refused_before_it_is_built(
    copy: Path, part: str, key: str, value: int
) -> None:
    config = json.loads((copy / "config.json").read_text())
    edit(copy / "config.json", **{part: config[part] | {key: value}})
    assert f"says {part}.{key}={value} in its config" in refused(copy)


def test_the_tokenizers_own_chat_template_will_do(copy: Path, policy: JanusPolicy) -> None:
    template = (copy / "chat_template.jinja").read_text()
    (copy / "chat_template.jinja").unlink()
    edit(copy / "tokenizer_config.json", chat_template=template)
    ours = load_policy(copy, PolicyConfig(path=str(copy), device="cpu"))
    assert ours.generate_text("a star", max_tokens=1)[0].encoding.ids.tolist() == (
        policy.generate_text("a star", max_tokens=1)[0].encoding.ids.tolist()
    )


def change_weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> str:
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return refused(folder)


def test_missing_unknown_and_misshapen_weights_are_named(copy: Path) -> None:
    head, norm = "lm_head.weight", "model.language_model.norm.weight"
    said = change_weights(copy, lambda weights: [weights.pop(name) for name in (head, norm)])
    assert f"lacks weights: {head}, {norm}." in said
    said = change_weights(copy, lambda weights: [weights.pop(name) for name in list(weights)[:20]])
    assert "lacks weights: " in said and "and 19 more." in said


def test_unknown_weights_are_named(copy: Path) -> None:
    assert "has unknown weights: extra.bias." in change_weights(
        copy, lambda weights: weights.update({"extra.bias": torch.zeros(2)})
    )


def test_misshapen_weights_are_named(copy: Path) -> None:
    name = "model.language_model.norm.weight"
    assert f"has, in another shape, weights: {name}." in change_weights(
        copy, lambda weights: weights.update({name: torch.ones(7)})
    )


def test_parts_that_contradict_each_other(copy: Path) -> None:
    edit(copy / "processor_config.json", num_image_tokens=576)
    assert "have 4 x 4 tokens, but config.json says 16 and the processor 576" in refused(copy)
    edit(copy / "processor_config.json", num_image_tokens=16)
    edit(copy / "config.json", image_token_id=9)
    assert "<image_placeholder> is token 3, but config.json says image_token_id=9" in refused(copy)


def test_a_device_that_is_not_there(checkpoint: Path) -> None:
    for name in ("cuda:17", "abacus"):
        with pytest.raises(CheckpointError, match=r"policy\.device='") as caught:
            load_policy(checkpoint, PolicyConfig(path=str(checkpoint), device=name))
        assert "\n" not in str(caught.value)


def test_an_unmeant_tie_of_embeddings_is_not_made(copy: Path, policy: JanusPolicy) -> None:
    config = json.loads((copy / "config.json").read_text())
    del config["tie_word_embeddings"]  # as in published configs; the default of JanusConfig is True
    (copy / "config.json").write_text(json.dumps(config))
    ours = load_policy(copy, PolicyConfig(path=str(copy), device="cpu"))
    assert torch.equal(ours.model.lm_head.weight, policy.model.lm_head.weight)
    assert ours.model.config.tie_word_embeddings is False


def test_loading_and_saving_say_nothing(copy: Path, tmp_path: Path) -> None:
    edit(copy / "tokenizer_config.json", tokenizer_class="LlamaTokenizerFast")
    script = (
        "import sys; from pathlib import Path; import motet\n"
        "policy = motet.load_policy(sys.argv[1])\n"
        "policy.generate_text('what?', max_tokens=2)\n"
        "policy.save(Path(sys.argv[2]))\n"
    )
    command = [
        sys.executable,
        "-W",
        "default",
        "-W",
        "ignore::ResourceWarning",
        "-c",
        script,
        str(copy),
        str(tmp_path / "saved"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_suppressing_output_restores_the_settings() -> None:
    before = logging.get_verbosity(), logging.is_progress_bar_enabled()
    with pytest.raises(KeyError), suppress_hf_output():
        assert (logging.get_verbosity(), logging.is_progress_bar_enabled()) == (logging.ERROR, False)
        raise KeyError
    assert (logging.get_verbosity(), logging.is_progress_bar_enabled()) == before


def test_saved_files_are_for_everyone_and_for_transformers(policy: JanusPolicy, tmp_path: Path) -> None:
    weights = {name: weight.clone() for name, weight in policy.model.state_dict().items()}
    mask = os.umask(0o022)
    try:
        policy.save(tmp_path)
    finally:
        os.umask(mask)
    modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in tmp_path.iterdir()}
    assert modes["model.safetensors"] == 0o644 and set(modes.values()) == {0o644}
    with suppress_hf_output():
        model = JanusForConditionalGeneration.from_pretrained(tmp_path)
        processor = JanusProcessor.from_pretrained(tmp_path)
    assert all(torch.equal(w, model.state_dict()[name]) for name, w in weights.items())
    assert processor.num_image_tokens == 16 or Version(transformers.__version__) < Version("5.17")
    again = load_policy(tmp_path, PolicyConfig(path=str(tmp_path), device="cpu"))
    act = policy.generate_images("a star")[0]
    assert torch.equal(again.log_probs([act])[0], policy.log_probs([act])[0])


def test_generate_finds_its_begin_of_image_token_after_a_save(copy: Path, tmp_path: Path) -> None:
    (copy / "generation_config.json").unlink()
    policy = load_policy(copy, PolicyConfig(path=str(copy), device="cpu"))
    policy.save(tmp_path / "saved")
    with suppress_hf_output():
        model = JanusForConditionalGeneration.from_pretrained(tmp_path / "saved")
    assert model.generation_config.generation_kwargs == {"boi_token_id": policy.encoder.begin_image_id}
    assert model.generation_config.pad_token_id == policy.encoder.pad_id


def test_a_folder_that_cannot_be_written(policy: JanusPolicy, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="cannot be written"):
        policy.save(tmp_path / "file" / "folder")
