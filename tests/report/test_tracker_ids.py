"""The ids of trackers outlive the process."""

from motet.report.tracker_ids import TRACKERS, read_tracker_ids, write_tracker_id


def test_ids_of_trackers_are_kept_beside_each_other(tmp_path):
    assert read_tracker_ids(tmp_path) == {}
    write_tracker_id(tmp_path, "wandb", "a1b2")
    write_tracker_id(tmp_path, "mlflow", {"run_id": "7", "experiment": "shapes"})
    write_tracker_id(tmp_path, "wandb", "c3")
    assert read_tracker_ids(tmp_path) == {"wandb": "c3", "mlflow": {"run_id": "7", "experiment": "shapes"}}
    assert [path.name for path in tmp_path.iterdir()] == [TRACKERS]


def test_a_damaged_file_of_ids_is_no_reason_to_stop(tmp_path):
    for content in ("", "[1]", '{"wandb": '):
        (tmp_path / TRACKERS).write_text(content)
        assert read_tracker_ids(tmp_path) == {}
