"""The page: inputs of every task on the left, the outputs of the policies on the right. Needs gradio."""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from PIL import Image

from motet.core.errors import ConfigError, MotetError
from motet.core.images import read_image
from motet.report.terminal import say
from motet.studio.session import MAX_GENERATIONS, MAX_SEED, PolicyOutput, StudioRequest, StudioSession, StudioSettings
from motet.studio.view import show_header, show_outputs, show_problem

NO_REWARD = "none"
_ONE_AT_A_TIME: dict[str, Any] = {
    "concurrency_id": "policy",
    "concurrency_limit": 1,
    "api_visibility": "private",
    "show_progress": "minimal",
    "scroll_to_output": True,
}
_HIDDEN: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
_LABELS = {"generate": "Generate", "ask": "Ask", "edit": "Edit", "reflect": "Reflect"}


def require_gradio() -> Any:
    """The package gradio, with its analytics off. Raises ConfigError where it is not installed."""
    if find_spec("gradio") is None:
        raise ConfigError("motet studio needs the package gradio.", fix='pip install "motet[studio]".')
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    return import_module("gradio")


class StudioPage:
    """The page of a session. `sources` are the labels of the policies and where each is from."""

    def __init__(self, session: StudioSession, sources: Mapping[str, str], *, reward: str | None = "shapes") -> None:
        self.gr = require_gradio()
        self.session, self.sources = session, sources
        self.default_reward = reward if reward in session.scorers.names else NO_REWARD

    def build(self) -> Any:
        """The page as gradio's Blocks."""
        gr = self.gr
        with gr.Blocks(title="motet studio", analytics_enabled=False) as blocks:
            gr.HTML(show_header(list(self.sources.items())))
            with gr.Row():
                with gr.Column(scale=2, min_width=300):
                    tasks = self._tasks()
                    settings = self._settings()
                with gr.Column(scale=3, min_width=320):
                    hint = '<p class="studio-hint">What the policies generate appears here.</p>'
                    output = gr.HTML(hint, elem_id="output")
            self._connect(tasks, settings, output)
        return blocks.queue(default_concurrency_limit=1)

    def _tasks(self) -> dict[str, list[Any]]:
        """The tab of every task that a policy can do: its button, then its inputs as `_request` reads them."""
        parts: dict[str, list[Any]] = {}
        with self.gr.Tabs():
            for task, scenarios in self.session.tasks.items():
                with self.gr.Tab(_LABELS[task], id=task):
                    inputs = getattr(self, f"_{task}")()
                    if len(scenarios) > 1:
                        inputs.append(self.gr.Dropdown(scenarios, value=scenarios[0], label="Scenario"))
                    button = self.gr.Button(_LABELS[task], variant="primary", elem_id=f"{task}-button")
                    parts[task] = [button, *inputs]
        return parts

    def _connect(self, tasks: Mapping[str, list[Any]], settings: list[Any], output: Any) -> None:
        """Give the buttons their functions, and let the user ask about, or edit, what was generated last."""
        generated = self.gr.State({})
        pickers = {task: part for task, parts in tasks.items() for part in parts if part.elem_id == f"{task}-picker"}
        for task, (button, *inputs) in tasks.items():
            fields = [part for part in inputs if part not in pickers.values()]
            handler = self._handler(task, len(fields))
            clicked = button.click(handler, [*fields, *settings], [output, generated], **_ONE_AT_A_TIME)
            if pickers and task != "ask":  # which generates no images
                clicked.then(lambda images: self._offered(images, len(pickers)), generated, list(pickers.values()),
                             **_HIDDEN)  # fmt: skip
            if task in pickers:
                pickers[task].select(lambda name, images: images.get(name), [pickers[task], generated], fields[0],
                                    **_HIDDEN)  # fmt: skip

    def _offered(self, images: Mapping[str, Any], count: int) -> Any:
        updates = [self.gr.Dropdown(list(images), value=None) for _ in range(count)]
        return updates if count > 1 else updates[0]

    def _generate(self) -> list[Any]:
        return [self._textbox("Prompt", "generate-prompt", "two red circles")]

    def _reflect(self) -> list[Any]:
        return [self._textbox("Prompt", "reflect-prompt", "a blue square and a red cross")]

    def _ask(self) -> list[Any]:
        return [*self._image("ask"), self._textbox("Question", "ask-question", "how many circles are there?")]

    def _edit(self) -> list[Any]:
        expected = "What the result shows (optional; images are scored against it)"
        return [
            *self._image("edit"),
            self._textbox("Instruction", "edit-instruction", "make the circle blue"),
            self._textbox(expected, "edit-expected", "two blue circles"),
        ]

    def _textbox(self, label: str, name: str, example: str) -> Any:
        return self.gr.Textbox(label=label, placeholder=example, lines=2, max_length=10_000, elem_id=name)

    def _image(self, task: str) -> list[Any]:
        image = self.gr.Image(
            label="Image", type="filepath", sources=["upload", "clipboard"], format="png", height=220,
            elem_id=f"{task}-image",
        )  # fmt: skip
        image.preprocess = lambda payload: (
            None if payload is None else payload.path
        )  # motet reads it, with its messages
        if "generate" not in self.session.tasks:
            return [image]
        return [image, self.gr.Dropdown([], value=None, label="or one of the last images", elem_id=f"{task}-picker")]

    def _settings(self) -> list[Any]:
        """The components of `_SAMPLING`, and the reward's."""
        gr, images = self.gr, self.session.makes_images
        with gr.Row():
            seed = gr.Number(0, label="Seed", precision=0, minimum=0, maximum=MAX_SEED, min_width=90, elem_id="seed")
            count = gr.Number(
                4,
                label="Generations",
                precision=0,
                minimum=1,
                maximum=MAX_GENERATIONS,
                min_width=90,
                elem_id="generations",
            )
        names = [*self.session.scorers.names, NO_REWARD]
        reward = gr.Dropdown(names, value=self.default_reward, label="Reward", visible=images, elem_id="reward")
        with gr.Accordion("Sampling", open=False):
            hot = self.session.image_temperature
            image = gr.Slider(0, 2, hot, step=0.05, label="Temperature of images", visible=images)
            text = gr.Slider(0, 2, 0, step=0.05, label="Temperature of texts", visible=self.session.makes_texts,
                             info="0: the most likely tokens; an answer is then generated once")  # fmt: skip
            length = gr.Slider(1, 1024, 128, step=1, label="Most tokens of a text (max_tokens)",
                               visible=self.session.makes_texts)  # fmt: skip
            guidance = gr.Slider(1, 10, 1, step=0.5, label="Guidance scale", visible=images, info="1: no guidance")
        return [seed, count, image, text, length, guidance, reward]

    def _handler(self, task: str, count: int) -> Callable[..., Iterator[tuple[Any, Any]]]:
        """The function of a task's button: its inputs and the settings to the output and the images."""

        def handle(*values: Any) -> Iterator[tuple[Any, Any]]:
            unchanged = self.gr.skip()
            try:
                request = self._request(task, values[:count], values[count:])
                for outputs in self.session.run(request):
                    if outputs is None:
                        yield unchanged, unchanged  # gradio ends a generation whose page was closed between two yields
                    else:
                        yield self._shown(request, outputs), _images_of(outputs) or unchanged
            except MotetError as error:
                yield show_problem(error), unchanged
            except Exception as error:  # of a policy or a reward, whatever it is
                say(*"".join(traceback.format_exception(error)).split("\n"), error=True)
                yield show_problem(error), unchanged

        return handle

    def _request(self, task: str, fields: tuple[Any, ...], settings: tuple[Any, ...]) -> StudioRequest:
        scenarios, expected = self.session.tasks[task], None
        scenario = fields[-1] if len(scenarios) > 1 else scenarios[0]
        if task in ("generate", "reflect"):
            columns: dict[str, Any] = {"prompt": fields[0]}
        elif task == "ask":
            columns = {"question": fields[1], **({} if fields[0] is None else {"image": _read(fields[0])})}
        else:
            columns, expected = {"image": _read(fields[0]), "instruction": fields[1]}, fields[2] or None
        if scenario not in scenarios:
            raise ConfigError(f"{scenario!r} is not a scenario of this page.", fix="choose one of the list.")
        *sampling, reward = settings
        values = dict(zip(_SAMPLING, sampling, strict=True))
        chosen = StudioSettings.read(reward if reward in self.session.scorers.names else None, **values)
        if task == "ask" and chosen.text_temperature == 0:
            chosen = replace(chosen, generations=1)
        return StudioRequest(scenario, columns, chosen, expected)

    def _shown(self, request: StudioRequest, outputs: list[PolicyOutput]) -> str:
        title = str(next(value for name, value in request.columns.items() if name != "image"))
        is_binary = self.session.scorers.is_binary.get(request.settings.reward or "", False)
        return show_outputs(title, outputs, request, is_binary=is_binary)


_SAMPLING = ("seed", "generations", "image_temperature", "text_temperature", "max_tokens", "guidance_scale")


def _images_of(outputs: list[PolicyOutput]) -> dict[str, Image.Image]:
    return {name: image for output in outputs for name, image in output.images.items()}


def _read(path: Any) -> Image.Image | None:
    return None if path is None else read_image(str(path), Path(), "The image")
