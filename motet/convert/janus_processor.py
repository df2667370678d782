"""Convert tokenizer, processor and chat template between DeepSeek's Janus folders and transformers' `JanusProcessor`.

Special tokens are matched by name, because their ids differ between the sizes. DeepSeek's files list the image tokens
in processor_config.json (`image_tag` and so on) and implement the conversation format in code (`sft_format`
"deepseek"), which `chat_template` writes as a template: a user turn ends with two newlines, an assistant turn with EOS.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import JanusProcessor, PreTrainedTokenizerFast

from motet.core.errors import CheckpointError
from motet.core.registry import first_line
from motet.policies.janus.checkpoint import open_processor
from motet.policies.janus.images import ImageProcessor
from motet.weights.hf_output import suppress_hf_output
from motet.weights.safetensors_io import read_json, write_json

TAGS = {
    "image_tag": "<image_placeholder>",
    "image_start_tag": "<begin_of_image>",
    "image_end_tag": "<end_of_image>",
    "pad_tag": "<｜▁pad▁｜>",
}
"""Defaults of DeepSeek's processor."""
_PREPROCESSOR_KEYS = ("do_normalize", "image_mean", "image_std", "min_size", "rescale_factor")

ROLES = {"deepseek": ("<|User|>", "<|Assistant|>"), "deepseek_old": ("User", "Assistant")}
"""Names of the user and the assistant in each conversation format; those of the first are special tokens."""

# Consecutive texts are joined by a space; images have their own lines. An empty turn has no space after its colon and
# no end marker.
_CHAT_TEMPLATE = (
    "{%- for message in messages -%}"
    "{%- set role = message['role'] | lower -%}"
    "{%- set turn = namespace(text='') -%}"
    "{%- for part in message['content'] -%}"
    "{%- if part['type'] == 'image' -%}"
    "{%- set line = '' if loop.first or loop.previtem['type'] == 'image' else '\n' -%}"
    "{%- set turn.text = turn.text + line + '<image_placeholder>' + ('' if loop.last else '\n') -%}"
    "{%- else -%}"
    "{%- set space = ' ' if not loop.first and loop.previtem['type'] == 'text' else '' -%}"
    "{%- set turn.text = turn.text + space + part['text'] -%}"
    "{%- endif -%}"
    "{%- endfor -%}"
    "{%- set text = turn.text | trim -%}"
    "{{ {'user': '<|User|>', 'assistant': '<|Assistant|>'}.get(role, message['role'].capitalize()) + ':' }}"
    "{%- if text -%}"
    "{{ ' ' + text }}"
    "{%- if not loop.last or add_generation_prompt -%}"
    "{{ '\n\n' if role == 'user' else '<｜end▁of▁sentence｜>' }}"
    "{%- endif -%}"
    "{%- endif -%}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ '<|Assistant|>:' }}{%- endif -%}"
)


def chat_template(sft_format: str, image_tag: str) -> str:
    """A conversation format of DeepSeek's code (a key of ROLES) as a Jinja chat template."""
    template = _CHAT_TEMPLATE.replace("<image_placeholder>", image_tag)
    for default, role in zip(ROLES["deepseek"], ROLES[sft_format], strict=True):
        template = template.replace(default, role)
    return template


def read_processor(folder: Path) -> JanusProcessor:
    """The processor of a folder in DeepSeek's layout; the caller sets its `num_image_tokens` from the model.

    Raises CheckpointError if a file is missing, or a special token is not in the vocabulary.
    """
    settings = read_json(folder / "processor_config.json") if (folder / "processor_config.json").is_file() else {}
    preprocessor = read_json(folder / "preprocessor_config.json")
    named = read_json(folder / "tokenizer_config.json")
    tags = {tag: settings.get(tag, default) for tag, default in TAGS.items()}
    side = preprocessor.get("image_size")
    if not isinstance(side, int):
        raise _error(folder, f"has image_size={side!r} in preprocessor_config.json")
    try:
        with suppress_hf_output():
            tokenizer = PreTrainedTokenizerFast(
                tokenizer_file=str(folder / "tokenizer.json"),
                bos_token=_content(named.get("bos_token")),
                eos_token=_content(named.get("eos_token")),
                pad_token=tags["pad_tag"],
                extra_special_tokens=_special_image_tokens(tags),
                model_max_length=named.get("model_max_length", 16384),
                padding_side="left",
                clean_up_tokenization_spaces=named.get("clean_up_tokenization_spaces", False),
            )
            images = ImageProcessor(
                size={"height": side, "width": side},
                size_rounding="down",
                **{key: preprocessor[key] for key in _PREPROCESSOR_KEYS if key in preprocessor},
            )
    except Exception as error:  # tokenizers and transformers each raise their own errors for a broken file
        raise _error(
            folder, f"has a tokenizer or processor that cannot be read: {first_line(error).rstrip('.')}"
        ) from error
    _check_tokens(folder, tokenizer, tags)
    template = chat_template(_read_format(folder, settings), tags["image_tag"])
    return JanusProcessor(images, tokenizer, chat_template=template, use_default_system_prompt=True)


def write_processor(source: Path, target: Path, num_image_tokens: int) -> None:
    """Write the tokenizer and processor files of a transformers folder in DeepSeek's layout into `target`."""
    try:
        with suppress_hf_output():
            tokenizer: Any = PreTrainedTokenizerFast.from_pretrained(str(source))
            images: Any = ImageProcessor.from_pretrained(str(source))
        tags = {
            "image_tag": tokenizer.image_token,
            "image_start_tag": tokenizer.boi_token,
            "image_end_tag": tokenizer.eoi_token,
            "pad_tag": tokenizer.pad_token,
        }
    except Exception as error:  # as above, and AttributeError for a tokenizer without image tokens
        raise _error(
            source, f"has a tokenizer or processor that cannot be read: {first_line(error).rstrip('.')}"
        ) from error
    texts = {"bos_token": tokenizer.bos_token, "eos_token": tokenizer.eos_token, "pad_token": tokenizer.pad_token}
    tokenizer_config = {
        **texts,
        "add_bos_token": True,
        "add_eos_token": False,
        "clean_up_tokenization_spaces": tokenizer.clean_up_tokenization_spaces,
        "legacy": True,
        "model_max_length": tokenizer.model_max_length,
        "tokenizer_class": "LlamaTokenizerFast",
    }
    kinds = {"image_processor_type": "VLMImageProcessor", "processor_class": "VLChatProcessor"}
    preprocessor = {key: getattr(images, key) for key in _PREPROCESSOR_KEYS} | {"image_size": images.size["height"]}
    processor = {
        **tags,
        "add_special_token": False,
        "ignore_id": -100,
        "mask_prompt": True,
        "num_image_tokens": num_image_tokens,
        "processor_class": "VLChatProcessor",
        "sft_format": _detect_format(source, tags["image_tag"], tokenizer),
    }
    shutil.copyfile(source / "tokenizer.json", target / "tokenizer.json")
    write_json(target / "tokenizer_config.json", tokenizer_config)
    write_json(target / "special_tokens_map.json", texts)
    write_json(target / "preprocessor_config.json", kinds | preprocessor)
    write_json(target / "processor_config.json", processor)


def _read_format(folder: Path, settings: Mapping[str, Any]) -> str:
    """The conversation format of a folder.

    Before Janus-Pro "deepseek" meant today's "deepseek_old". It still does for a vocabulary without tokens for the
    roles, with which Janus-1.3B was trained.
    """
    sft_format = settings.get("sft_format", "deepseek")
    if sft_format not in ROLES:
        raise _error(
            folder, f"has sft_format={sft_format!r} in processor_config.json; supported are {' and '.join(ROLES)}"
        )
    if settings.get("add_special_token", False):
        raise _error(folder, "has add_special_token=true in processor_config.json, which no published Janus has")
    stored = PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json")).get_vocab()
    missing = [role for role in ROLES["deepseek"] if role not in stored]
    if sft_format == "deepseek" and len(missing) == 1:
        raise _error(folder, f"has a tokenizer whose vocabulary lacks {missing[0]!r}")
    return "deepseek_old" if missing else sft_format


def _detect_format(source: Path, image_tag: str, tokenizer: Any) -> str:
    """The conversation format that renders as the folder's chat template does. Raises CheckpointError if none does."""
    processor = open_processor(str(source), 0)
    template: Any = processor.chat_template or tokenizer.chat_template
    image, texts = {"type": "image"}, [{"type": "text", "text": text} for text in "abc"]
    turns = [("user", [image, texts[0]]), ("assistant", [texts[1]]), ("user", [texts[2]])]
    chat = [{"role": role, "content": content} for role, content in turns]
    try:
        renderings = [
            processor.apply_chat_template(chat, chat_template=one, add_generation_prompt=True, tokenize=False)
            for one in (template, *(chat_template(name, image_tag) for name in ROLES))
        ]
    except Exception as error:  # a template may raise anything
        raise _error(source, f"has a chat template that cannot be rendered: {first_line(error)}") from error
    for name, rendering in zip(ROLES, renderings[1:], strict=True):
        if rendering == renderings[0]:
            return name
    raise _error(source, f"has a chat template that is not a conversation format of DeepSeek's ({', '.join(ROLES)})")


def _special_image_tokens(tags: Mapping[str, str]) -> dict[str, str]:
    return {
        "image_token": tags["image_tag"],
        "boi_token": tags["image_start_tag"],
        "eoi_token": tags["image_end_tag"],
    }


def _content(token: Any) -> Any:
    """A token's text: files contain it as a string, or as an object with its flags."""
    return token.get("content") if isinstance(token, Mapping) else token


def _check_tokens(folder: Path, tokenizer: PreTrainedTokenizerFast, tags: Mapping[str, str]) -> None:
    """Raise CheckpointError unless the special tokens are in the vocabulary.

    A tokenizer would add missing ones with new ids, for which the model has no embeddings.
    """
    stored = PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json")).get_vocab()
    named = {"bos_token": tokenizer.bos_token, "eos_token": tokenizer.eos_token, **tags}
    missing = [f"{role}={token!r}" for role, token in named.items() if token not in stored]
    if missing:
        raise _error(folder, f"has a tokenizer whose vocabulary lacks {', '.join(missing)}")


def _error(folder: Path, problem: str) -> CheckpointError:
    return CheckpointError(
        f"{str(folder)!r} {problem}.", fix="restore the tokenizer and processor files of this Janus checkpoint."
    )
