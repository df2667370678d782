"""Text in images: how close what OCR reads in a generated image is to the text that the prompt quotes."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from typing import Any, ClassVar
from weakref import WeakValueDictionary

import numpy as np
from PIL import Image

from motet.core.errors import ConfigError, DataError, RewardError
from motet.core.protocols import Policy
from motet.core.registry import first_line
from motet.rewards.base import ModelReward, reward
from motet.rewards.image.pixels import scatter_scores, scorable_images
from motet.rewards.info import BINARY, UNIT, RewardInfo
from motet.rewards.options import check_bool, check_int, check_non_empty, check_number
from motet.rewards.text.multiple_choice import text_of_question

OCR = RewardInfo(
    range=UNIT, model="PP-OCR of rapidocr", license="Apache-2.0", size="31 MB, in the package", extra="ocr"
)
_QUOTED = re.compile(r'"([^"]*)"|“([^”]*)”')


@reward("ocr", info=OCR)
@dataclass(eq=False, kw_only=True)
class Ocr(ModelReward):
    """1 - edit distance / length of the wanted text, at least 0, of the text that OCR reads in the image. Range [0, 1].

    Flow-GRPO (Liu et al. 2025, arXiv 2505.05470): max(1 - N_e / N_ref, 0), where N_e is the edit distance between what
    is read and the text that the prompt quotes, and N_ref the latter's length; capitals and spaces do not count. With
    `extra_text` an image in which more is read than the wanted text gets 1 too, as in Flow-GRPO's released code, which
    also gives 0 where OCR fails; here that is an error. An image in which nothing is read gets 0.

    The wanted text is the first in double quotes in the prompt, or the one in `column`; a row without one gets None.
    The reader is rapidocr (PP-OCR, Apache-2.0, 31 MB, on the CPU): options as in `OcrReader`.
    """

    name: ClassVar[str] = "ocr"

    column: Any = None
    ignore_case: Any = True
    ignore_spaces: Any = True
    extra_text: Any = False
    detect: Any = True
    detect_side: Any = 960
    line_width: Any = 320
    min_confidence: Any = 0.5
    threads: Any = 1
    _read: Callable[[Sequence[Image.Image]], list[str]] = field(init=False)

    def __post_init__(self) -> None:
        if self.column is not None:
            check_non_empty(self.name, "column", self.column, "name of a column")
        for option in ("ignore_case", "ignore_spaces", "extra_text", "detect"):
            check_bool(self.name, option, getattr(self, option))
        for option, low in (("detect_side", 32), ("line_width", 48), ("threads", 1)):
            check_int(self.name, option, getattr(self, option), low)
        check_number(self.name, "min_confidence", self.min_confidence, 0.0, 1.0)
        if find_spec("rapidocr") is None or find_spec("onnxruntime") is None:
            raise ConfigError(
                f"rewards.name={self.name!r} needs the packages rapidocr and onnxruntime.",
                fix='pip install "motet[ocr]".',
            )

    @property
    def required_columns(self) -> tuple[str, ...]:
        return (self._column,)

    def prepare(self, policy: Policy) -> None:
        self._read = shared_reader(
            self.detect, self.detect_side, self.line_width, float(self.min_confidence), self.threads
        )

    def check_row(self, row: Mapping[str, Any]) -> None:
        self._wanted(row.get(self._column))

    def __call__(self, completions: list[Any], **columns: Any) -> list[float | None]:
        """One score per completion, from its last image."""
        wanted = [self._wanted(value) for value in columns[self._column]]
        places, images = scorable_images(completions, [text is not None for text in wanted], self.name)
        values = [
            self._value(text, wanted[place] or "") for place, text in zip(places, self._read(images), strict=True)
        ]
        return scatter_scores(len(completions), places, values)

    @property
    def _column(self) -> str:
        return self.column or "prompt"

    def _wanted(self, value: Any) -> str | None:
        """The wanted text in normal form; None where there is none."""
        text = value if self.column is not None else quoted_text(text_of_question(value))
        if text is None:
            return None
        if not isinstance(text, str) or not self._normalise(text):
            raise DataError(
                f"The column {self._column!r} holds {value!r:.80}, which has no text to read in the image, for "
                f"{self.name!r}.",
                fix="write a text that is not empty, or null for a row that the reward does not apply to.",
            )
        return self._normalise(text)

    def _normalise(self, text: str) -> str:
        text = "".join(text.split()) if self.ignore_spaces else " ".join(text.split())
        return text.casefold() if self.ignore_case else text

    def _value(self, read: str, wanted: str) -> float:
        read = self._normalise(read)
        if read == wanted or (self.extra_text and wanted in read):
            return 1.0
        return self._partial(read, wanted)

    def _partial(self, read: str, wanted: str) -> float:
        return max(1 - edit_distance(read, wanted) / len(wanted), 0.0)


@reward("ocr_exact", info=replace(OCR, range=BINARY))
@dataclass(eq=False, kw_only=True)
class OcrExact(Ocr):
    """1 if the text that OCR reads in the image is the wanted one, else 0; texts and options as of `ocr`."""

    name: ClassVar[str] = "ocr_exact"

    def _partial(self, read: str, wanted: str) -> float:
        return 0.0


def quoted_text(prompt: str) -> str | None:
    """The first text in double quotes, straight or curly; None if there is none."""
    found = _QUOTED.search(prompt)
    return None if found is None else found[1] if found[1] is not None else found[2]


def edit_distance(first: str, second: str) -> int:
    """Levenshtein distance: insertions, deletions and substitutions of characters, at cost 1 each."""
    row = list(range(len(second) + 1))
    for i, one in enumerate(first, 1):
        last, row[0] = row[0], i
        for j, other in enumerate(second, 1):
            last, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, last + (one != other))
    return row[-1]


class OcrReader:
    """Images -> the text in each: its lines from top to bottom, joined by spaces; empty where nothing is read.

    `detect` False: the image is taken as one line of text, which is faster. `detect_side`: the longer side of images
    for the detector, in pixels. `line_width`: width to which shorter lines are padded at a height of 48 pixels; less is
    faster. Lines of a confidence below `min_confidence` are left out. `threads` images are read at once, each with one
    thread. The texts of the last images are kept, for a second reward of the same images.
    """

    def __init__(
        self,
        *,
        detect: bool = True,
        detect_side: int = 960,
        line_width: int = 320,
        min_confidence: float = 0.5,
        threads: int = 1,
    ) -> None:
        from rapidocr import RapidOCR

        self.min_confidence, self.threads = min_confidence, threads
        self._last: tuple[Sequence[Image.Image], list[str]] = ((), [])
        self._engine: Callable[[Any], Any] = RapidOCR(
            params={
                "Global.log_level": "critical",
                "Global.use_det": detect,
                "Global.use_cls": False,
                "Global.text_score": 0.0,
                "Det.limit_type": "max",
                "Det.limit_side_len": detect_side,
                "Rec.rec_img_shape": [3, 48, line_width],
                "EngineConfig.onnxruntime.intra_op_num_threads": 1,
                "EngineConfig.onnxruntime.inter_op_num_threads": 1,
            }
        )

    def __call__(self, images: Sequence[Image.Image]) -> list[str]:
        """Raises RewardError where the engine fails."""
        last, texts = self._last
        if len(images) != len(last) or any(a is not b for a, b in zip(images, last, strict=True)):
            with ThreadPoolExecutor(self.threads) as pool:
                texts = list(pool.map(self._text, images))
            self._last = (tuple(images), texts)
        return texts

    def _text(self, image: Image.Image) -> str:
        bgr = np.ascontiguousarray(np.asarray(image.convert("RGB"))[:, :, ::-1])
        try:
            found = self._engine(bgr)
        except Exception as error:  # onnxruntime and OpenCV raise kinds of their own
            raise RewardError(
                f"OCR cannot read an image of {image.width} x {image.height} pixels: {first_line(error)}.",
                fix="check the installation: python -c 'import rapidocr, onnxruntime'.",
            ) from error
        lines = zip(found.txts or (), found.scores or (), strict=True)
        return " ".join(text for text, confidence in lines if confidence >= self.min_confidence)


_READERS: WeakValueDictionary[tuple[Any, ...], OcrReader] = WeakValueDictionary()


def shared_reader(detect: bool, detect_side: int, line_width: int, min_confidence: float, threads: int) -> OcrReader:
    """One reader for all rewards with the same options."""
    options = (detect, detect_side, line_width, min_confidence, threads)
    reader = _READERS.get(options)
    if reader is None:
        reader = _READERS[options] = OcrReader(
            detect=detect,
            detect_side=detect_side,
            line_width=line_width,
            min_confidence=min_confidence,
            threads=threads,
        )
    return reader
