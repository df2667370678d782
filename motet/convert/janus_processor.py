"""Tokenizer, processor and chat template of DeepSeek's Janus folders <-> those of transformers' `JanusProcessor`.

Special tokens go by name, never by id: the ids differ between the sizes. DeepSeek's files name the pictures' tokens in
processor_config.json (`image_tag` and so on) and keep the conversation format in code (`sft_format` "deepseek"), which
`chat_template` says as a template: a turn of the user ends with two newlines, one of the assistant with EOS.
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
"""How a conversation format names the user and the assistant; the first one's names are special tokens."""

# Texts that follow each other are joined by a space, and pictures stand on lines of their own. An empty turn has
# neither a space after its colon nor an end.
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
    """A conversation format of DeepSeek's code (ROLES) as a chat template."""
    named = _CHAT_TEMPLATE.replace("<image_placeholder>", image_tag)
    for written, role in zip(ROLES["deepseek"], ROLES[sft_format], strict=True):
        named = named.replace(written, role)
    return named


def read_processor(folder: Path) -> JanusProcessor:
    """The processor of a folder in DeepSeek's layout; its `num_image_tokens` is left to who knows the model.

    Raises CheckpointError when a file is missing, or a special token is not in the vocabulary.
    """
    settings = read_json(folder / "processor_config.json") if (folder / "processor_config.json").is_file() else {}
    preprocessor = read_json(folder / "preprocessor_config.json")
    named = read_json(folder / "tokenizer_config.json")
    tags = {tag: settings.get(tag, default) for tag, default in TAGS.items()}
    side = preprocessor.get("image_size")
    if not isinstance(side, int):
        raise _refusal(folder, f"has image_size={side!r} in preprocessor_config.json")
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
    except Exception as error:  # tokenizers and transformers each have their kinds for a broken file
        raise _refusal(
            folder, f"has a tokenizer or processor that cannot be read: {first_line(error).rstrip('.')}"
        ) from error
    _require_tokens(folder, tokenizer, tags)
    template = chat_template(_format_of(folder, settings), tags["image_tag"])
    return JanusProcessor(images, tokenizer, chat_template=template, use_default_system_prompt=True)


def write_processor(source: Path, target: Path, num_image_tokens: int) -> None:
    """The files of a transformers folder, as DeepSeek's code reads them, into the folder `target`."""
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
    except Exception as error:  # the same kinds; AttributeError for a tokenizer without picture tokens
        raise _refusal(
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
        "sft_format": _format_written(source, tags["image_tag"], tokenizer),
    }
    shutil.copyfile(source / "tokenizer.json", target / "tokenizer.json")
    write_json(target / "tokenizer_config.json", tokenizer_config)
    write_json(target / "special_tokens_map.json", texts)
    write_json(target / "preprocessor_config.json", kinds | preprocessor)
    write_json(target / "processor_config.json", processor)


def _format_of(folder: Path, settings: Mapping[str, Any]) -> str:
    """The conversation format that a folder asks for. "deepseek" meant the words of "deepseek_old" before Janus-Pro:
    in a vocabulary without tokens for the roles it still does, which is how Janus-1.3B was trained.
    """
    named = settings.get("sft_format", "deepseek")
    if named not in ROLES:
        raise _refusal(folder, f"has sft_format={named!r} in processor_config.json; motet knows {' and '.join(ROLES)}")
    if settings.get("add_special_token", False):
        raise _refusal(folder, "has add_special_token=true in processor_config.json, which no published Janus has")
    stored = PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json")).get_vocab()
    missing = [role for role in ROLES["deepseek"] if role not in stored]
    if named == "deepseek" and len(missing) == 1:
        raise _refusal(folder, f"has a tokenizer whose vocabulary lacks {missing[0]!r}")
    return "deepseek_old" if missing else named


def _format_written(source: Path, image_tag: str, tokenizer: Any) -> str:
    """The conversation format whose rendering is that of the folder's chat template. Raises CheckpointError if none."""
    processor = open_processor(str(source), 0)
    template: Any = processor.chat_template or tokenizer.chat_template
    shown, words = {"type": "image"}, [{"type": "text", "text": text} for text in "abc"]
    turns = [("user", [shown, words[0]]), ("assistant", [words[1]]), ("user", [words[2]])]
    chat = [{"role": role, "content": content} for role, content in turns]
    try:
        renderings = [
            processor.apply_chat_template(chat, chat_template=one, add_generation_prompt=True, tokenize=False)
            for one in (template, *(chat_template(name, image_tag) for name in ROLES))
        ]
    except Exception as error:  # a template may hold anything
        raise _refusal(source, f"has a chat template that cannot be rendered: {first_line(error)}") from error
    for name, rendering in zip(ROLES, renderings[1:], strict=True):
        if rendering == renderings[0]:
            return name
    raise _refusal(source, f"has a chat template that is none of DeepSeek's conversation formats ({', '.join(ROLES)})")


def _special_image_tokens(tags: Mapping[str, str]) -> dict[str, str]:
    return {
        "image_token": tags["image_tag"],
        "boi_token": tags["image_start_tag"],
        "eoi_token": tags["image_end_tag"],
    }


def _content(token: Any) -> Any:
    """A token's text: files name it plainly, or as an object with its flags."""
    return token.get("content") if isinstance(token, Mapping) else token


def _require_tokens(folder: Path, tokenizer: PreTrainedTokenizerFast, tags: Mapping[str, str]) -> None:
    """A tokenizer takes any special token in, with a new id that the model has no embedding for."""
    stored = PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json")).get_vocab()
    named = {"bos_token": tokenizer.bos_token, "eos_token": tokenizer.eos_token, **tags}
    missing = [f"{role}={token!r}" for role, token in named.items() if token not in stored]
    if missing:
        raise _refusal(folder, f"has a tokenizer whose vocabulary lacks {', '.join(missing)}")


def _refusal(folder: Path, problem: str) -> CheckpointError:
    return CheckpointError(
        f"{str(folder)!r} {problem}.", fix="restore the tokenizer and processor files of this Janus checkpoint."
    )
