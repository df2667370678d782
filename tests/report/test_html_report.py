"""The report of runs as one HTML page: what it shows, that texts stay texts, and what broken folders leave out."""

import json
import re
import shutil
import subprocess
from html.parser import HTMLParser

import pytest
from PIL import Image

from motet.core.errors import RunFolderError
from motet.report.evaluation_results import Measured, measured
from motet.report.html.plot import Series, line_chart, number, ticks
from motet.report.html.write import report_at_end, write_report
from motet.report.rollouts import encode_image
from tests.runs import motet_command

HOSTILE = (
    "<script>alert(1)</script>\"'`</script><img src=x onerror=alert(2)> data:text/html,<b>x</b> "
    "\x1b[31mred\x1b[0m \u202eoverride {{ 7 * 7 }} {% raw %} <!-- & ]]> \ud800"
)

BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
ATTACK = "<script>document.title = 'owned'</script>"


class Page(HTMLParser):
    """The elements of a page, its text outside of style and script, and the texts of its scripts."""

    def __init__(self, html):
        super().__init__()
        self.elements, self.text, self.scripts, self._inside = [], "", [], ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self._inside = tag

    def handle_endtag(self, tag):
        self._inside = ""

    def handle_data(self, data):
        if self._inside == "script":
            self.scripts.append(data)
        elif self._inside != "style":
            self.text += data


def write_run(folder, text="a red circle", name="match", steps=6, **files):
    """A run folder as a run writes it, with `text` wherever a model or a user writes one."""
    for place in ("rollouts", "fixed_prompts"):
        (folder / place).mkdir(parents=True)
        (folder / place / "step_000002_00_0.webp").write_bytes(encode_image(Image.new("RGB", (32, 32), "#c33")))
    (folder / "recipe.yaml").write_text(
        f"description: a run\nrun: {{steps: {steps}, seed: 3}}\n# {text}", "utf-8", "replace"
    )
    lines = [
        {"step": n, "reward": 0.1 * n, f"rewards/{name}/mean": 0.1 * n, f"rewards/{name}/std": 0.2, "groups": 4.0,
         "time/rollout": 1.0, "time/learn": 2.0, "step_time": 3.5, "seconds": 3.5 * (n + 1), "loss": None}
        for n in range(6)
    ]  # fmt: skip
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "warnings.jsonl").write_text(json.dumps({"step": 0, "message": text}) + "\n")
    failure = {"step": 1, "row": 1, "generation": 0, "where": "reward", "message": text}
    (folder / "failures.jsonl").write_text(2 * (json.dumps(failure) + "\n"))
    turns = [
        {"by": "user", "text": text},
        {"by": "policy", "act": "thought", "kind": "text", "trained": True, "text": text, "advantage": -0.5},
        {"by": "policy", "act": "image", "kind": "image", "trained": False, "image": "step_000002_00_0.webp"},
    ]
    rollout = {"row": 1, "generation": 0, "turns": turns}
    scored = rollout | {"reward": 0.25, "rewards": {name: 0.5, "absent": None}, "weights": {name: 0.5, "absent": 1.0}}
    content = {"step": 2, "track": "", "best": [scored], "worst": [scored | {"reward": 0.0}]}
    (folder / "rollouts" / "step_000002.json").write_text(json.dumps(content))
    (folder / "fixed_prompts" / "step_000002.json").write_text(json.dumps({"prompts": [rollout]}))
    table = {"track": {name: {"mean": 0.4, "interval": 0.1, "greedy": 0.5, "rows": 2.0, "by_row": [0.3, 0.5]}}}
    (folder / "versions.jsonl").write_text('{"step": 0, "motet": "0.0.1"}\n')
    after = {"track": {name: {"mean": 0.7, "interval": 0.1, "greedy": 0.9, "rows": 2.0, "by_row": [0.6, 0.9]}}}
    (folder / "before.json").write_text(json.dumps(table))
    (folder / "summary.json").write_text(json.dumps({"after": after, "images_per_second": 3.0}))
    for file, content in files.items():
        (folder / file.replace("_dot_", ".")).write_text(content)
    return folder


def report(*folders, out):
    return Page(write_report(folders, out).read_text("utf-8"))


def test_the_page_shows_what_a_run_recorded(tmp_path):
    page = report(write_run(tmp_path / "run"), out=tmp_path / "report.html")
    for text in (
        "a run",
        "finished",
        "motet0.0.1",
        "40.0 ± 10.0 %",
        "+35.0 ± 63.5 pts",
        "50.0 % → 90.0 %",
        "−0.50",
        "not trained",
        "thought",
    ):
        assert text.replace("−", "-") in page.text.replace("−", "-"), text
    assert "step 3\n0.2 ± 0.196" in page.text  # 1.96 * 0.2 / sqrt(4 groups)
    assert "a red circle" in page.text and "2 failed rollouts" in page.text and "rollout 28.6 %" in page.text
    images = [attributes for tag, attributes in page.elements if tag == "img"]
    assert len(images) == 3 and all(image["src"].startswith("data:image/webp;base64,") for image in images)
    assert all(image["class"] == "pixels" for image in images)
    assert sum(tag == "svg" and attributes.get("class") == "plot" for tag, attributes in page.elements) == 4


def test_the_number_of_items_and_what_differs_between_recipes(tmp_path):
    table = {"draw": {"overall": 0.5}, "answer": {"overall": 0.5}, "items": {"test": 64, "held_out": 32}}
    table |= {"held_out": {}, "by_item": {}}
    more = table | {"items": {"test": 640, "held_out": 32}}
    one, other = (
        write_run(tmp_path / name, recipe_dot_yaml=f"run: {{steps: 6, seed: {seed}}}\nsecret: {name}{seed}",
                  before_dot_json=json.dumps(items), summary_dot_json=json.dumps({"after": items}))
        for name, seed, items in (("a", 0, table), ("b", 1, more))
    )  # fmt: skip
    page = report(one, other, out=tmp_path / "both.html")
    assert "a: 64 validation items and 32 held-out compositions; b: 640 validation" in page.text
    assert re.search(r"What differs\s+key\s*a\s*b\s+run.seed\s*0\s*1\s*secret\s*\*{3}\s*\*{3}", page.text)
    assert "run.steps" not in page.text and "a0" not in page.text and "b1" not in page.text
    page = report(one, out=tmp_path / "one.html")
    assert (
        "same items (64 validation items and 32 held-out compositions)" in page.text and "What differs" not in page.text
    )


def test_rewards_without_spread_have_no_band(tmp_path):
    metrics = "".join(
        json.dumps({"step": n, "rewards/match/mean": 1.0, "rewards/match/std": 0.1 * (n == 0), "groups": 4.0}) + "\n"
        for n in range(3)
    )
    page = report(write_run(tmp_path / "run", metrics_dot_jsonl=metrics), out=tmp_path / "report.html")
    assert "step 1\n1 ± 0.098step 2\n1step 3\n1" in page.text


def test_evaluations_during_training_have_a_band(tmp_path):
    metrics = "".join(
        json.dumps({"step": n, "eval/draw": 0.5, "eval/draw/interval": 0.25 / (n + 1), "eval/draw_greedy": 1.0}) + "\n"
        for n in range(2)
    )
    page = report(write_run(tmp_path / "run", metrics_dot_jsonl=metrics), out=tmp_path / "report.html")
    assert "step 1\n0.5 ± 0.25step 2\n0.5 ± 0.125" in page.text and "step 1\n1step 2\n1" in page.text
    assert "band: 95 % interval over items" in page.text and "eval/draw/interval" not in page.text
    assert sum(attributes.get("class") == "band s0 d0" for tag, attributes in page.elements if tag == "polygon") == 1


def test_the_dots_of_the_evaluation_have_an_axis(tmp_path):
    html = write_report([write_run(tmp_path / "run")], tmp_path / "report.html").read_text("utf-8")
    (axis,) = re.findall(r'<svg class="range"[^>]*aria-label="scale in per cent">(.*?)</svg>', html)
    places = {label: x for x, label in re.findall(r'<text class="tick" x="([\d.]+)"[^>]*>([^<]*)</text>', axis)}
    assert list(places) == ["40", "60", "80"]  # of intervals from 30 to 80 %
    (row,) = re.findall(r'<svg class="range" viewBox="0 0 150 22" aria-hidden="true">(.*?)</svg>', html)
    assert float(re.findall(r'<circle class="was" cx="([\d.]+)"', row)[0]) == float(places["40"])
    assert re.findall(r'<line class="grid" x1="([\d.]+)"', row) == list(places.values())


def test_worst_rollouts_have_a_lower_reward_than_the_best(tmp_path):
    folder = write_run(tmp_path / "run")
    step = folder / "rollouts" / "step_000002.json"
    assert "lower reward than" not in report(folder, out=tmp_path / "one.html").text
    content = json.loads(step.read_text())
    step.write_text(json.dumps(content | {"worst": content["best"]}))
    page = report(folder, out=tmp_path / "two.html")
    assert "No rollout of this step has a lower reward than the best." in page.text


def test_tables_of_all_suites_become_means_with_intervals():
    easy_vqa = {"answer": {"overall": {"accuracy": 0.5, "interval": 0.1, "greedy": 0.6, "by_item": [0.4, 0.6]}}}
    assert list(measured(easy_vqa)) == [("answer: overall", Measured(0.5, 0.1, 0.6, (0.4, 0.6)))]
    benchmark = {"overall": {"mean": 0.5, "interval": 0.1}, "groups": {"colors": {"mean": None}}, "images": 8}
    shown = dict(measured(benchmark))
    assert shown["overall"] == Measured(0.5, 0.1) and shown["groups: colors"].mean is None
    assert shown["images"].mean == 8 and dict(measured(None)) == {}


def test_a_row_outside_0_to_1_has_the_decimals_of_its_smallest_interval(tmp_path):
    before = {"mean": -8.4021, "interval": 0.8804, "greedy": -5.0, "rows": 2.0, "by_row": [-8.0, -9.0]}
    after = {"mean": -5.371, "interval": 0.219, "greedy": -5.0, "rows": 2.0, "by_row": [-5.0, -6.4]}
    run = write_run(
        tmp_path / "run",
        before_dot_json=json.dumps({"track": {"short": before}}),
        summary_dot_json=json.dumps({"after": {"track": {"short": after}}}),
    )
    page = report(run, out=tmp_path / "report.html")
    for text in ("−8.40 ± 0.88", "−5.37 ± 0.22", "+2.80 ± ", "−5.00 → −5.00"):
        assert text in page.text, text
    assert "beforeafterchangegreedy" in page.text  # without the key of the interval plots, which are not drawn


def test_nothing_is_loaded_and_only_the_own_script_may_run(tmp_path):
    page = report(write_run(tmp_path / "run", HOSTILE, HOSTILE), out=tmp_path / "report.html")
    (policy,) = [a["content"] for tag, a in page.elements if tag == "meta" and "http-equiv" in a]
    assert policy.startswith("default-src 'none'; img-src data:;") and "unsafe" not in policy
    for _, attributes in page.elements:
        assert not any(name.startswith("on") or name == "style" for name in attributes)
        assert all(
            attributes.get(name, "#").startswith(("#", "data:image/webp")) for name in ("src", "href", "xlink:href")
        )
    assert not {tag for tag, _ in page.elements} & {"link", "iframe", "object", "embed", "base", "form", "b2"}


def test_texts_of_users_and_models_stay_texts(tmp_path):
    plain = report(write_run(tmp_path / "a"), out=tmp_path / "a.html")
    folder = write_run(tmp_path / "b", HOSTILE, HOSTILE)
    (folder / "failure.json").write_text(json.dumps({"error": HOSTILE}))
    (folder / "summary.json").unlink()
    hostile = report(folder, out=tmp_path / "b.html")
    assert len(hostile.scripts) == 1 == len(plain.scripts) and hostile.scripts == plain.scripts
    assert {tag for tag, _ in hostile.elements} <= {tag for tag, _ in plain.elements} | {"p"}
    shown = "<script>alert(1)</script>\"'`</script><img src=x onerror=alert(2)> data:text/html,<b>x</b> \\x1b[31mred"
    assert hostile.text.count(shown) >= 8 and "{{ 7 * 7 }} {% raw %} <!-- & ]]>" in hostile.text
    source = (tmp_path / "b.html").read_text("utf-8")
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", source)


def test_runs_side_by_side_share_charts(tmp_path):
    runs = [write_run(tmp_path / name / "run") for name in ("one", "two")]
    page = report(*runs, out=tmp_path / "report.html")
    curves = [a["class"] for tag, a in page.elements if tag == "polyline"]
    assert set(curves) == {"curve s0 d0", "curve s1 d0"} and len(curves) == 2 * curves.count("curve s0 d0")
    assert "one/run" in page.text and "two/run" in page.text


def test_a_plan_beside_a_sweep_has_its_stages_in_order_and_full_names(tmp_path, capsys):
    stages = [write_run(tmp_path / "plan" / name) for name in ("taught", "images", "merged")]
    (stages[2] / "metrics.jsonl").unlink()
    (tmp_path / "plan" / "summary.json").write_text(json.dumps({"stages": {run.name: {} for run in stages}}))
    write_run(tmp_path / "sweep" / "joint" / "seed_0" / "rl", steps=9)
    answer = motet_command(capsys, "report", tmp_path / "plan", tmp_path / "sweep", "--out", tmp_path / "both.html")
    assert answer.code == 0
    page = Page((tmp_path / "both.html").read_text("utf-8"))
    head = page.text.partition("Evaluation")[0]
    names = ["plan/taught", "plan/images", "plan/merged", "sweep/joint/seed_0/rl"]
    assert [head.count(name) for name in names] == [1] * 4 and sorted(names, key=head.index) == names
    assert head.count("finished") == 4 and "none, evaluated only" in head and "6 of at most 9" in head


def test_folders_of_older_and_of_broken_runs_give_what_they_have(tmp_path):
    folder = tmp_path / "old"
    (folder / "samples").mkdir(parents=True)
    Image.new("RGB", (600, 300), "white").save(folder / "samples" / "step_000020.png")
    (folder / "recipe.yaml").write_text("run: [")
    (folder / "metrics.jsonl").write_text('{"step": 0, "reward": 1.0}\n{"step": 1, "rew')
    (folder / "before.json").write_text("{")
    page = report(folder, out=tmp_path / "report.html")
    assert "not finished" in page.text and "step 000020" in page.text
    for text in ("recipe.yaml: is not YAML", "metrics.jsonl: 1 incomplete lines", "before.json: is not JSON"):
        assert text in page.text
    with pytest.raises(RunFolderError, match="does not contain a run"):
        write_report([tmp_path], tmp_path / "report.html")


def test_a_report_that_cannot_be_written_is_a_warning(tmp_path):
    folder = write_run(tmp_path / "run")
    (tmp_path / "file").write_text("")
    with pytest.warns(UserWarning, match="report.html' is not written: .*cannot be written"):
        assert report_at_end([folder], tmp_path / "file" / "report.html") is None


def test_images_are_bounded_and_left_out_ones_are_counted(tmp_path, monkeypatch):
    folder = write_run(tmp_path / "run")
    monkeypatch.setattr("motet.report.html.page.IMAGE_BYTES", 60)
    page = report(folder, out=tmp_path / "report.html")
    assert "2 images are left out" in page.text and "image left out" in page.text


def test_secrets_of_a_recipe_are_not_shown(tmp_path):
    recipe = "judge: {url: 'https://me:pass@host/x?api_key=abc', api_key: xyz}\nmax_tokens: 64\npassword: null\n"
    page = report(write_run(tmp_path / "run", recipe_dot_yaml=recipe), out=tmp_path / "report.html")
    assert not re.search("pass@|abc|xyz", page.text) and "max_tokens: 64" in page.text and "password: null" in page.text


def test_ticks_are_round_and_numbers_short():
    assert ticks(0.03, 0.98) == [0.2, 0.4, 0.6, 0.8] and ticks(2.0, 2.0) == [2.0]
    assert [number(value) for value in (0, 0.125, 1234.5678, 2.5e-5, -3.0)] == ["0", "0.125", "1235", "2.5e-5", "-3"]


def test_a_chart_has_a_band_where_intervals_are_known_and_means_of_long_runs():
    points = [(float(n), n / 1000, 0.1) for n in range(1000)]
    chart = line_chart("long", [Series("run", points)])
    assert "polygon" in chart.svg and chart.note == "each point is the mean of 3 steps"
    assert "polygon" not in line_chart("short", [Series("run", [(1.0, float("nan"), 0.1), (2.0, 1.0, None)])]).svg
    assert line_chart("none", [Series("run", [])]).svg == ""


def dom_in_browser(path):
    """The page as the browser has it after its scripts ran."""
    command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom", f"file://{path}"]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="needs chromium")
def test_in_a_browser_only_the_own_script_runs(tmp_path):
    folder = write_run(tmp_path / "run", ATTACK + HOSTILE)
    first = json.loads((folder / "rollouts" / "step_000002.json").read_text())
    (folder / "rollouts" / "step_000004.json").write_text(json.dumps(first))  # two steps: the script adds a slider
    prompts = (folder / "fixed_prompts" / "step_000002.json").read_text()
    (folder / "fixed_prompts" / "step_000004.json").write_text(prompts)
    path = write_report([folder], tmp_path / "report.html")
    assert 'class="slider"' not in path.read_text("utf-8")
    shown = dom_in_browser(path)
    assert 'class="slider"' in shown and "<title>run – motet report</title>" in shown and 'type="range"' in shown
    for heading in ("prompts", "rollouts"):  # both open at their last step
        section = re.search(rf'<section id="{heading}">.*?<output>(.*?)</output>.*?</section>', shown, re.DOTALL)
        assert (
            section
            and section[1] == "step 4"
            and re.search('hidden="[^>]*data-name="step 2"|data-name="step 2" hidden', section[0])
        )
    assert not any("onerror" in attributes for _, attributes in Page(shown).elements)
    path.write_text(path.read_text("utf-8").replace("</main>", f"{ATTACK}</main>"), "utf-8")  # even if it were markup
    shown = dom_in_browser(path)
    assert 'class="slider"' in shown and "<title>run – motet report</title>" in shown
    unprotected = re.sub("<meta http-equiv[^>]*>", "", path.read_text("utf-8"))
    path.write_text(unprotected, "utf-8")
    assert "<title>owned</title>" in dom_in_browser(path)  # the attack works without the policy
