"""The page's handlers and the command, without a browser."""

import pytest

from motet.core.errors import ConfigError
from motet.studio import page as pages
from motet.studio.server import open_session
from motet.studio.session import StudioSession
from motet.testing import FakePolicy
from tests.runs import motet_command


class Broken(FakePolicy):
    def act(self, requests, sampling):
        raise RuntimeError("<b>broken</b>\nwith a second line")


def settings(reward="shapes"):
    return [0, 2, 1.0, 0.0, 16, 1.0, reward]


def test_gradio_is_named_where_it_is_missing(capsys, monkeypatch):
    monkeypatch.setattr(pages, "find_spec", lambda name: None)
    answer = motet_command(capsys, "studio", "no-such-checkpoint")
    assert answer.code == 2 and answer.err.count("\n") == 1
    assert 'motet studio needs the package gradio. Fix: pip install "motet[studio]"' in answer.err


def test_a_reward_that_needs_more_than_a_prompt_is_rejected():
    with pytest.raises(ConfigError, match="--option is given without --reward"):
        open_session("no-such-checkpoint", None, None, {"path": "x"})
    with pytest.raises(ConfigError, match="path of a CLIP model"):
        open_session("no-such-checkpoint", None, "clip_score", {})


@pytest.fixture(scope="module")
def page():
    pytest.importorskip("gradio")
    page = pages.StudioPage(StudioSession({"fake": FakePolicy()}), {"fake": "a/b"})
    page.build()
    return page


def clicked(page, task, *values):
    """The output and the images after a click on a task's button."""
    fields = len(values) - len(settings())
    *_, result = page._handler(task, fields)(*values)
    return result


def test_a_button_shows_the_images_and_offers_them(page):
    html, images = clicked(page, "generate", "a red circle", *settings())
    assert html.count("<img") == 2 and "mean shapes" in html and list(images) == ["fake 1", "fake 2"]


def test_nothing_is_scored_without_a_reward(page):
    html, _ = clicked(page, "generate", "a red circle", *settings(pages.NO_REWARD))
    assert html.count("<img") == 2 and "score" not in html


@pytest.mark.parametrize(
    ("task", "fields"), [("generate", [""]), ("ask", [None, " "]), ("edit", [None, "make it blue", "", "edit"])]
)
def test_what_is_missing_is_a_message(page, task, fields):
    html, _ = clicked(page, task, *fields, *settings())
    assert 'class="problem"' in html and "is missing" in html


def test_wrong_inputs_are_messages(page, tmp_path):
    (tmp_path / "x.png").write_text("no image")
    html, _ = clicked(page, "ask", str(tmp_path / "x.png"), "what?", *settings())
    assert 'class="problem"' in html and "The image" in html
    html, _ = clicked(page, "generate", "x", -1, *settings()[1:])
    assert "Seed is -1" in html and "whole number from 0" in html


def test_an_error_that_is_not_motets_is_a_message_too(capsys):
    pytest.importorskip("gradio")
    html, _ = clicked(pages.StudioPage(StudioSession({"broken": Broken()}), {}), "generate", "x", *settings())
    assert "RuntimeError: &lt;b&gt;broken" in html and "second line" not in html and "Traceback" not in html
    assert "Traceback" in capsys.readouterr().err
