"""GenEval: its verdict by hand on boxes, its row logic on a scripted detector, its models as tiny checkpoints."""

from types import SimpleNamespace

import pytest
import torch
from PIL import Image

from motet.config import RewardConfig
from motet.core.errors import ConfigError, DataError
from motet.rewards import bind_policy, resolve
from motet.rewards.image.detector import CLASSES, Detector, Instance, box_of
from motet.rewards.image.gen_eval import COLOURS, GenEvalSpec, _ColourClassifier, clauses, evaluate_clauses, relations
from motet.testing import FakePolicy
from tests.rewards.judges import save_clip, shows


def thing(name, box=(0, 0, 10, 10), score=0.95):
    mask = torch.zeros(100, 100, dtype=torch.bool)
    left, top, right, bottom = box
    mask[top:bottom, left:right] = True
    return Instance(name, score, tuple(map(float, box)), mask)


def colours(*answers):
    return lambda instances, name: list(answers)[: len(instances)]


def verdict(found, include, exclude=(), classify_colours=None):
    return evaluate_clauses(found, GenEvalSpec(clauses(include), clauses(exclude)), classify_colours or colours())


def values(one):
    return one.correct, one.strict, one.partial


COCO = """person bicycle car motorbike aeroplane bus train truck boat traffic_light fire_hydrant stop_sign parking_meter
bench bird cat dog horse sheep cow elephant bear zebra giraffe backpack umbrella handbag tie suitcase frisbee skis
snowboard sports_ball kite baseball_bat baseball_glove skateboard surfboard tennis_racket bottle wine_glass cup fork
knife spoon bowl banana apple sandwich orange broccoli carrot hot_dog pizza donut cake chair sofa pottedplant bed
diningtable toilet tvmonitor laptop mouse remote keyboard cell_phone microwave oven toaster sink refrigerator book clock
vase scissors teddy_bear hair_drier toothbrush"""
LABELS = [name.replace("_", " ") for name in COCO.split()]
"""The labels of Mask2Former's public COCO checkpoints, in order."""
RENAMED = {
    "motorbike": "motorcycle", "aeroplane": "airplane", "sofa": "couch", "pottedplant": "potted plant",
    "diningtable": "dining table", "tvmonitor": "tv", "mouse": "computer mouse", "remote": "tv remote",
    "keyboard": "computer keyboard",
}  # fmt: skip


def test_the_classes_are_cocos_in_its_order():
    assert list(CLASSES) == [RENAMED.get(label, label) for label in LABELS]


@pytest.mark.parametrize(
    ("there", "correct", "strict", "partial"),
    [(2, 0.0, 0.0, 2 / 3), (3, 1.0, 1.0, 1.0), (4, 1.0, 0.0, 2 / 3), (0, 0.0, 0.0, 0.0), (7, 1.0, 0.0, 0.0)],
)
def test_counts(there, correct, strict, partial):
    found = [thing("clock")] * there + [thing("dog")]
    assert values(verdict(found, [{"class": "clock", "count": 3}])) == pytest.approx((correct, strict, partial))


def test_what_is_forbidden_is_never_correct():
    asked = {"include": [{"class": "clock", "count": 1}], "exclude": [{"class": "clock", "count": 2}]}
    assert values(verdict([thing("clock")] * 2, **asked))[:2] == (0.0, 0.0)
    assert values(verdict([thing("clock")], **asked)) == (1.0, 1.0, 1.0)


def test_colours_are_those_of_the_surest():
    asked = [{"class": "car", "count": 2, "color": "red"}]
    cars = [thing("car", score=score) for score in (0.9, 0.8, 0.7)]
    assert values(verdict(cars[:2], asked, classify_colours=colours("red", "red"))) == (1.0, 1.0, 1.0)
    assert values(verdict(cars[:2], asked, classify_colours=colours("red", "blue"))) == (0.0, 0.0, 0.75)
    assert values(verdict(cars, asked, classify_colours=colours("red", "red", "blue"))) == (
        1.0,
        0.0,
        pytest.approx(0.25),
    )
    assert values(verdict([], asked)) == (0.0, 0.0, 0.0)


def test_positions_are_to_what_matched_before():
    asked = [{"class": "dog", "count": 1}, {"class": "cat", "count": 1, "position": ["left of", 0]}]
    dog = thing("dog", (60, 0, 80, 20))
    assert values(verdict([dog, thing("cat", (0, 0, 20, 20))], asked)) == (1.0, 1.0, 1.0)
    right = verdict([dog, thing("cat", (85, 0, 99, 20))], asked)
    assert values(right) == (0.0, 0.0, pytest.approx(2 / 3))  # once, not a 0 and a 1 as in the released code
    assert values(verdict([thing("cat", (0, 0, 20, 20))], asked)) == (0.0, 0.0, pytest.approx(1 / 3))


@pytest.mark.parametrize(
    ("box", "held"),
    [
        ((0, 40, 10, 50), {"left of"}),
        ((90, 40, 99, 50), {"right of"}),
        ((45, 0, 55, 10), {"above"}),
        ((45, 80, 55, 90), {"below"}),
        ((0, 0, 10, 10), {"left of", "above"}),
        ((46, 40, 56, 50), set()),  # off by less than a tenth of both sizes
    ],
)
def test_relations_of_boxes(box, held):
    assert relations(thing("cat", box), thing("dog", (45, 40, 55, 50))) == held


def test_relations_forgive_a_tenth_of_the_sizes():
    """10 off of 20 and 80 wide: 10 - 0.1 * 100 = 0 is no offset; 24 off leaves 14 of 24."""
    wide = thing("bus", (0, 0, 80, 10))
    assert relations(thing("cat", (40, 0, 60, 10)), wide) == set()
    assert relations(thing("cat", (54, 0, 74, 10)), wide) == {"right of"}
    assert relations(thing("cat", (49, 0, 69, 10)), wide) == set()  # 19 off: 9 of 19 is less than half


@pytest.mark.parametrize(
    "clause",
    [
        {"class": "unicorn", "count": 1},
        {"class": "dog"},
        {"class": "dog", "count": 1, "color": "beige"},
        {"class": "dog", "count": 1, "position": ["left of", 0]},
        {"class": "dog", "count": 1, "position": ["beside", 0]},
    ],
)
def test_invalid_clauses_raise(clause):
    with pytest.raises(DataError, match=r"is not a valid GenEval clause"):
        clauses([clause])
    assert clauses([{"class": "dog", "count": 1, "color": None, "position": None}]) == [{"class": "dog", "count": 1}]


# --- the reward


def bound(**options):
    config = RewardConfig(name="gen_eval", options={"detector": "d", "clip": "c", **options})
    return resolve(config, {"image": "image"}, ("prompt", "include", "exclude", "tag"))


def test_rows_choose_their_threshold_and_their_score():
    sure, unsure = thing("dog", score=0.95), thing("dog", score=0.5)
    asked = [[{"class": "dog", "count": 1}]] * 3
    image = Image.new("RGB", (100, 100))
    for score, expected in (("partial", [0.0, 1.0, None]), ("correct", [1.0, 1.0, None]), ("strict", [0.0, 1.0, None])):
        reward = bound(score=score)
        reward.function._detector = lambda images: [[sure, unsure]] * len(images)
        reward.function._clip = None
        told = reward(completions=shows(image, image, image), include=[*asked[:2], None], tag=["x", "counting", "x"])
        assert told == expected


def test_every_row_has_its_own_exclusions():
    asked, never, two = [{"class": "dog", "count": 1}], None, [{"class": "dog", "count": 2}]
    reward, image = bound(score="correct"), Image.new("RGB", (100, 100))
    reward.function._detector = lambda images: [[thing("dog"), thing("dog")]] * len(images)
    reward.function._clip = None
    shown = shows(image, image, image)
    assert reward(completions=shown, include=[asked] * 3, exclude=[never, two, never]) == [1.0, 0.0, 1.0]
    assert reward(completions=shown, include=[None, asked, asked], exclude=[two, never, two]) == [None, 1.0, 0.0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"score": "soft"}, "score='soft' of 'gen_eval' must be one of partial, strict, correct"),
        ({"detector": ""}, "detector='' of 'gen_eval' is not a path"),
        (
            {"threshold": 0.5, "counting_threshold": 0.4},
            r"counting_threshold=0.4 of 'gen_eval' must be a number in \[0.5",
        ),
    ],
)
def test_wrong_options_raise(options, message):
    with pytest.raises(ConfigError, match=message):
        bound(**options)


def save_detector(folder, classes=80, labels=None):
    pytest.importorskip("scipy")
    from transformers import Mask2FormerConfig, Mask2FormerForUniversalSegmentation, SwinConfig
    from transformers.models.mask2former.image_processing_pil_mask2former import Mask2FormerImageProcessorPil

    torch.manual_seed(0)
    swin = SwinConfig(
        image_size=64, embed_dim=8, depths=[1, 1, 1, 1], num_heads=[1, 1, 1, 1], window_size=2,
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )  # fmt: skip
    config = Mask2FormerConfig(
        backbone_config=swin, id2label=dict(enumerate(labels or LABELS[:classes])), feature_size=32,
        mask_feature_size=32, hidden_dim=32, num_queries=5,
        encoder_layers=1, decoder_layers=2, num_attention_heads=2, encoder_feedforward_dim=32, dim_feedforward=32,
    )  # fmt: skip
    Mask2FormerForUniversalSegmentation(config).save_pretrained(folder)
    Mask2FormerImageProcessorPil(size={"height": 64, "width": 64}).save_pretrained(folder)
    return folder


def test_the_models_load_and_score(tmp_path):
    detector, clip = save_detector(tmp_path / "detector"), save_clip(tmp_path / "clip")
    reward = bound(detector=str(detector), clip=str(clip), threshold=0.0, counting_threshold=0.0)
    (reward,) = bind_policy([reward], FakePolicy())
    images = [Image.new("RGB", (40, 30), "red"), Image.effect_noise((30, 40), 90).convert("RGB")]
    found = reward.function._detector(images)
    assert len(found) == 2 and sum(map(len, found)) > 0
    for image, instances in zip(images, found, strict=True):
        assert [i.score for i in instances] == sorted((i.score for i in instances), reverse=True)
        for instance in instances:
            assert instance.mask.shape == (image.height, image.width) and instance.box == box_of(instance.mask)
    name = next(instances[0].name for instances in found if instances)
    asked = [{"class": name, "count": 1, "color": "red"}]
    told = reward(completions=shows(*images), include=[asked, asked])
    assert all(value is not None and 0 <= value <= 1 for value in told)


class Bright(torch.nn.Module):
    """Finds one cat: what is bright."""

    device = torch.device("cpu")

    def forward(self, pixel_values, pixel_mask=None):
        side = [length // 4 for length in pixel_values.shape[-2:]]
        bright = torch.nn.functional.interpolate(pixel_values.mean(dim=1, keepdim=True), size=side, mode="area")
        classes = torch.full((len(pixel_values), 1, 81), -10.0)
        classes[..., 15] = 10.0
        return SimpleNamespace(class_queries_logits=classes, masks_queries_logits=20 * bright)


@pytest.mark.parametrize(
    "settings",
    [
        {"size": {"height": 64, "width": 64}},
        {"size": {"shortest_edge": 64, "longest_edge": 128}},  # pads to the largest of a batch
        {"do_resize": False},
    ],
)
def test_boxes_are_right_in_batches_of_mixed_sizes(settings):
    pytest.importorskip("scipy")
    from transformers.models.mask2former.image_processing_pil_mask2former import Mask2FormerImageProcessorPil

    detector = Detector(Bright(), Mask2FormerImageProcessorPil(**settings), threshold=0.3, batch_size=8)
    images, boxes = [], []
    for width, height in ((100, 50), (50, 100), (80, 80), (100, 50)):
        boxes.append((width // 2, height // 2, width - width // 10, height - height // 10))
        images.append(Image.new("RGB", (width, height), "black"))
        images[-1].paste("white", boxes[-1])
    for box, found in zip(boxes, detector(images), strict=True):
        (instance,) = found
        assert instance.name == "cat" and instance.box == pytest.approx(box, abs=2)


def test_colours_come_from_the_crop_on_grey(tmp_path):
    seen = []

    class Clip:
        def images(self, crops):
            seen.extend(crops)
            return torch.eye(10)[[3]]

        def texts(self, texts):
            assert len(texts) == 30 and texts[:3] == [
                "a photo of a red cat",
                "a photo of a red-colored cat",
                "a photo of a red object",
            ]
            return torch.eye(10).repeat_interleave(3, dim=0)

    image = Image.new("RGB", (100, 100), "green")
    assert _ColourClassifier(image, Clip())([thing("cat", (10, 20, 40, 30))], "cat") == [COLOURS[3]] == ["green"]
    assert seen[0].size == (30, 10) and seen[0].getpixel((0, 0)) == (0, 128, 0)
    holed = thing("cat", (10, 20, 40, 30))
    holed.mask[20:22] = False
    _ColourClassifier(image, Clip())([holed], "cat")
    assert seen[1].getpixel((0, 0)) == (153, 153, 153) and seen[1].getpixel((0, 5)) == (0, 128, 0)


def test_without_scipy_the_extra_is_named(monkeypatch):
    monkeypatch.setattr("motet.rewards.image.detector.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"motet\[detection\]"):
        bind_policy([bound()], FakePolicy())


def test_a_detector_of_other_classes_raises(tmp_path):
    folder = save_detector(tmp_path / "detector", classes=7)
    with pytest.raises(ConfigError, match=r"has 7 classes, expected COCO's 80"):
        Detector.open(str(folder), torch.device("cpu"), key="k", threshold=0.3, batch_size=1)


def test_a_detector_whose_classes_are_in_another_order_raises(tmp_path):
    swapped = [*LABELS]
    swapped[15], swapped[16] = swapped[16], swapped[15]
    folder = save_detector(tmp_path / "detector", labels=swapped)
    with pytest.raises(ConfigError, match=r"calls class 15 'dog'; in COCO's order it is 'cat'"):
        Detector.open(str(folder), torch.device("cpu"), key="k", threshold=0.3, batch_size=1)
