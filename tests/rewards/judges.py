"""What tests of rewards with models share: tiny random checkpoints of the real classes, a local chat server."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from safetensors.torch import save_file

VOCABULARY = "[PAD] [UNK] [CLS] [SEP] [DEC] [ENC] a an the two three red blue green dog cat bus man sits runs on under"
WORDS = VOCABULARY.split()


def image(colour: str | tuple[int, int, int] = "red", size: tuple[int, int] = (20, 16)) -> Image.Image:
    """A solid image with a white corner, not square."""
    canvas = Image.new("RGB", size, colour)
    canvas.paste("white", (0, 0, size[0] // 4, size[1] // 4))
    return canvas


def shows(*images: Image.Image) -> list[list[dict[str, Any]]]:
    """Completions that each drew one image."""
    return [[{"role": "assistant", "name": "image", "content": [{"type": "image", "image": p}]}] for p in images]


def says(*texts: str) -> list[list[dict[str, Any]]]:
    """Completions that each said one text."""
    return [[{"role": "assistant", "name": "answer", "content": text}] for text in texts]


def save_tokenizer(folder: Path, **names: str) -> None:
    """A word-level tokenizer of `VOCABULARY`; `names` of further special tokens."""
    from transformers import BertTokenizerFast

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.txt").write_text("\n".join(WORDS))
    BertTokenizerFast(vocab={word: n for n, word in enumerate(WORDS)}, **names).save_pretrained(folder)


def save_bert(folder: Path) -> Path:
    """A random BERT encoder with two layers of 16 features, and its tokenizer."""
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(WORDS), hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=32, initializer_range=0.5,
    )  # fmt: skip
    BertModel(config).save_pretrained(folder)
    save_tokenizer(folder)
    return folder


def save_blip(folder: Path) -> Path:
    """A random BLIP captioner of images 16 pixels wide."""
    from transformers import BlipConfig, BlipForConditionalGeneration
    from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil

    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    text = {"vocab_size": len(WORDS), "encoder_hidden_size": 16, "max_position_embeddings": 32, "bos_token_id": 4,
            "eos_token_id": 3, "sep_token_id": 3, "pad_token_id": 0, "initializer_range": 0.5}  # fmt: skip
    config = BlipConfig(
        text_config={**sizes, **text},
        vision_config={**sizes, "image_size": 16, "patch_size": 4, "initializer_range": 0.5},
        projection_dim=16,
    )
    model = BlipForConditionalGeneration(config)
    with torch.no_grad():
        model.text_decoder.cls.predictions.bias[3] = -50.0  # a random model would end at once
    model.save_pretrained(folder)
    save_tokenizer(folder, bos_token="[DEC]")
    BlipImageProcessorPil(size={"height": 16, "width": 16}).save_pretrained(folder)
    return folder


def save_clip(folder: Path) -> Path:
    """A random CLIP of images 16 pixels wide."""
    from transformers import CLIPConfig, CLIPModel
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    text = {"vocab_size": len(WORDS), "max_position_embeddings": 16, "eos_token_id": 3, "bos_token_id": 2}
    config = CLIPConfig(
        text_config={**sizes, **text, "initializer_range": 1.0},
        vision_config={**sizes, "image_size": 16, "patch_size": 4},
        projection_dim=8,
    )
    CLIPModel(config).save_pretrained(folder)
    save_tokenizer(folder)
    CLIPImageProcessorPil(size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16}).save_pretrained(folder)
    return folder


def save_resnet(folder: Path) -> tuple[Path, Path]:
    """A random ResNet of two stages with 6 and 8 channels, and LPIPS weights for it."""
    from transformers import ResNetBackbone, ResNetConfig

    torch.manual_seed(0)
    config = ResNetConfig(
        embedding_size=6, hidden_sizes=[6, 8], depths=[1, 1], layer_type="basic", out_features=["stage1", "stage2"]
    )
    ResNetBackbone(config).save_pretrained(folder)
    save_file({"0": torch.rand(6), "1": torch.rand(8)}, folder / "lpips.safetensors")
    return folder, folder / "lpips.safetensors"


@dataclass(frozen=True)
class Raw:
    """A body sent as it is: `pause` seconds between its bytes (with `head`: of the headers), `length` as promised."""

    body: bytes
    length: int | None = None
    pause: float = 0.0
    head: bool = False


class ChatServer(ThreadingHTTPServer):
    """Answers chat completions with `reply(request)`: a text, a status, or raw bytes. `seen` are headers and bodies."""

    daemon_threads = True
    reply: Any = staticmethod(lambda request: "a red dog")

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.seen: list[tuple[dict[str, str], dict[str, Any]]] = []
        self.busy, self.busiest, self.lock = 0, 0, threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        server: Any = self.server
        with server.lock:
            server.busy += 1
            server.busiest = max(server.busiest, server.busy)
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        server.seen.append(({**self.headers, "path": self.path}, body))
        found = server.reply(body)
        with server.lock:
            server.busy -= 1
        if isinstance(found, Raw):
            self._send_raw(found)
            return
        status, text = (found, b"") if isinstance(found, int) else (200, found)
        if isinstance(text, str):
            text = json.dumps({"choices": [{"message": {"role": "assistant", "content": text}}]}).encode()
        self.send_response(status)
        if status == 302:
            self.send_header("Location", "/elsewhere")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def _send_raw(self, raw: Raw) -> None:
        lines = f"HTTP/1.0 200 OK\r\nContent-Length: {raw.length or len(raw.body)}\r\n\r\n".encode()
        slow, quick = (lines + raw.body, b"") if raw.head else (raw.body, lines)
        with suppress(OSError):  # the client may have gone
            self.wfile.write(quick)
            for place in range(len(slow)) if raw.pause else ():
                time.sleep(raw.pause)
                self.wfile.write(slow[place : place + 1])
            self.wfile.write(b"" if raw.pause else slow)

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def chat_server() -> Iterator[ChatServer]:
    """A server on this machine, on a free port."""
    server = ChatServer()
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
