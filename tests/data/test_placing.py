"""How the images of a row reach its question: every form that people's data have, shown in full or rejected."""

import base64
import io
import json

import datasets
import pytest
from PIL import Image

from motet.config import DataConfig, parse_recipe
from motet.core.conversation import Conversation, from_chat, user
from motet.core.errors import DataError
from motet.core.task import Task
from motet.data import open_rows
from motet.rewards.text.multiple_choice import text_of_question
from motet.training.setup import build_rl_tracks
from tests.runs import mapping

COLOURS = {"a": (255, 0, 0), "b": (0, 255, 0), "c": (0, 0, 255)}
PARTS = [
    {"type": "text", "text": "first:"},
    {"type": "image"},
    {"type": "text", "text": " second:"},
    {"type": "image"},
    {"type": "text", "text": " same?"},
]


@pytest.fixture
def folder(tmp_path):
    for name, colour in COLOURS.items():
        Image.new("RGB", (3, 2), colour).save(tmp_path / f"{name}.png")
    return tmp_path


def opened(folder, row, *needed, **columns):
    path = folder / "rows.jsonl"
    path.write_text(json.dumps({"question": "fine?"} | row) + "\n")
    return open_rows(DataConfig(source=str(path), columns=columns), needed or ("question",))


def shown(conversation: Conversation) -> list[list[str]]:
    """Every message as its role, its texts, and `<a>` where image a stands."""
    names = {colour: f"<{name}>" for name, colour in COLOURS.items()}
    return [
        [m.role, *(p.text if hasattr(p, "text") else names[p.image.getpixel((0, 0))] for p in m.parts)]
        for m in conversation.messages
    ]


def chat(*content):
    return [{"role": "user", "content": content[0] if isinstance(content[0], str) else list(content)}]


def encoded(folder, name):
    return base64.b64encode((folder / f"{name}.png").read_bytes()).decode()


TEXT = {"type": "text", "text": "what?"}


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"image": "a.png", "question": "what?"}, [["user", "<a>", "what?"]]),
        ({"images": ["a.png", "b.png"], "question": "same?"}, [["user", "<a>", "<b>", "same?"]]),
        ({"images": ["a.png"], "question": chat("what?")}, [["user", "<a>", "what?"]]),  # TRL's rows
        ({"image": "a.png", "question": chat("what?")}, [["user", "<a>", "what?"]]),
        ({"images": ["a.png"], "question": chat(TEXT)}, [["user", "<a>", "what?"]]),
        (
            {"images": ["a.png", "b.png"], "question": chat(*PARTS)},
            [["user", "first:", "<a>", " second:", "<b>", " same?"]],
        ),
        ({"images": ["a.png", "b.png"], "question": "<image><image> same?"}, [["user", "<a>", "<b>", "same?"]]),
        ({"images": ["a.png"], "question": "<image>\nwhat?"}, [["user", "<a>", "what?"]]),
        (
            {"images": ["a.png", "b.png"], "question": chat("first: <image> second: <image> same?")},
            [["user", "first:", "<a>", "second:", "<b>", "same?"]],
        ),
        ({"question": chat({"type": "image", "image": "a.png"}, TEXT)}, [["user", "<a>", "what?"]]),  # Qwen's
        ({"question": chat({"type": "image", "path": "a.png"}, TEXT)}, [["user", "<a>", "what?"]]),
        (
            {"question": chat({"type": "image_url", "image_url": {"url": "a.png"}}, TEXT)},  # OpenAI's
            [["user", "<a>", "what?"]],
        ),
        ({"question": "what?"}, [["user", "what?"]]),
        ({"images": [], "question": "what?"}, [["user", "what?"]]),
        ({"images": None, "image": None, "question": chat("what?")}, [["user", "what?"]]),
        (
            {"image": "a.png", "question": [{"role": "system", "content": "short"}, *chat("what?")]},
            [["system", "short"], ["user", "<a>", "what?"]],
        ),
        (
            {"image": "a.png", "question": [*chat("hi"), {"role": "assistant", "content": "yes"}, *chat("what?")]},
            [["user", "<a>", "hi"], ["assistant", "yes"], ["user", "what?"]],
        ),
        (
            {"image": "a.png", "question": [*chat("hi"), {"role": "assistant", "content": "yes"}, *chat("<image>?")]},
            [["user", "hi"], ["assistant", "yes"], ["user", "<a>", "?"]],
        ),
    ],
)
def test_every_image_is_shown(folder, row, expected):
    assert shown(opened(folder, row).task(0).question) == expected


@pytest.mark.parametrize("form", ["image", "part", "url part", "base64", "base64 part", "bytes"])
def test_images_inside_the_data_file(folder, form):
    code = encoded(folder, "b")
    match form:
        case "image":
            row = {"image": f"data:image/png;base64,{code}", "question": "what?"}
        case "part":
            row = {"question": chat({"type": "image", "image": f"data:image/png;base64,{code}"}, TEXT)}
        case "url part":
            url = {"url": f"data:image/png;base64,{code}"}
            row = {"question": chat({"type": "image_url", "image_url": url}, TEXT)}
        case "base64":
            row = {"image": code, "question": "what?"}
        case "base64 part":
            row = {"question": chat({"type": "image", "base64": code}, TEXT)}
        case "bytes":
            data = datasets.Dataset.from_list([{"image": (folder / "b.png").read_bytes(), "question": "what?"}])
            data.to_parquet(folder / "x.parquet")
            rows = open_rows(DataConfig(source=str(folder / "x.parquet")), ("question",))
            assert shown(rows.task(0).question) == [["user", "<b>", "what?"]]
            return
    assert shown(opened(folder, row).task(0).question) == [["user", "<b>", "what?"]]


def test_rows_of_easyr1(folder):
    buffer = io.BytesIO()
    Image.new("RGB", (3, 2), COLOURS["c"]).save(buffer, "PNG")
    features = datasets.Features(
        {
            "images": datasets.List(datasets.Image()),
            "problem": datasets.Value("string"),
            "answer": datasets.Value("string"),
        }
    )
    row = {"images": [{"bytes": buffer.getvalue(), "path": None}], "problem": "<image>what?", "answer": "red"}
    datasets.Dataset.from_list([row], features=features).to_parquet(folder / "x.parquet")
    rows = open_rows(DataConfig(source=str(folder / "x.parquet"), columns={"question": "problem"}), ("question",))
    assert shown(rows.task(0).question) == [["user", "<c>", "what?"]]


def test_rows_of_trl(folder):
    row = {"prompt": chat("what?"), "image": "a.png", "solution": "red"}
    task = opened(folder, {**row, "question": None}, "question", question="prompt", answer="solution").task(0)
    assert shown(task.question) == [["user", "<a>", "what?"]] and task["answer"] == "red"


@pytest.mark.parametrize(
    ("row", "problem", "fix"),
    [
        (
            {"images": ["a.png", "b.png", "c.png"], "question": chat(*PARTS)},
            "2 placeholders .* the row has 3 images",
            "as many images as placeholders",
        ),
        ({"images": ["a.png"], "question": chat(*PARTS)}, "2 placeholders .* the row has 1 images", ""),
        ({"images": ["a.png", "b.png"], "question": "<image> what?"}, "1 placeholders .* the row has 2 images", ""),
        ({"question": "<image> what?"}, "1 placeholders .* the row has 0 images", ""),
        (
            {"image": "a.png", "question": chat({"type": "image", "image": "a.png"}, TEXT)},
            "0 placeholders .* beside 1 images of its own, but the row has 1",
            "",
        ),
        (
            {"image": "a.png", "images": ["b.png"], "question": "what?"},
            "images in both `image` and `images`",
            "keep one",
        ),
        (
            {"images": ["a.png"], "question": [*chat("<image>what?"), {"role": "assistant", "content": "red"}]},
            "ends with an assistant turn",
            'question": messages',
        ),
        (
            {"image": "a.png", "question": [{"from": "human", "value": "<image>\nwhat?"}]},
            "Message 0 is .*, not",
            '"human": "user"',
        ),
        (
            {"image": "a.png", "question": [{"role": "system", "content": "short"}]},
            "0 placeholders .* the row has 1",
            "",
        ),
        ({"question": chat({"type": "video", "video": "x.mp4"}, TEXT)}, "not text, nor an image", ""),
        ({"question": chat({"type": "text", "text": None})}, "not text, nor an image", ""),
        ({"question": chat({"type": "image", "image": 3}, TEXT)}, "expected an image, .*got a int", ""),
        ({"question": chat({"type": "image", "image": "no.png"}, TEXT)}, "the image 'no.png' cannot be read", ""),
        (
            {"question": chat({"type": "image_url", "image_url": {"url": "https://host/a.png"}}, TEXT)},
            "URLs are not downloaded",
            "",
        ),
        ({"question": ["what?", 3]}, "Message 0 is 'what\\?', not", ""),
        ({"question": [{"role": "user", "content": None}]}, "Message 0 has the content None", ""),
        ({"question": [{"role": "tool", "content": "x"}]}, "Message 0 has role 'tool'", ""),
        ({"question": "x" * 1_000_001}, "A text of 1,000,001 characters, 'xxxx", "shorten"),
    ],
)
def test_invalid_images_raise_with_their_line(folder, row, problem, fix):
    with pytest.raises(DataError, match=rf"(?s)Line 1 of rows.jsonl, column 'question'.*{problem}") as refusal:
        opened(folder, row)
    assert fix in refusal.value.fix


@pytest.mark.parametrize("scenario", ["instruction", "question"])
def test_instructions_are_as_questions(folder, scenario):
    row = {"image": "a.png", scenario: chat("make it blue")}
    assert shown(getattr(opened(folder, row, scenario).task(0), scenario)) == [["user", "<a>", "make it blue"]]


def test_a_prompt_to_draw_shows_images_only_where_it_has_places(folder):
    row = {"image": "a.png", "prompt": "a red thing", "question": "what?"}
    task = opened(folder, row, "prompt", "question").task(0)
    assert shown(task.prompt) == [["user", "a red thing"]]
    task = opened(folder, {**row, "prompt": "like <image> but blue"}, "prompt").task(0)
    assert shown(task.prompt) == [["user", "like", "<a>", "but blue"]]
    with pytest.raises(DataError, match="column 'prompt': The text has 2 placeholders"):
        opened(folder, {**row, "prompt": "<image> or <image>"}, "prompt")


def test_words_of_a_question_hold_no_marks(folder):
    image = Image.new("RGB", (3, 2), COLOURS["a"])
    task = Task(0, {"image": image, "instruction": "<image>make it blue"})
    filled = task.render_template("Rewrite: {instruction}.", "instruction", include_images=True)
    assert shown(filled) == [["user", "<a>", "Rewrite: make it blue."]]
    assert text_of_question("<image>\nwhat?") == "what?"
    assert text_of_question(chat({"type": "image"}, {"type": "text", "text": "<image>what?"})).strip() == "what?"


@pytest.mark.parametrize(
    "messages",
    [
        chat("what?"),
        [{"role": "system", "content": "short"}, *chat("what?")],
        [*chat("hi"), {"role": "assistant", "content": "yes"}, *chat("what?")],
        [*chat(TEXT), {"role": "assistant", "content": "yes"}, *chat("what?")],
        chat({"type": "image"}, TEXT, {"type": "image"}),
    ],
)
def test_images_stand_where_trl_puts_them(messages):
    trl = pytest.importorskip("trl.data_utils")
    images = [Image.new("RGB", (3, 2), COLOURS[name]) for name in "ab"]
    assert from_chat(messages, images).to_chat() == trl.prepare_multimodal_messages(messages, images)


def test_a_message_made_in_code_is_read_like_data():
    faded = Image.new("RGBA", (3, 2), (0, 0, 0, 0))
    assert user(faded, "what?").images[0].getpixel((0, 0)) == (255, 255, 255)
    with pytest.raises(DataError, match="A text contains"):
        user("\ud800")


def sees_images(completions, images):
    return [0.0] * len(completions)


def sees_nothing(completions, **columns):
    return [0.0] * len(completions)


@pytest.mark.parametrize(
    ("scenario", "reward", "prompt", "said"),
    [
        ("text_to_image", "sees_nothing", "a dog", True),
        ("text_to_image", "sees_nothing", "a dog like <image>", False),
        ("text_to_image", "sees_images", "a dog", False),
        ("generate_and_answer", "sees_nothing", "a dog", False),  # its question shows them
        ("edit", "sees_nothing", "a dog", False),
    ],
)
def test_unused_images_are_warned_about(folder, capsys, scenario, reward, prompt, said):
    row = {"prompt": prompt, "question": "what?", "instruction": "turn it", "image": "a.png"}
    (folder / "rows.jsonl").write_text(json.dumps(row) + "\n")
    data = {"source": str(folder / "rows.jsonl"), "options": {}}
    own = [{"name": f"{__file__}:{reward}"}]
    build_rl_tracks(parse_recipe(mapping(folder, scenario=scenario, data=data, rewards=own)))
    lines = [line for line in capsys.readouterr().err.splitlines() if "images that are not used: prompt" in line]
    assert len(lines) == said
