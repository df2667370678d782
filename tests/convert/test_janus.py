"""Conversions between the two layouts compute the same, lose no bit, and reject what is not a Janus."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional as F
from transformers import GenerationConfig, JanusForConditionalGeneration, JanusProcessor

import motet
from motet.convert import janus_config as original_config
from motet.convert.janus import UNREAD_FILE, convert_folder
from motet.convert.janus_names import from_original, from_transformers
from motet.core.errors import CheckpointError, ConfigError, RunFolderError
from motet.policies.janus.images import encode_images
from motet.weights.hf_output import suppress_hf_output
from tests.convert import original_janus as reference
from tests.policies import published
from tests.runs import motet_command

ATOL = 1e-5


def read(folder: Path) -> dict[str, Tensor]:
    """All tensors of a folder, including unused ones."""
    return {name: tensor for file in folder.glob("*.safetensors") for name, tensor in load_file(file).items()}


@pytest.fixture(scope="module")
def state() -> dict[str, Tensor]:
    return reference.weights()


@pytest.fixture(scope="module")
def original(state: dict[str, Tensor], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return reference.save(tmp_path_factory.mktemp("original") / "janus", state, bins=2)


@pytest.fixture(scope="module")
def converted(original: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("converted") / "janus"
    convert_folder(original, out, compare=True, shard_bytes=200_000)
    return out


@pytest.fixture(scope="module")
def model(converted: Path) -> Any:
    with suppress_hf_output():
        return JanusForConditionalGeneration.from_pretrained(converted).eval()


def close(ours: Tensor, theirs: Tensor) -> None:
    assert ours.shape == theirs.shape
    assert float((ours - theirs).abs().max()) < ATOL * max(1.0, float(theirs.abs().max()))
    assert float(theirs.std()) > 0.05  # zeros would be equal as well


# --- the same mathematics


@torch.no_grad()
def test_vision_tower_and_aligner(model: Any, state: dict[str, Tensor]) -> None:
    pixels = torch.randn(2, 3, reference.SIDE, reference.SIDE, generator=torch.Generator().manual_seed(1))
    close(
        model.model.get_image_features(pixels, return_dict=True).pooler_output, reference.encode_vision(state, pixels)
    )


@torch.no_grad()
def test_text_about_an_image(model: Any, state: dict[str, Tensor]) -> None:
    noise = torch.Generator().manual_seed(2)
    pixels = torch.randn(1, 3, reference.SIDE, reference.SIDE, generator=noise)
    ids = torch.randint(10, 300, (1, 24), generator=noise)
    ids[0, 3:19] = model.config.image_token_id
    x = reference.embed_text(state, ids)
    x[:, 3:19] = reference.encode_vision(state, pixels)
    theirs = reference.text_logits(state, reference.language_model(state, x))
    close(model(input_ids=ids, pixel_values=pixels).logits, theirs)


@torch.no_grad()
def test_image_tokens(model: Any, state: dict[str, Tensor]) -> None:
    noise = torch.Generator().manual_seed(3)
    ids = torch.randint(10, 300, (2, 5), generator=noise)
    codes = torch.randint(0, reference.CODES, (2, 7), generator=noise)
    x = torch.cat([reference.embed_text(state, ids), reference.embed_codes(state, codes)], dim=1)
    theirs = reference.language_model(state, x)
    embedded = torch.cat(
        [model.get_input_embeddings()(ids), model.prepare_embeddings_for_image_generation(codes)], dim=1
    )
    ours = model.model.language_model(inputs_embeds=embedded).last_hidden_state
    close(ours, theirs)
    close(model.model.generation_head(ours), reference.code_logits(state, theirs))


@torch.no_grad()
def test_the_image_tokenizer(model: Any, converted: Path, state: dict[str, Tensor]) -> None:
    noise = torch.Generator().manual_seed(4)
    codes = torch.randint(0, reference.CODES, (2, reference.GRID**2), generator=noise)
    close(model.model.vqmodel.decode(codes), reference.decode(state, codes))
    bytes_ = torch.randint(0, 256, (2, reference.SIDE, reference.SIDE, 3), generator=noise, dtype=torch.uint8)
    pixels = bytes_.permute(0, 3, 1, 2).float() / 127.5 - 1
    latents, theirs = reference.encode(state, pixels)
    vq = model.model.vqmodel
    close(vq.quant_conv(vq.encoder(pixels)), latents)
    policy = motet.load_policy(converted)
    images = [Image.fromarray(one.numpy()) for one in bytes_]
    assert torch.equal(encode_images(policy.model, policy.processor, images), theirs)
    assert len(theirs.unique()) > 3


def test_a_converted_model_acts(converted: Path) -> None:
    policy = motet.load_policy(converted)
    acts = [*policy.generate_images("a red circle"), *policy.generate_text("what is it?", max_tokens=4)]
    for act, replayed in zip(acts, policy.log_probs(acts), strict=True):
        assert float((replayed - act.log_probs).abs().max()) < 1e-4


# --- no bit is lost


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_round_trip_preserves_names_and_bits(dtype: torch.dtype, tmp_path: Path) -> None:
    state = {name: tensor.to(dtype) for name, tensor in reference.weights(1).items()}
    state["gen_embed.weight"][0, 0] = torch.nan  # bits are compared, not values
    source = reference.save(tmp_path / "source", state)
    there = convert_folder(source, tmp_path / "ours", compare=True)
    back = convert_folder(tmp_path / "ours", tmp_path / "back", compare=True, shard_bytes=100_000)
    found = read(tmp_path / "back")
    assert found.keys() == state.keys()
    for name, tensor in state.items():
        assert found[name].dtype == dtype and found[name].shape == tensor.shape
        assert torch.equal(found[name].view(torch.uint8), tensor.view(torch.uint8)), name
    unread = sum(tensor.numel() for name, tensor in state.items() if "attn_pool" in name or "codebook_used" in name)
    assert there.parameters == back.parameters == sum(t.numel() for t in state.values()) - unread
    assert there.unread == back.unread == 14
    assert (there.layout, back.layout) == ("transformers", "original")
    again = convert_folder(tmp_path / "back", tmp_path / "again")  # safetensors of the original layout, sharded
    assert read(again.folder).keys() == read(tmp_path / "ours").keys()
    assert json.loads((tmp_path / "ours" / "config.json").read_text())["dtype"] == str(dtype).removeprefix("torch.")


def test_round_trip_without_unused_tensors(converted: Path, state: dict[str, Tensor], tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(converted, copy)
    (copy / UNREAD_FILE).unlink()
    done = convert_folder(copy, tmp_path / "back")
    assert state.keys() - read(done.folder).keys() == set(from_original(state).unread) and done.unread == 0


def test_comparison_detects_a_changed_bit(original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from motet.weights.safetensors_io import ShardWriter

    add = ShardWriter.add
    monkeypatch.setattr(
        ShardWriter, "add", lambda self, name, t: add(self, name, t + (1e-7 if name.endswith("k_proj.bias") else 0))
    )
    with pytest.raises(CheckpointError, match=r"differ in vision_model\.vision_tower\.blocks\.0\.attn\.qkv\.bias"):
        convert_folder(original, tmp_path / "out", compare=True)
    assert not (tmp_path / "out").exists()


# --- names and sizes


@pytest.mark.parametrize("preset", sorted(original_config.PRESETS))
def test_published_sizes(preset: str) -> None:
    """The whole inventory of names and shapes on the meta device; Janus-Pro-1B has 2,089,297,547 parameters."""
    settings = original_config.PRESETS[preset]
    hidden = settings["language_config"]["hidden_size"]
    shapes = {"model.aligner.fc1.weight": (hidden, 1024), "model.aligner.hidden_layers.0.weight": (hidden, hidden)}
    shapes |= {f"model.vision_model.encoder.layers.{n}.mlp.fc1.weight": (4096, 1024) for n in range(24)}
    shapes |= {"model.vision_model.embeddings.patch_embedding.weight": (1024, 3, 16, 16)}
    shapes |= {"model.vqmodel.encoder.conv_in.weight": (128, 3, 3, 3)}
    shapes |= {"model.vqmodel.encoder.conv_out.weight": (256, 512, 3, 3)}
    shapes |= {"model.vqmodel.decoder.conv_out.weight": (3, 128, 3, 3)}
    shapes |= {"model.vqmodel.quantize.embedding.weight": (16384, 8)}
    for level, width in enumerate((128, 128, 256, 256, 512)):
        for block in (0, 1):
            shapes[f"model.vqmodel.encoder.down.{level}.block.{block}.conv1.weight"] = (width, 0, 3, 3)
    shapes |= {f"model.generation_aligner.{name}.weight": (hidden, 8) for name in ("fc1", "hidden_layers.0")}
    shapes |= {"model.generation_head.proj_out.weight": (hidden, hidden)}
    ids = {"bos": 100000, "eos": 100001, "pad": 100002, "image": 100581}
    config = original_config.to_transformers(preset, settings, shapes, ids)
    with torch.device("meta"):
        model = JanusForConditionalGeneration(config)
    mapping = from_transformers(model.state_dict())
    assert not mapping.unknown and not mapping.incomplete
    moved = from_original(entry.original for entry in mapping.entries)
    assert sorted(moved.entries, key=str) == sorted(mapping.entries, key=str)
    assert original_config.to_original(preset, config) == settings and original_config.is_published(settings)
    numbers = sum(tensor.numel() for tensor in model.state_dict().values())
    pool = 12 * 1024**2 + 12 * 1024  # latent, q, kv, proj, norm and an MLP four times as wide
    wide, layers = {2048: (5632, 24), 4096: (11008, 30)}[hidden]
    text = 2 * 102400 * hidden + layers * (4 * hidden**2 + 3 * hidden * wide + 2 * hidden) + hidden
    named = ((name, t.numel()) for name, t in model.state_dict().items())
    assert sum(n for name, n in named if "language_model" in name or "lm_head" in name) == text
    if hidden == 2048:
        assert numbers + pool + 65536 == 2_089_297_547


def test_all_original_names_are_mapped(state: dict[str, Tensor]) -> None:
    mapping = from_original([*state, "language_model.model.layers.3.self_attn.rotary_emb.inv_freq", "gen_embed.bias"])
    assert mapping.unknown == ("gen_embed.bias",)
    assert "language_model.model.layers.3.self_attn.rotary_emb.inv_freq" in mapping.unread
    qkv = next(entry for entry in mapping.entries if entry.original.endswith("blocks.1.attn.qkv.weight"))
    at = "model.vision_model.encoder.layers.1.self_attn"
    assert qkv.ours == tuple(f"{at}.{letter}_proj.weight" for letter in "qkv")


# --- what is not weights


def test_special_tokens_are_matched_by_name(converted: Path, model: Any) -> None:
    with suppress_hf_output():
        processor = JanusProcessor.from_pretrained(converted)
        generation = GenerationConfig.from_pretrained(converted)
    ids = processor.tokenizer.get_vocab()
    assert model.config.image_token_id == ids["<image_placeholder>"]
    assert generation.generation_kwargs == {"boi_token_id": ids["<begin_of_image>"]}
    assert generation.pad_token_id == model.config.text_config.pad_token_id == ids["<｜▁pad▁｜>"]
    assert generation.bos_token_id == ids["<｜begin▁of▁sentence｜>"] and processor.use_default_system_prompt
    assert not model.config.tie_word_embeddings and model.config.vq_config.num_patches == reference.GRID
    images = motet.load_policy(converted).processor.image_processor
    assert (list(images.image_mean), list(images.image_std)) == ([0.5, 0.4, 0.5], [0.5, 0.5, 0.6])
    assert (images.do_normalize, images.min_size, images.size["height"]) == (False, 3, reference.SIDE)


def test_reverse_conversion_writes_the_original_files(original: Path, converted: Path, tmp_path: Path) -> None:
    back = convert_folder(converted, tmp_path / "back").folder
    for name in ("processor_config.json", "preprocessor_config.json"):
        theirs, ours = (json.loads((folder / name).read_text()) for folder in (original, back))
        assert {key: ours[key] for key in theirs} == theirs
    theirs, ours = (json.loads((folder / "config.json").read_text()) for folder in (original, back))
    assert ours["language_config"].items() >= (theirs["language_config"].items() - {("torch_dtype", "float32")})
    for section in ("aligner_config", "gen_vision_config", "gen_aligner_config", "gen_head_config"):
        assert ours[section]["params"] == theirs[section]["params"]
    tokens = json.loads((back / "tokenizer_config.json").read_text())
    assert (tokens["bos_token"], tokens["pad_token"]) == ("<｜begin▁of▁sentence｜>", "<｜▁pad▁｜>")


def test_chat_template_equals_the_published_one(converted: Path) -> None:
    policy = motet.load_policy(converted)
    shown = {"type": "image"}
    chats = [
        [("user", ["  two \n spaces\t "])],
        [("user", ["What?", " And?", shown])],
        [("user", ["  What? ", " And? "])],  # only outer spaces are stripped
        [("user", [shown, "What?"]), ("assistant", [" This. "]), ("user", ["And", shown, "this?"])],
        [("system", ["Be brief."]), ("User", ["Hello"])],
    ]
    for chat in chats:
        messages = [
            {"role": role, "content": [{"type": "text", "text": p} if isinstance(p, str) else p for p in parts]}
            for role, parts in chat
        ]
        ours, theirs = (
            policy.processor.apply_chat_template(
                messages, chat_template=template, add_generation_prompt=True, tokenize=False
            )
            for template in (None, published.CHAT_TEMPLATE)
        )
        assert ours == theirs
    act = policy.generate_text("Hello", max_tokens=2)[0]
    assert act.encoding is not None
    assert "helpful language and vision assistant" in policy.processor.tokenizer.decode(act.encoding.ids)


def theirs(turns: list[tuple[str, str]], roles: tuple[str, str]) -> str:
    """DeepSeek's rendering, reimplemented; an empty turn has neither a space nor an end."""
    ends = {"user": "\n\n", "assistant": "<｜end▁of▁sentence｜>"}
    named = dict(zip(ends, roles, strict=True))
    whole = [named[who] + (f": {text.strip()}{ends[who]}" if text.strip() else ":") for who, text in turns]
    return "".join(whole) + f"{roles[1]}:"


IMAGE = "<image_placeholder>"
WORDS, TOKENS = ("User", "Assistant"), ("<|User|>", "<|Assistant|>")
CHATS = {
    "turns": ([("user", ["Hi "]), ("assistant", ["Yes?"]), ("user", ["Why"])], ["Hi", "Yes?", "Why"]),
    "two adjacent images": ([("user", [None, None, "Which?"])], [f"{IMAGE}\n{IMAGE}\nWhich?"]),
    "images around": ([("user", [None, "or", None, None])], [f"{IMAGE}\nor\n{IMAGE}\n{IMAGE}"]),
    "an empty prompt": ([("user", [""])], [""]),
    "whitespace": ([("user", [" \n"])], [""]),
    "an empty answer": ([("user", ["a"]), ("assistant", [""]), ("user", ["b"])], ["a", "", "b"]),
}


@pytest.mark.parametrize("name", CHATS)
def test_conversations_are_rendered_as_by_deepseek(converted: Path, name: str) -> None:
    chat, expected = CHATS[name]
    policy = motet.load_policy(converted)
    assert rendered(policy, chat) == theirs(list(zip([who for who, _ in chat], expected, strict=True)), TOKENS)


def rendered(policy: Any, chat: list[tuple[str, list[str | None]]]) -> str:
    messages = [
        {
            "role": who,
            "content": [{"type": "image"} if part is None else {"type": "text", "text": part} for part in parts],
        }
        for who, parts in chat
    ]
    return policy.encoder.rendered(messages)


def odd_folder(original: Path, at: Path, gone: tuple[str, ...] = (), **settings: Any) -> Path:
    """A copy with other settings of its processor, and a vocabulary without some tokens."""
    shutil.copytree(original, at)
    processor = json.loads((at / "processor_config.json").read_text())
    (at / "processor_config.json").write_text(json.dumps(processor | settings))
    tokenizer = (at / "tokenizer.json").read_text()
    for token in gone:
        assert token in tokenizer
        tokenizer = tokenizer.replace(token, f"<|no{token[2:]}")
    (at / "tokenizer.json").write_text(tokenizer)
    return at


@pytest.mark.parametrize(
    ("named", "gone", "roles"),
    [
        ("deepseek", (), TOKENS),
        ("deepseek_old", (), WORDS),
        ("deepseek_old", TOKENS, WORDS),
        ("deepseek", TOKENS, WORDS),  # Janus-1.3B: before Janus-Pro the name meant this format
    ],
)
def test_conversation_format_of_the_folder(
    original: Path, tmp_path: Path, named: str, gone: tuple[str, ...], roles: tuple[str, str]
) -> None:
    source = odd_folder(original, tmp_path / "source", gone, sft_format=named)
    policy = motet.load_policy(convert_folder(source, tmp_path / "ours").folder)
    assert rendered(policy, [("user", ["a red circle"])]) == theirs([("user", "a red circle")], roles)
    act = policy.generate_text("a red circle", max_tokens=1)[0]
    ids = act.encoding.ids.tolist()
    marked = [policy.processor.tokenizer.convert_tokens_to_ids(token) for token in TOKENS]
    assert [marker in ids for marker in marked] == [roles == TOKENS] * 2
    back = convert_folder(tmp_path / "ours", tmp_path / "back").folder
    written = json.loads((back / "processor_config.json").read_text())["sft_format"]
    assert written == ("deepseek" if roles == TOKENS else "deepseek_old")


@pytest.mark.parametrize(
    ("gone", "settings", "message"),
    [
        (
            (),
            {"sft_format": "llama-2"},
            "has sft_format='llama-2' in processor_config.json; supported are deepseek and",
        ),
        ((), {"add_special_token": True}, "add_special_token=true"),
        (("<|User|>",), {}, r"vocabulary lacks '<\|User\|>'"),
    ],
)
def test_other_conversation_formats_are_rejected(
    original: Path, tmp_path: Path, gone: tuple[str, ...], settings: dict[str, Any], message: str
) -> None:
    assert_rejected(odd_folder(original, tmp_path / "source", gone, **settings), message)


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{{ messages[0]['content'][0]['text'] }}", "not a conversation format of DeepSeek"),
        ("{{ messages[0].missing.part }}", "cannot be rendered"),
    ],
)
def test_other_templates_cannot_be_converted_back(converted: Path, tmp_path: Path, template: str, message: str) -> None:
    odd = tmp_path / "odd"
    shutil.copytree(converted, odd)
    (odd / "chat_template.jinja").write_text(template)
    assert_rejected(odd, message)


@pytest.mark.parametrize("cleans", [False, True])
def test_cleaning_of_spaces_is_preserved(original: Path, tmp_path: Path, cleans: bool) -> None:
    source = tmp_path / "source"
    shutil.copytree(original, source)
    settings = json.loads((source / "tokenizer_config.json").read_text())
    (source / "tokenizer_config.json").write_text(json.dumps(settings | {"clean_up_tokenization_spaces": cleans}))
    ours = convert_folder(source, tmp_path / "ours").folder
    assert motet.load_policy(ours).processor.tokenizer.clean_up_tokenization_spaces is cleans
    back = convert_folder(ours, tmp_path / "back").folder
    assert json.loads((back / "tokenizer_config.json").read_text())["clean_up_tokenization_spaces"] is cleans


@pytest.mark.parametrize("size", [(500, 333), (333, 500), (97, 100), (200, 9), (32, 32)])
def test_images_are_scaled_as_by_deepseek(converted: Path, size: tuple[int, int], tmp_path: Path) -> None:
    """Sides are rounded down to whole pixels, not rounded; bars of the mean colour fill the square."""
    noise = torch.Generator().manual_seed(6)
    image = Image.fromarray(torch.randint(0, 256, (*size[::-1], 3), generator=noise, dtype=torch.uint8).numpy())
    side, mean = reference.SIDE, (127, 102, 127)
    own = tuple(max(int(pixels / max(size) * side), 3) for pixels in size)
    square = Image.new("RGB", (side, side), mean)
    square.paste(image.resize(own, Image.Resampling.BICUBIC), ((side - own[0]) // 2, (side - own[1]) // 2))
    expected = torch.from_numpy(np.array(square)).permute(2, 0, 1) / 255
    policy = motet.load_policy(converted)
    policy.save(tmp_path / "saved")
    for ours in (policy, motet.load_policy(tmp_path / "saved")):
        torch.testing.assert_close(ours.encoder._encode_images([image])[0][0], expected, rtol=0, atol=1e-6)
    with suppress_hf_output():
        assert JanusProcessor.from_pretrained(tmp_path / "saved").image_processor.size["height"] == side


# --- rejected input


def assert_rejected(folder: Path, message: str, **settings: Any) -> None:
    with pytest.raises(CheckpointError, match=message):
        convert_folder(folder, folder.parent / "out", **settings)
    assert not (folder.parent / "out").exists() and not list(folder.parent.glob(".partial*"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("gen_embed.weight"), r"lacks 1 tensors: gen_embed\.weight"),
        (lambda s: s.pop("aligner.layers.0.weight"), r"lacks the tensor aligner\.layers\.0\.weight"),
        (lambda s: s.pop("vision_model.vision_tower.blocks.1.attn.qkv.bias"), r"lacks 1 tensors: .*1\.attn\.qkv\.bias"),
        (
            lambda s: s.update({"vision_gen_enc_model.x": torch.zeros(1)}),
            r"1 tensors that are not part of a Janus: vision_gen",
        ),
        (
            lambda s: s.update({"gen_vision_model.decoder.mid.2.extra": torch.zeros(1)}),
            "in addition to those of its config, 1 tensors",
        ),
        (lambda s: s.update({"language_model.model.norm.weight": torch.zeros(5)}), r"norm\.weight \(5,\), not \(32,\)"),
        (
            lambda s: s.update({"vision_model.vision_tower.pos_embed": torch.zeros(2, 16, 24)}),
            "pos_embed in the unexpected shape",
        ),
        (lambda s: s.update({"gen_vision_model.encoder.conv_in.bias": "x"}), "is not a dictionary of tensors"),
    ],
)
def test_other_tensors_are_rejected(tmp_path: Path, change: Callable[[Any], Any], message: str) -> None:
    state: dict[str, Any] = reference.weights()
    change(state)
    assert_rejected(reference.save(tmp_path / "odd", state), message)


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("config.json", {"model_type": "llava"}, "is a 'llava' model, not a Janus"),
        ("config.json", {"gen_head_config": None}, "without gen_head_config"),
        ("config.json", {"gen_vision_config": {"cls": "VQ-8", "params": {}}}, r"gen_vision_config\.cls='VQ-8'"),
        ("config.json", {"language_config": {"hidden_size": 32, "vocab_size": 330}}, "lacks|in another shape"),
        ("config.json", {"language_config": {"hidden_size": "wide"}}, "inconsistent config"),
        (
            "config.json",
            {"vision_config": {"cls": "CLIPVisionTower", "params": {}}},
            "vision tower None; supported are",
        ),
        (
            "config.json",
            {"vision_config": {"cls": "CLIPVisionTower", "params": {"heads": 3, "pixel_mean": [0.5]}}},
            "inside its vision tower",
        ),
        ("tokenizer_config.json", {"bos_token": "<s>"}, "vocabulary lacks bos_token='<s>'"),
        ("processor_config.json", {"image_tag": "<img>"}, "vocabulary lacks image_tag='<img>'"),
        ("preprocessor_config.json", {"image_size": None}, "image_size=None"),
    ],
)
def test_other_settings_are_rejected(
    original: Path, tmp_path: Path, file: str, change: dict[str, Any], message: str
) -> None:
    odd = tmp_path / "odd"
    shutil.copytree(original, odd)
    content = json.loads((odd / file).read_text())
    (odd / file).write_text(json.dumps(content | change))
    assert_rejected(odd, message)


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("config.json", "does not contain a config.json"),
        ("tokenizer.json", "cannot be read"),
        ("preprocessor_config.json", "cannot be read"),
        ("pytorch_model-00001-of-00002.bin", "cannot be read"),
    ],
)
def test_missing_files_are_rejected(original: Path, tmp_path: Path, file: str, message: str) -> None:
    odd = tmp_path / "odd"
    shutil.copytree(original, odd)
    (odd / file).unlink()
    assert_rejected(odd, message)


def test_a_pickle_with_code_is_rejected(original: Path, tmp_path: Path) -> None:
    odd = tmp_path / "odd"
    shutil.copytree(original, odd)
    torch.save({"x": Path("y")}, odd / "pytorch_model-00001-of-00002.bin")  # a class: weights_only does not build it
    assert_rejected(odd, "cannot be read: UnpicklingError")


def test_a_part_of_a_fused_tensor_is_rejected(converted: Path, tmp_path: Path) -> None:
    odd = tmp_path / "odd"
    shutil.copytree(converted, odd)
    for file in odd.glob("model*"):
        file.unlink()
    tensors = {name: tensor for name, tensor in read(converted).items() if name.startswith(("model.", "lm_head"))}
    whole = dict(tensors)
    del tensors["model.vision_model.encoder.layers.0.self_attn.k_proj.weight"]
    save_file(tensors, odd / "model.safetensors", metadata={"format": "pt"})
    assert_rejected(odd, r"only a part of vision_model\.vision_tower\.blocks\.0\.attn\.qkv\.weight")
    del whole["lm_head.weight"]
    save_file(whole, odd / "model.safetensors", metadata={"format": "pt"})
    assert_rejected(odd, r"lacks 1 tensors: lm_head\.weight")


def test_presets_are_for_folders_without_a_config(original: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="has its own config"):
        convert_folder(original, tmp_path / "out", preset="Janus-Pro-1B")
    with pytest.raises(ConfigError, match=r"Did you mean 'Janus-Pro-1B'\?"):
        convert_folder(original, tmp_path / "out", preset="janus-pro-1b")
    bare = tmp_path / "bare"
    shutil.copytree(original, bare)
    (bare / "config.json").unlink()
    assert_rejected(bare, "describes a model that cannot be built", preset="Janus-Pro-1B")  # 24 features, 16 heads


def test_the_command(original: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    answer = motet_command(capsys, "convert", original, "--out", tmp_path / "ours", "--check")
    assert answer.code == 0 and answer.err == ""
    assert "identical bit by bit" in answer.out and "14, which" in answer.out
    run = tmp_path / "run" / "checkpoints" / "step_000001"  # a run folder stands for its newest checkpoint
    shutil.copytree(tmp_path / "ours", run)
    (run / "trainer_state.json").write_text("{}")
    answer = motet_command(capsys, "convert", tmp_path / "run", "--out", tmp_path / "back")
    assert answer.code == 0 and "published sizes only" in answer.out and "no (use --check" in answer.out
    answer = motet_command(capsys, "convert", tmp_path / "ours", "--out", tmp_path / "back")
    assert answer.code == 2 and "exists and is not empty" in answer.err
    with pytest.raises(RunFolderError):
        convert_folder(original, tmp_path / "back")


def test_the_reference_is_not_degenerate(state: dict[str, Tensor]) -> None:
    """Normalising the codebook, and the order of q, k and v, matter in this model."""
    rows = state["gen_vision_model.quantize.embedding.weight"].norm(dim=1)
    assert float(rows.max() / rows.min()) > 1.5
    pixels = torch.randn(1, 3, reference.SIDE, reference.SIDE, generator=torch.Generator().manual_seed(1))
    name = "vision_model.vision_tower.blocks.0.attn.qkv.weight"
    swapped = state | {name: state[name].roll(reference.VISION, dims=0)}
    assert float(F.mse_loss(reference.encode_vision(swapped, pixels), reference.encode_vision(state, pixels))) > 1e-3


def test_a_wide_image_is_cropped_not_padded(converted: Path) -> None:
    """The image tokens of an image's centre, without grey bars above and below."""
    policy = motet.load_policy(converted)
    noise = torch.Generator().manual_seed(5)
    side = reference.SIDE
    wide = torch.randint(0, 256, (side, 2 * side, 3), generator=noise, dtype=torch.uint8)
    middle = wide[:, side // 2 : side // 2 + side]
    both = [Image.fromarray(pixels.contiguous().numpy()) for pixels in (wide, middle, wide.transpose(0, 1))]
    cut, square, tall = policy.encode_images(both)
    assert torch.equal(cut, square) and not torch.equal(tall, square)
    assert torch.equal(tall, policy.encode_images([Image.fromarray(middle.transpose(0, 1).contiguous().numpy())])[0])
