"""The studio in a real browser, at the width of a desktop and of a phone."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.rewards.judges import save_clip

ROOT = Path(__file__).parents[2]
BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
SHOTS = os.environ.get("MOTET_SCREENSHOTS")
"""A folder to which the test writes what it saw."""
HOSTILE = "how many? <b>x</b><img src=x onerror=\"document.title='owned'\"> {{ 7*7 }} ${7*7} <script>1</script>"
SECONDS = 90_000  # for a loaded machine

pytestmark = [pytest.mark.slow, pytest.mark.skipif(BROWSER is None, reason="needs chromium")]


class Studio:
    """`motet studio` with these arguments; `address` is where it answers."""

    def __init__(self, *arguments, **environment):
        pytest.importorskip("gradio")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "motet", "studio", *arguments, "--port", "0"],
            cwd=ROOT, env={**os.environ, **environment}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def __enter__(self):
        line = self.process.stdout.readline()
        assert line.startswith("motet studio is at http://127.0.0.1:"), self.process.stderr.read()
        self.address = line.split(" at ")[1].split()[0].rstrip(",")
        return self

    def __exit__(self, *_):
        self.process.kill()

    def stop(self):
        """Ctrl-C ends it within seconds and without a word, also while pages are open."""
        self.process.send_signal(signal.SIGINT)
        out, err = self.process.communicate(timeout=60)
        assert self.process.returncode == 130 and out == "" and err == ""


@pytest.fixture(scope="module")
def address():
    """Where `motet studio` answers with two shipped checkpoints."""
    with Studio("checkpoints/shapes_janus", "--base", "checkpoints/words_janus") as studio:
        yield studio.address
        studio.stop()


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as started:
        opened = started.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield opened
        opened.close()


class Visitor:
    """A person at the page; `elsewhere` are the addresses of other hosts that the page asked for."""

    def __init__(self, browser, address, width, height):
        self.page = browser.new_page(viewport={"width": width, "height": height})
        self.page.set_default_timeout(SECONDS)
        self.elsewhere, self.errors = [], []
        self.page.on("request", lambda request: self._note(request.url, address))
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.goto(address)

    def _note(self, url, address):
        if not url.startswith((address, "data:", "blob:")):
            self.elsewhere.append(url)

    def run(self, task, field, text):
        """Fill in a task's field, press its button, and wait until both policies are done."""
        self.page.fill(f"#{task}-{field} textarea", text)
        self.page.click(f"#{task}-button")
        self.page.locator("#output h2").get_by_text(text, exact=True).wait_for()
        self.page.wait_for_selector('[data-policy="trained"] :is(li, .problem)')

    def open_tab(self, name):
        self.page.get_by_role("tab", name=name).click()

    def texts(self, selector):
        return self.page.locator(selector).all_inner_texts()

    def shoot(self, name):
        if SHOTS:
            self.page.wait_for_timeout(600)  # gradio fades its outputs in
            self.page.screenshot(path=str(Path(SHOTS) / f"{name}.png"))


@pytest.mark.parametrize(("width", "height"), [(1280, 800), (390, 844)])
def test_generate_ask_and_reflect(address, browser, width, height):
    visitor = Visitor(browser, address, width, height)
    page = visitor.page
    page.wait_for_selector("#generate-button")
    assert visitor.texts("button[role=tab]")[:4] == ["Generate", "Ask", "Edit", "Reflect"]

    visitor.run("generate", "prompt", "two red circles")
    assert page.locator('[data-policy="base"] li img').count() == page.locator('[data-policy="trained"] li img').count()
    sizes = page.eval_on_selector_all("#output li img", "all => all.map(one => [one.naturalWidth, one.clientWidth])")
    assert len(sizes) == 8 and all(natural in (32, 48) and shown >= 90 for natural, shown in sizes)
    assert visitor.texts('[data-policy="trained"] li .score') == ["shapes 1"] * 4
    assert visitor.texts('[data-policy="base"] li .score') == ["shapes 0"] * 4
    boxes = [page.locator(f'[data-policy="{one}"]').bounding_box() for one in ("base", "trained")]
    assert boxes[0]["y"] == boxes[1]["y"] and boxes[0]["x"] < boxes[1]["x"]  # side by side on a phone too
    visitor.shoot(f"studio_{width}")

    visitor.open_tab("Ask")
    page.click("#ask-picker input")
    page.get_by_role("option", name="trained 2").click()
    page.wait_for_function("document.querySelector('#ask-image img')?.naturalWidth === 32")
    visitor.run("ask", "question", HOSTILE)
    assert visitor.texts("#output h2") == [HOSTILE]
    assert visitor.texts('[data-policy="trained"] .text')[0].startswith("<think>")
    assert page.locator("#output h2 *").count() == 0 and page.title() == "motet studio"
    assert page.eval_on_selector("#ask-image img", "one => one.naturalWidth") == 32
    visitor.shoot(f"studio_ask_{width}")

    visitor.open_tab("Reflect")
    page.fill("#generations input", "1")
    visitor.run("reflect", "prompt", "a blue square")
    assert visitor.texts('[data-policy="trained"] figcaption') == ["1. draft", "2. critique", "3. revision"]

    page.fill("#reflect-prompt textarea", " ")
    page.click("#reflect-button")
    page.wait_for_selector("#output .problem >> text=The prompt is missing")
    assert page.evaluate("document.documentElement.scrollWidth") <= width  # nothing is cut off
    assert visitor.elsewhere == [] and visitor.errors == []


def test_an_image_that_was_just_generated_is_edited(address, browser):
    visitor = Visitor(browser, address, 1280, 800)
    page = visitor.page
    page.fill("#generations input", "1")
    visitor.run("generate", "prompt", "a red circle")
    visitor.open_tab("Edit")
    page.fill("#edit-instruction textarea", "make the circle blue")
    page.click("#edit-button")
    page.wait_for_selector("#output .problem >> text=image")  # none is given yet
    page.click("#edit-picker input")
    page.get_by_role("option", name="trained 1").click()
    page.wait_for_function("document.querySelector('#edit-image img')?.naturalWidth === 32")
    page.fill("#edit-expected textarea", "a blue circle")
    visitor.run("edit", "instruction", "make the circle blue")
    for policy in ("base", "trained"):
        assert page.locator(f'[data-policy="{policy}"] li img').count() >= 1
        assert visitor.texts(f'[data-policy="{policy}"] li .score')[0].startswith("shapes ")
    assert visitor.elsewhere == [] and visitor.errors == []
    visitor.shoot("studio_edit")


def test_a_file_that_is_no_image_is_a_message(address, browser, tmp_path):
    (tmp_path / "broken.png").write_text("no image")
    visitor = Visitor(browser, address, 1280, 800)
    visitor.open_tab("Ask")
    visitor.page.set_input_files("#ask-image input[type=file]", str(tmp_path / "broken.png"))
    visitor.page.wait_for_selector("#ask-image img", state="attached")
    visitor.page.fill("#ask-question textarea", "what is it?")
    visitor.page.click("#ask-button")
    problem = visitor.page.locator("#output .problem")
    problem.wait_for()
    assert problem.inner_text().startswith("The image: ") and "Traceback" not in problem.inner_text()


def test_other_names_of_the_machine_are_rejected(address):
    httpx = pytest.importorskip("httpx")
    answer = httpx.get(address, headers={"Host": "attacker.example"})
    assert answer.status_code == 400
    policy = httpx.get(address).headers["content-security-policy"]
    assert "default-src 'self'" in policy and "http" not in policy


def test_a_page_with_a_password_and_a_reward_that_is_a_model(browser, tmp_path):
    clip = str(save_clip(tmp_path))
    reward = ["--reward", "clip_score", "--option", f"path={clip}"]
    with Studio("checkpoints/shapes_janus", *reward, "--token-variable", "WORD", WORD="open sesame") as studio:
        visitor = Visitor(browser, studio.address, 1280, 800)
        page = visitor.page
        assert page.locator("#generate-button").count() == 0
        for password in ("wrong", "open sesame"):
            page.get_by_label("username").fill("motet")
            page.get_by_label("password").fill(password)
            page.get_by_role("button", name="Login").click()
            if password == "wrong":
                page.get_by_text("Incorrect Credentials").wait_for()
        page.wait_for_selector("#generate-button")
        page.fill("#generate-prompt textarea", "two red circles")
        page.click("#generate-button")
        page.wait_for_selector("#output li .score")
        scores = [text.split() for text in visitor.texts("#output li .score")]
        assert len(scores) == 4 and {name for name, _ in scores} == {"clip_score"}
        assert len({value for _, value in scores}) > 1 and all(-1 <= float(value) <= 1 for _, value in scores)
        assert visitor.elsewhere == [] and visitor.errors == []
        visitor.shoot("studio_password")
        studio.stop()  # with the page still open
