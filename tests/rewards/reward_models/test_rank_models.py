"""HPS v3 and EditReward on tiny checkpoints in the published layouts, against the published forward pass by hand."""

import pytest
import torch
from safetensors.torch import save_file
from torch.nn import functional as F

from motet.core.errors import ConfigError, DataError, RewardError
from motet.rewards.reward_models import rank_model
from motet.rewards.reward_models.edit_reward import EditReward
from motet.rewards.reward_models.hps_v3 import HPSv3
from motet.rewards.reward_models.qwen_vl import QwenInputs, fitting_size
from tests.rewards.judges import save_clip, shows
from tests.rewards.reward_models.scoring import IMAGES, bound, score
from tests.rewards.reward_models.tiny_qwen import SIZE, make_qwen, save_qwen

AREA = 4 * 28 * 28
PROMPTS = ["a red dog", "a blue bus on the man", "a red dog", "a cat " * 30]
TEMPLATES = {
    "template": "rate how well this shows {text_prompt} : <|Reward|> END",
    "following": "how well this follows {text_prompt} : <|Reward|> END",
    "quality": "how good this looks {text_prompt} <|Reward|> END END",
}


@pytest.fixture(autouse=True)
def small_images(monkeypatch):
    """Four image tokens instead of 256: the tiny models run on a CPU."""
    monkeypatch.setattr(rank_model, "AREA", AREA)


def random_head(prefix):
    layers = {"0": (32, 1024), "3": (1024, 16), "5": (16, 2)}
    weights = {f"{prefix}.{n}.weight": torch.randn(to, of) / of**0.5 for n, (of, to) in layers.items()}
    return weights | {f"{prefix}.{n}.bias": torch.randn(to) for n, (_, to) in layers.items()}


def older_layout(weights):
    """transformers up to 4.51: the vision encoder is not inside of `model.`."""
    return {
        n.replace("model.visual.", "visual.").replace("model.language_model.", "model."): v for n, v in weights.items()
    }


@pytest.fixture(scope="module")
def hps(tmp_path_factory):
    return checkpoint(tmp_path_factory.mktemp("hps"), "qwen2_vl", random_head("rm_head"), older_layout)


@pytest.fixture(scope="module")
def edit(tmp_path_factory):
    torch.manual_seed(5)
    heads = random_head("rm_heads.head_0") | random_head("rm_heads.head_1")
    return checkpoint(tmp_path_factory.mktemp("edit"), "qwen2_5_vl", heads, dict)


def checkpoint(folder, kind, heads, layout):
    """The base model's folder, the published file, the templates: as options, with what by_hand needs."""
    base = save_qwen(folder / "base", kind)
    torch.manual_seed(1)
    weights = layout({name: torch.randn_like(v) * 0.3 + v for name, v in base.state_dict().items()}) | heads
    save_file({name: value.contiguous() for name, value in weights.items()}, folder / "published.safetensors")
    for name, text in TEMPLATES.items():
        (folder / f"{name}.txt").write_text(text)
    tuned = make_qwen(kind)
    tuned.load_state_dict({n: torch.zeros_like(v) for n, v in tuned.state_dict().items()})
    names = {own: layout({own: 0}).popitem()[0] for own in tuned.state_dict()}
    tuned.load_state_dict({own: weights[name] for own, name in names.items()})
    options = {"path": str(folder / "published.safetensors"), "base": str(folder / "base")}
    return options, folder, tuned, weights


def by_hand(made, prefix, images, text):
    """The published forward pass of one conversation: image features as embeddings, positions one by one, the head."""
    _, folder, tuned, weights = made
    inputs = QwenInputs.open(str(folder / "base"), key="k")
    inputs.tokenizer.add_tokens(["<|Reward|>"], special_tokens=True)
    shown = [image.convert("RGB").resize(fitting_size(image.size, 28, AREA)) for image in images]
    pixels = inputs.image_processor(images=shown, do_resize=False, return_tensors="pt")
    chat = "<|im_start|>user " + "<|vision_start|><|image_pad|><|vision_end|>" * len(images) + text
    ids = []
    counts = iter((pixels["image_grid_thw"].prod(1) // 4).tolist())
    for token in inputs.tokenizer(chat + "<|im_end|><|im_start|>assistant ")["input_ids"]:
        ids += [token] * (next(counts) if token == 5 else 1)
    ids = torch.tensor([ids])
    with torch.no_grad():
        found = tuned.model.get_image_features(pixels["pixel_values"], pixels["image_grid_thw"]).pooler_output
        embedded = tuned.model.language_model.embed_tokens(ids)
        embedded[ids == 5] = torch.cat(tuple(found))
        states = tuned.model.language_model(inputs_embeds=embedded).last_hidden_state[0]
    (place,) = (ids[0] == SIZE).nonzero()
    state = states[place[0]]
    for n in ("0", "3", "5"):
        state = F.linear(state, weights[f"{prefix}.{n}.weight"], weights[f"{prefix}.{n}.bias"])
        state = state.relu() if n != "5" else state
    return float(state[0])


def test_hps_v3_is_the_mean_that_the_head_predicts_at_the_reward_token(hps):
    options, folder, _, _ = hps
    options = {**options, "template": str(folder / "template.txt")}
    texts = [TEMPLATES["template"].replace("{text_prompt}", prompt) for prompt in PROMPTS]
    wanted = [by_hand(hps, "rm_head", [image], text) for image, text in zip(IMAGES, texts, strict=True)]
    assert score(bound("hps_v3", **options), prompts=PROMPTS) == pytest.approx(wanted, abs=1e-4)
    assert score(bound("hps_v3", **options, batch_size=1), prompts=PROMPTS) == pytest.approx(wanted, abs=1e-4)
    assert len({round(value, 4) for value in wanted}) == 4
    assert score(bound("hps_v3", **options), [], []) == []
    assert bound("hps_v3", **options).function._model.model.dtype == torch.float32, "auto on a CPU"


def test_edit_reward_is_the_mean_of_two_heads_on_source_and_edit(edit):
    options, folder, _, _ = edit
    options |= {name: str(folder / f"{name}.txt") for name in ("following", "quality")}
    sources = IMAGES[::-1]

    def wanted(name, prefix):
        texts = [TEMPLATES[name].replace("{text_prompt}", prompt) for prompt in PROMPTS]
        rows = zip(sources, IMAGES, texts, strict=True)
        return [by_hand(edit, prefix, [source, edited], text) for source, edited, text in rows]

    following, quality = wanted("following", "rm_heads.head_0"), wanted("quality", "rm_heads.head_1")
    asked = {"instruction": list(PROMPTS), "images": [[source] for source in sources]}

    def call(**settings):
        return bound("edit_reward", **options, **settings)(prompts=[], completions=shows(*IMAGES), **asked)

    assert call() == pytest.approx([(a + b) / 2 for a, b in zip(following, quality, strict=True)], abs=1e-4)
    assert call(score="following", batch_size=3) == pytest.approx(following, abs=1e-4)
    assert call(score="quality") == pytest.approx(quality, abs=1e-4)
    asked = {"instruction": [None, "a cat", "a cat"], "images": [[sources[0]], None, [sources[2]]]}
    found = bound("edit_reward", **options)(prompts=[], completions=shows(*IMAGES[:3]), **asked)
    assert found[:2] == [None, None] and found[2] is not None


@pytest.mark.parametrize(
    ("size", "wanted"),
    [((1024, 1024), (448, 448)), ((512, 1024), (308, 616)), ((64, 64), (448, 448)), ((60, 32), (616, 336)),
     ((448, 448), (448, 448)), ((1000, 28), (2688, 84)), ((90000, 28), (25396, 28))],
)  # fmt: skip
def test_images_fit_the_published_number_of_pixels(size, wanted):
    assert fitting_size(size, 28, 256 * 28 * 28) == wanted


def test_the_template_must_have_its_two_places(tmp_path, hps):
    _, folder, _, _ = hps
    for text in ("no places", "{text_prompt}", "{text_prompt} <|Reward|> <|Reward|>"):
        (tmp_path / "t.txt").write_text(text)
        with pytest.raises(
            ConfigError, match=r"template=.*of 'hps_v3' must contain \{text_prompt\} and <\|Reward\|> once"
        ):
            HPSv3(template=str(tmp_path / "t.txt"))
    with pytest.raises(ConfigError, match=r"template=.*cannot be read: FileNotFoundError.*reward-models.md"):
        HPSv3(template=str(tmp_path / "none.txt"))
    with pytest.raises(ConfigError, match="template=None of 'hps_v3' is not a file with the published prompt"):
        HPSv3()
    with pytest.raises(ConfigError, match="quality=None of 'edit_reward'"):
        EditReward(path="x", following=str(folder / "following.txt"))
    assert EditReward(path="x", score="following", following=str(folder / "following.txt"))
    with pytest.raises(ConfigError, match="score='best' of 'edit_reward' must be one of mean, following, quality"):
        EditReward(path="x", score="best")


def test_special_tokens_in_a_prompt_are_rejected(hps):
    options, folder, _, _ = hps
    reward = bound("hps_v3", **options, template=str(folder / "template.txt"))
    reward.function.check_row({"prompt": "a dog | a cat <b>"})
    with pytest.raises(DataError, match=r"column 'prompt' contains '<\|Reward\|>'"):
        reward.function.check_row({"prompt": "a dog <|Reward|>"})
    with pytest.raises(RewardError, match="1 images has 2 placeholders"):
        score(reward, IMAGES[:1], ["a <|image_pad|> dog"])


def test_incomplete_weights_and_other_bases_are_named(hps, tmp_path):
    options, folder, _, weights = hps
    template = str(folder / "template.txt")

    def load(changed, base=options["base"]):
        save_file(changed, tmp_path / "w.safetensors")
        bound("hps_v3", path=str(tmp_path / "w.safetensors"), base=base, template=template)

    for gone, named in (
        ("rm_head.3.bias", "lacks weights.*3.bias"),
        ("model.layers.1.mlp.up_proj.weight", "lacks weights.*language_model.layers.1.mlp.up_proj.weight"),
        ("model.embed_tokens.weight", "lacks weights.*embed_tokens"),
        ("visual.blocks.0.norm1.bias", "lacks weights.*visual.blocks.0.norm1.bias"),
    ):
        with pytest.raises(ConfigError, match=rf"options.path of 'hps_v3'.*{named}"):
            load({name: value for name, value in weights.items() if name != gone})
    with pytest.raises(ConfigError, match=r"weights that the model does not have: extra"):
        load({**weights, "extra": torch.zeros(1)})
    short = {**weights, "model.embed_tokens.weight": weights["model.embed_tokens.weight"][:SIZE].clone()}
    with pytest.raises(ConfigError, match=f"embeddings of {SIZE} tokens, but the reward token .* is number {SIZE}"):
        load(short)
    with pytest.raises(ConfigError, match=r"options.base of 'hps_v3'.*is a clip model, but must be one of qwen2_vl"):
        load(weights, base=str(save_clip(tmp_path / "clip")))
