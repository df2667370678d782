"""Tasks of lmms-eval over motet's data sources, for the YAML files beside this one.

`dataset_kwargs` are `source`, `split`, `options` and `size` as in a recipe's `data`, `seed` for generated sources, and
`with_options`: leave out questions without options. Answers are judged by motet's own rewards.
"""

from __future__ import annotations

from string import ascii_uppercase
from typing import Any

from datasets import Dataset, DatasetDict, Features, Image, Value
from lmms_eval.api.task import ConfigurableTask  # type: ignore[import-not-found]

from motet.config import DataConfig
from motet.core.errors import ConfigError
from motet.data import open_rows
from motet.rewards.text.exact_match import multiple_choice, open_ended


class RowsTask(ConfigurableTask):
    """A task whose documents are the rows of a motet data source, in order."""

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__(config={key: value for key, value in config.items() if key != "class"})

    def download(self, dataset_kwargs: dict[str, Any] | None = None) -> None:
        """Read the rows: `dataset` with images, `dataset_no_image` without."""
        settings = dict(dataset_kwargs or {})
        seed, with_options = settings.pop("seed", 0), settings.pop("with_options", False)
        rows = open_rows(DataConfig(**settings), ("question", "answer"), seed=seed, check=False)
        if rows.size is None:
            raise ConfigError(f"dataset_kwargs of {self.config.task!r} have no size.", fix="add size: NUMBER.")
        docs = [_doc(rows.row(n)) for n in range(rows.size)]
        docs = [doc for doc in docs if doc["options"] or not with_options]
        features = Features({"question": Value("string"), "answer": Value("string"), "options": [Value("string")]})
        split = self.config.test_split
        self.dataset = DatasetDict({split: Dataset.from_list(docs, Features({**features, "image": Image()}))})
        self.dataset_no_image = DatasetDict({split: self.dataset[split].remove_columns("image")})


def _doc(row: dict[str, Any]) -> dict[str, Any]:
    options = [str(option) for option in row.get("options") or ()]
    return {"question": row["question"], "answer": str(row["answer"]), "options": options, "image": row["image"]}


def images_of(doc: dict[str, Any]) -> list[Any]:
    """The image of a question."""
    return [doc["image"]]


def answer_is_right(doc: dict[str, Any], results: list[str]) -> dict[str, float]:
    """By the reward `open_ended`."""
    return {"exact_match": _value(open_ended([_completion(results[0])], [doc["answer"]]))}


def choice_is_right(doc: dict[str, Any], results: list[str]) -> dict[str, float]:
    """By the reward `multiple_choice`."""
    values = multiple_choice([_completion(results[0])], [doc["answer"]], options=[doc["options"]])
    return {"acc": _value(values)}


def choices_of(doc: dict[str, Any]) -> list[str]:
    """The options as the model writes an answer: letters where the gold answer is one."""
    options = ascii_uppercase[: len(doc["options"])] if doc["answer"] in ascii_uppercase else doc["options"]
    return [f"<answer> {option}</answer>" for option in options]


def place_of_answer(doc: dict[str, Any]) -> int:
    """The index of the right option."""
    return choices_of(doc).index(f"<answer> {doc['answer']}</answer>")


def _completion(text: str) -> list[dict[str, Any]]:
    return [{"role": "assistant", "name": "answer", "content": text}]


def _value(values: list[float | None]) -> float:
    (value,) = values
    assert value is not None
    return value
