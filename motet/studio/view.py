"""The HTML of results and messages. What people and models wrote is escaped; images are `data:` URIs."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from PIL import Image

from motet.core.errors import MotetError
from motet.core.printable import printable, without_passwords
from motet.core.registry import first_line
from motet.core.trajectory import ImageAct
from motet.studio.session import PolicyOutput, StudioRequest

TEMPLATES = Path(__file__).parent / "templates"
LONGEST = 768
"""Pixels of the longer side of an image on the page; larger ones are scaled down."""


def show_outputs(title: str, outputs: Sequence[PolicyOutput], request: StudioRequest, *, is_binary: bool) -> str:
    """The acts of every policy in order, side by side."""
    settings, prompt = request.settings, request.prompt_of_score
    scored = any(output.mean_score is not None for output in outputs)
    unscored = settings.reward is not None and prompt is not None and any(output.images for output in outputs)
    facts = [f"seed {settings.seed}, the same noise for every policy" if len(outputs) > 1 else f"seed {settings.seed}"]
    if unscored and not scored and not any(output.problem for output in outputs):
        facts.append(f"the reward {settings.reward} does not apply to this prompt")
    return _render(
        "output.html",
        title=_text(title),
        subtitle=_text("; ".join(facts)),
        outputs=outputs,
        reward=_text(settings.reward or ""),
        is_binary=is_binary,
        source=request.columns.get("image"),
        several_acts=any(len(one.acts) > 1 for output in outputs for one in output.generations),
    )


def show_problem(error: Exception) -> str:
    """What is wrong, and how to fix it; of an error that is not motet's, its first line."""
    if isinstance(error, MotetError):
        return _render("problem.html", problem=error.problem, fix=error.fix)
    fix = "see the terminal of motet studio for the traceback."
    return _render("problem.html", problem=f"The policy failed: {first_line(error)}", fix=fix)


def show_header(policies: Sequence[tuple[str, str]]) -> str:
    """The name of the page, and where each policy is from."""
    return _render("header.html", policies=policies)


def style() -> str:
    """The style sheet of the page."""
    return (TEMPLATES / "style.css").read_text(encoding="utf-8")


def _render(template: str, **values: object) -> str:
    return _environment().get_template(template).render(**values)


@lru_cache
def _environment() -> Environment:
    made = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.globals.update(
        text=_text,
        number=lambda value: f"{value:.3g}",
        uri=_uri,
        is_image=lambda act: isinstance(act, ImageAct),
        problem=lambda error: Markup(show_problem(error)),
    )
    return made


def _text(text: str) -> Markup:
    """Text with visible control characters, as HTML in which templates of the page's framework stand for themselves."""
    escaped = str(Markup.escape(without_passwords(printable(text))))
    return Markup(escaped.replace("{", "&#123;").replace("$", "&#36;"))


def _uri(image: Image.Image) -> str:
    shown, encoded = image.convert("RGB"), io.BytesIO()
    shown.thumbnail((LONGEST, LONGEST))
    shown.save(encoded, "PNG")
    return f"data:image/png;base64,{base64.b64encode(encoded.getvalue()).decode('ascii')}"
