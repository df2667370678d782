"""Folders that `datasets` loads (images, WebDataset, Parquet), whole and as streams, and other layouts of data."""

import io
import json
import tarfile

import datasets
import pytest
from PIL import Image

from motet.config import DataConfig
from motet.core.errors import ConfigError, DataError
from motet.data import ResumableSampler, open_rows


@pytest.fixture(autouse=True)
def quiet(monkeypatch, tmp_path):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    datasets.disable_progress_bars()


def image(red):
    return Image.new("RGB", (4, 4), (red, 0, 0))


def image_folder(folder):
    for n in range(6):
        image(n).save(folder / f"{n}.png")
    lines = [json.dumps({"file_name": f"{n}.png", "prompt": f"p{n}"}) for n in range(6)]
    (folder / "metadata.jsonl").write_text("\n".join(lines))


def web_dataset(folder):
    for shard in range(2):
        with tarfile.open(folder / f"{shard:03}.tar", "w") as tar:
            for n in range(3 * shard, 3 * shard + 3):
                png = io.BytesIO()
                image(n).save(png, "PNG")
                for name, data in ((f"{n}.png", png.getvalue()), (f"{n}.json", b'{"prompt": "p%d"}' % n)):
                    entry = tarfile.TarInfo(name)
                    entry.size = len(data)
                    tar.addfile(entry, io.BytesIO(data))


def parquet(folder):
    rows = datasets.Dataset.from_list([{"prompt": f"p{n}", "image": image(n)} for n in range(6)])
    for shard in range(2):
        rows.shard(2, shard, contiguous=True).to_parquet(str(folder / f"{shard}.parquet"))


FOLDERS = {"images": image_folder, "webdataset": web_dataset, "parquet": parquet}


@pytest.fixture(params=list(FOLDERS))
def config(request, tmp_path):
    folder = tmp_path / request.param
    folder.mkdir()
    FOLDERS[request.param](folder)
    columns = {"image": "png"} if request.param == "webdataset" else {}
    return DataConfig(source=str(folder), columns=columns)


@pytest.fixture(params=["images", "webdataset"])  # an epoch of Parquet files takes seconds on a busy machine
def fast_config(request, tmp_path):
    folder = tmp_path / request.param
    folder.mkdir()
    FOLDERS[request.param](folder)
    return DataConfig(source=str(folder), columns={"image": "png"} if request.param == "webdataset" else {})


def streamed(config, seed=0, **options):
    options = {"streaming": True, **options}
    return open_rows(config.model_copy(update={"options": options}), ("prompt", "image"), seed=seed)


def read(rows, first, last):
    return [(row["prompt"], row["image"].getpixel((0, 0))[0]) for row in map(rows.row, range(first, last))]


def test_folders_load(config):
    rows = open_rows(config, ("prompt", "image"))
    assert sorted(read(rows, 0, 6)) == [(f"p{n}", n) for n in range(6)]


def test_a_stream_has_every_row_once_per_epoch(config):
    rows = streamed(config)
    assert rows.size is None
    assert sorted(read(rows, 0, 6)) == [(f"p{n}", n) for n in range(6)]


def test_a_stream_is_shuffled_again_in_every_epoch(fast_config):
    drawn = read(streamed(fast_config), 0, 18)
    epochs = [drawn[start : start + 6] for start in range(0, 18, 6)]
    assert all(sorted(epoch) == [(f"p{n}", n) for n in range(6)] for epoch in epochs)
    assert epochs[0] != epochs[1] or epochs[1] != epochs[2]


def test_a_resumed_stream_goes_on_where_it_stood(fast_config):
    whole = [task.columns["prompt"] for task in ResumableSampler(streamed(fast_config), 0).next(15)]
    first, second = ResumableSampler(streamed(fast_config), 0), ResumableSampler(streamed(fast_config), 0)
    first.next(8)
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    assert [task.columns["prompt"] for task in second.next(7)] == whole[8:]


def test_an_earlier_row_is_read_again(fast_config):
    rows = streamed(fast_config, shuffle_buffer=3)
    late = read(rows, 0, 9)
    assert read(rows, 2, 4) == late[2:4]
    assert read(streamed(fast_config, seed=3), 0, 9) != late


def test_a_stream_of_json_has_the_columns_of_its_first_row(tmp_path):
    (tmp_path / "rows").mkdir()
    (tmp_path / "rows" / "a.jsonl").write_text("".join(json.dumps({"prompt": f"p{n}"}) + "\n" for n in range(3)))
    rows = open_rows(DataConfig(source=str(tmp_path / "rows"), options={"streaming": True}), ("prompt",))
    assert sorted(rows.row(n)["prompt"] for n in range(3)) == ["p0", "p1", "p2"]


@pytest.mark.parametrize(
    ("options", "settings", "message"),
    [
        ({"streaming": "yes"}, {}, "data.options.streaming='yes' is not true or false"),
        ({"streaming": True, "shuffle_buffer": 0}, {}, "data.options.shuffle_buffer=0"),
        ({"shuffle_buffer": 10}, {}, "is for streams"),
        ({"streaming": True}, {"size": 2}, "data.size=2 is not supported by a stream"),
    ],
)
def test_options_that_are_rejected(tmp_path, options, settings, message):
    image_folder(tmp_path)
    with pytest.raises(ConfigError) as error:
        open_rows(DataConfig(source=str(tmp_path), options=options, **settings))
    assert message in str(error.value)


def test_a_shard_that_is_cut_off_names_the_stream(tmp_path):
    web_dataset(tmp_path)
    whole = (tmp_path / "001.tar").read_bytes()
    (tmp_path / "001.tar").write_bytes(whole[:1700])
    with pytest.raises(DataError, match="of the stream"):
        read(streamed(DataConfig(source=str(tmp_path), columns={"image": "png"})), 0, 6)


def test_of_several_wordings_the_first_is_used(tmp_path):
    """OmniEdit's layout: the wordings of an instruction as a list, and images under other names."""
    row = {"src_img": image(1), "edited_img": image(2), "edited_prompt_list": ["make it grey", "grey"]}
    datasets.Dataset.from_list([row]).to_parquet(str(tmp_path / "edits.parquet"))
    columns = {"image": "src_img", "instruction": "edited_prompt_list", "target": "edited_img"}
    config = DataConfig(source=str(tmp_path / "edits.parquet"), columns=columns)
    shown = open_rows(config, ("instruction", "image"), image_columns=("target",)).row(0)
    assert shown["instruction"] == "make it grey"
    assert [shown[name].getpixel((0, 0))[0] for name in ("image", "target")] == [1, 2]


def test_metadata_of_geneval_are_rows(tmp_path):
    row = {"tag": "counting", "include": [{"class": "clock", "count": 2}], "prompt": "a photo of two clocks"}
    (tmp_path / "evaluation_metadata.jsonl").write_text(json.dumps(row) + "\n")
    rows = open_rows(DataConfig(source=str(tmp_path / "evaluation_metadata.jsonl")), ("prompt",))
    assert rows.row(0) == row
