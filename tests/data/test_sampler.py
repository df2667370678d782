"""The order of a run's rows, and its resumption."""

import base64
import json

import pytest
from PIL import Image

from motet.config import DataConfig
from motet.core.errors import CheckpointError, DataError
from motet.data import ResumableSampler, open_rows
from tests.core.test_images import encoded


@pytest.fixture
def rows(tmp_path):
    (tmp_path / "x.jsonl").write_text("".join(json.dumps({"prompt": f"p{n}"}) + "\n" for n in range(7)))
    return open_rows(DataConfig(source=str(tmp_path / "x.jsonl")), ("prompt",))


def prompts(tasks):
    return [task["prompt"] for task in tasks]


def test_every_epoch_meets_every_row_once_in_another_order(rows):
    cursor = ResumableSampler(rows, seed=0)
    epochs = [prompts(cursor.next(7)) for _ in range(3)]
    assert all(sorted(epoch) == [f"p{n}" for n in range(7)] for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2] and epochs[0] != sorted(epochs[0])


def test_the_order_is_pinned(rows):
    """A changed order would make every old checkpoint resume elsewhere."""
    assert prompts(ResumableSampler(rows, seed=0).next(7)) == ["p3", "p0", "p5", "p6", "p1", "p4", "p2"]


def test_order_depends_on_the_seed_and_not_on_the_batch(rows):
    cursor, other = ResumableSampler(rows, 5), ResumableSampler(rows, 6)
    one_by_one = [task for _ in range(14) for task in cursor.next(1)]
    assert prompts(one_by_one) == prompts(ResumableSampler(rows, 5).next(14))
    assert prompts(one_by_one) != prompts(other.next(14))


def test_a_row_that_comes_again_is_another_task(rows):
    tasks = ResumableSampler(rows, 0).next(20)
    assert len({task.index for task in tasks}) == 20
    assert all(task["prompt"] == f"p{task.index % 7}" for task in tasks)
    assert sorted(task.index for task in tasks[:7]) == list(range(7))


def test_resumed_equals_uninterrupted(rows):
    cursor = ResumableSampler(rows, 1)
    cursor.next(5)
    state = json.loads(json.dumps(cursor.state_dict()))
    rest = [(t.index, t["prompt"]) for t in cursor.next(12)]
    resumed = ResumableSampler(rows, 1)
    resumed.load_state_dict(state)
    assert [(t.index, t["prompt"]) for t in resumed.next(12)] == rest


def test_another_seed_or_size_raises(rows, tmp_path):
    state = ResumableSampler(rows, 1).state_dict()
    with pytest.raises(CheckpointError, match="data has seed 1, this run's has 2"):
        ResumableSampler(rows, 2).load_state_dict(state)
    fewer = open_rows(DataConfig(source=str(tmp_path / "x.jsonl"), size=3))
    with pytest.raises(CheckpointError, match="data has size 7, this run's has 3"):
        ResumableSampler(fewer, 1).load_state_dict(state)


def test_infinite_rows_are_sampled_in_order():
    world = open_rows(DataConfig(source="shapes"), seed=0)
    cursor = ResumableSampler(world, 0)
    assert [t.index for t in cursor.next(2) + cursor.next(2)] == [0, 1, 2, 3]
    resumed = ResumableSampler(world, 0)
    resumed.load_state_dict(cursor.state_dict())
    assert resumed.next(1)[0]["scene"] == world.row(4)["scene"]


def test_a_row_that_cannot_be_read_does_not_move_the_cursor(tmp_path):
    whole = encoded(Image.effect_noise((64, 64), 50))
    (tmp_path / "x.png").write_bytes(whole[: len(whole) // 2])  # its header is fine
    (tmp_path / "x.jsonl").write_text('{"image": "x.png"}\n')
    cursor = ResumableSampler(open_rows(DataConfig(source=str(tmp_path / "x.jsonl")), ("image",)), 0)
    with pytest.raises(DataError):
        cursor.next(1)
    assert cursor.state_dict()["drawn"] == 0


def written(path, texts):
    path.write_text("".join(json.dumps({"prompt": text, "image": "x.png"}) + "\n" for text in texts))
    return open_rows(DataConfig(source=str(path)), ("prompt",))


def test_rows_that_changed_since_the_checkpoint_are_named(tmp_path, capsys):
    Image.new("RGB", (4, 4)).save(tmp_path / "x.png")
    texts = [f"p{n}" for n in range(7)]
    state = json.loads(json.dumps(ResumableSampler(written(tmp_path / "x.jsonl", texts), 1).state_dict()))

    def resumed(texts):
        ResumableSampler(written(tmp_path / "x.jsonl", texts), 1).load_state_dict(state)
        return capsys.readouterr().err

    assert resumed(texts) == ""
    said = resumed([*texts[:3], "other", *texts[4:6], "another"])
    assert "2 of 7 rows changed, the first is Line 4 of x.jsonl" in said and len(said.splitlines()) == 1
    with pytest.raises(CheckpointError, match="has size 7, this run's has 6; the first difference is at Line 3") as e:
        resumed([*texts[:2], *texts[3:]])
    assert "replace removed ones" in e.value.fix
    Image.effect_noise((4, 4), 50).convert("RGB").save(tmp_path / "x.png")
    assert "7 of 7 rows changed" in resumed(texts)


def test_rows_of_large_data_are_told_apart_in_blocks(tmp_path, capsys):
    texts = [f"p{n}" for n in range(2500)]
    (tmp_path / "x.txt").write_text("\n".join(texts))
    source = DataConfig(source=str(tmp_path / "x.txt"))
    state = ResumableSampler(open_rows(source, ("prompt",)), 1).state_dict()
    assert len(state["digest"]) == 8 * 834  # three rows each
    (tmp_path / "x.txt").write_text("\n".join([*texts[:-1], "other"]))
    ResumableSampler(open_rows(source, ("prompt",)), 1).load_state_dict(state)
    said = capsys.readouterr().err
    assert "1 of 834 blocks of 3 rows changed, the first is Line 2500 of x.txt." in said


def test_a_checkpoint_without_a_digest_still_resumes(rows):
    cursor = ResumableSampler(rows, 1)
    cursor.load_state_dict({"seed": 1, "size": 7, "drawn": 3})
    assert cursor.num_consumed == 3


def test_the_first_difference_is_not_guessed_between_blocks_of_other_sizes(tmp_path):
    def opened(count):
        (tmp_path / "x.txt").write_text("".join(f"p{n}\n" for n in range(count)))
        return open_rows(DataConfig(source=str(tmp_path / "x.txt")), ("prompt",))

    state = ResumableSampler(opened(1002), 1).state_dict()  # blocks of two rows; of 1000 rows each is one
    with pytest.raises(CheckpointError, match=r"has size 1002, this run's has 1000\.$|has 1000\. Fix") as refusal:
        ResumableSampler(opened(1000), 1).load_state_dict(state)
    assert "first difference" not in refusal.value.problem
    with pytest.raises(CheckpointError, match=r"this run's has 1001; .*the first is Line 1001"):
        ResumableSampler(opened(1001), 1).load_state_dict(state)


def test_images_in_any_form_have_a_digest(tmp_path):
    """Base64 longer than the name of a file may be, a user that does not exist, an address of a file."""
    inline = base64.b64encode(encoded(Image.new("L", (14, 14)), compress_level=0)).decode()
    assert 300 < len(inline) < 500
    image = tmp_path / "x.png"
    Image.new("RGB", (4, 4)).save(image)

    def digest(*values):
        (tmp_path / "x.jsonl").write_text("".join(json.dumps({"image": value}) + "\n" for value in values))
        return ResumableSampler(open_rows(DataConfig(source=str(tmp_path / "x.jsonl")), check=False), 1).state_dict()[
            "digest"
        ]

    assert len(digest(inline, "~no_such_user/x.png", "a\0b", "y" * 300)) == 4 * 8
    before = digest(f"file://{image}")
    Image.effect_noise((4, 4), 50).save(image)
    assert digest(f"file://{image}") != before
