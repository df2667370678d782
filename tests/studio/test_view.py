"""The HTML of the studio's results: texts are texts, whatever is in them."""

import re

from PIL import Image

from motet.core.errors import DataError
from motet.studio.session import PolicyOutput, StudioRequest, StudioSession, StudioSettings
from motet.studio.view import show_header, show_outputs, show_problem
from motet.testing import FakePolicy

HOSTILE = "<img src=x onerror=alert(1)><script>alert(2)</script> {{ 7*7 }} ${7*7} \x1b[31m \u202e & \"'"


def shown(outputs, columns=None, **settings):
    request = StudioRequest("text_to_image", columns or {"prompt": HOSTILE}, StudioSettings(**settings))
    return show_outputs(str(next(iter(request.columns.values()))), outputs, request, is_binary=True)


def check_is_text(html):
    assert "<script" not in html and "<img src=x" not in html
    assert "&lt;script&gt;" in html and "\x1b" not in html and "\u202e" not in html
    assert "{{" not in html and "${" not in html  # gradio's HTML component would fill them in
    assert "\\x1b[31m" in html and "&#123;&#123; 7*7" in html


def test_prompts_labels_and_messages_are_escaped():
    check_is_text(shown([PolicyOutput(HOSTILE)]))
    check_is_text(show_problem(DataError(HOSTILE, fix=HOSTILE)))
    check_is_text(show_problem(ValueError(HOSTILE)))
    check_is_text(show_header([(HOSTILE, HOSTILE)]))
    check_is_text(shown([PolicyOutput("a", partial=(HOSTILE,))]))
    check_is_text(shown([PolicyOutput("a", problem=DataError(HOSTILE, fix="x"))]))


def test_an_unknown_error_shows_no_traceback():
    html = show_problem(RuntimeError("shapes differ\n  File 'x.py', line 3"))
    assert "RuntimeError: shapes differ" in html and "x.py" not in html and "Fix:" in html


def outputs_of(scenario, columns, **settings):
    session = StudioSession({"base": FakePolicy(), "trained": FakePolicy()})
    request = StudioRequest(scenario, columns, StudioSettings(**settings))
    *_, outputs = session.run(request)
    return show_outputs("x", outputs, request, is_binary=False)


def test_the_acts_are_in_order_beside_each_other():
    html = outputs_of("reflect", {"prompt": "x"}, generations=2, reward="edge_density")
    assert re.findall(r"<figcaption>(.*?)</figcaption>", html) == ["1. draft", "2. critique", "3. revision"] * 4
    assert re.findall(r'data-policy="(\w+)"', html) == ["base", "trained"] and "--policies: 2" in html
    assert html.count('src="data:image/png;base64,') == 8 and html.count('class="score"') == 8
    assert "mean edge_density" in html and "the same noise for every policy" in html


def test_an_input_image_is_shown_and_a_reward_that_does_not_apply_is_named():
    source = Image.new("RGB", (8, 8), "red")
    assert 'alt="the image given"' in outputs_of("answer", {"question": "x", "image": source}, generations=1)
    html = outputs_of("text_to_image", {"prompt": "a cat"}, generations=1, reward="shapes")
    assert "the reward shapes does not apply to this prompt" in html and 'class="score' not in html
