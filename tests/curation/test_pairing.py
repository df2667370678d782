"""Which caption a question gets, and what it covers, by hand."""

import pytest

from motet.core.errors import DataError
from motet.curation import CurationQuestion, curate
from motet.curation.coverage import coverage, entities


def question(solution, image="1", text="What is it?", **more):
    return CurationQuestion(image, text, solution, "Line 1", **more)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("two red buses", {"bus", "red"}),
        ("orange juice", {"orange", "juice"}),
        ("A man on a couch.", {"man", "sofa"}),
        ("skateboarding", {"skateboard"}),
        ("a dog and two cats", {"dog", "cat"}),
        ("red", {"red"}),
        ("yes", set()),
        ("No", set()),
        ("four", set()),
        ("12", set()),
        ("B", set()),
        ("", set()),
    ],
)
def test_entities(text, words):
    assert entities(text) == words


@pytest.mark.parametrize(
    ("text", "caption", "share"),
    [
        ("a red bus and a dog", "a dog beside a bus", 2 / 3),
        ("a red bus and a dog", "red buses", 2 / 3),
        ("a red bus and a dog", "a cat", 0),
        ("a red bus and a dog", "the dog looks at two big red buses", 1),
        ("orange juice", "a glass of apple juice", 1 / 2),
        ("sofa", "a cat sleeping on a couch", 1),
        ("skateboarding", "a man skateboarding in a park", 1),
        ("red", "a train with a red car", 1),
    ],
)
def test_coverage(text, caption, share):
    assert coverage(entities(text), caption) == pytest.approx(share)


def test_the_caption_that_covers_most_is_taken():
    done = curate([question("a red bus and a dog")], {"1": ["a bus", "a dog beside a bus", "a red car"]})
    assert done.rows == [
        {
            "real_image": "1",
            "prompt": "a dog beside a bus",
            "qa_problem": "Question: What is it?\n\nThink first, then give one to three words, in this form: "
            "<think>...</think><answer>...</answer>",
            "qa_solution": "<answer>a red bus and a dog</answer>",
            "qa_type": "OE",
            "concept_coverage": pytest.approx(2 / 3),
        }
    ]


def test_of_equals_the_first_is_taken():
    done = curate([question("a bus")], {"1": ["a car", "a bus on a street", "a bus"]})
    assert done.rows[0]["prompt"] == "a bus on a street"


def test_only_the_images_own_captions_count():
    done = curate([question("a bus")], {"2": ["a bus"], "1": ["a dog"]})
    assert (done.rows[0]["prompt"], done.rows[0]["concept_coverage"]) == ("a dog", 0)


def test_counts_mean_and_histogram():
    asked = [
        question("a bus"),  # 1
        question("a bus"),  # again
        question("a bus and a dog", text="And now?"),  # 1/2
        question("a red bus, a dog, a cat", text="What else?"),  # 1/4
        question("a cat", text="Really?"),  # 0
        question("yes", text="Is it?"),  # unknown
        question("a bus", image="2"),  # no caption
        question("a bus", image="3"),  # no words at all
    ]
    done = curate(asked, {"1": ["a bus", "a train"], "3": []})
    assert done.coverages == [1, 0.5, 0.25, 0]
    assert done.mean == pytest.approx(1.75 / 4)
    assert done.histogram() == {"none": 1, "up to 1/4": 1, "up to 1/2": 1, "up to 3/4": 0, "below all": 0, "all": 1}
    assert (done.duplicates, done.without_entities, done.num_below) == (1, 1, 0)
    assert [q.image for q in done.without_caption] == ["2", "3"]
    assert [row["concept_coverage"] for row in done.rows] == [1, 0.5, 0.25, 0, None]
    assert done.rows[4]["prompt"] == "a bus"


def test_the_floor_is_included_and_spares_what_has_no_coverage():
    asked = [question("a bus"), question("a bus and a dog", text="b"), question("a cat", text="c"), question("4")]
    done = curate(asked, {"1": ["a bus"]}, min_coverage=0.5)
    assert [row["concept_coverage"] for row in done.rows] == [1, 0.5, None] and done.num_below == 1
    assert done.coverages == [1, 0.5, 0]
    done = curate(asked, {"1": ["a bus"]}, min_coverage=0.5, keep_without_entities=False)
    assert [row["concept_coverage"] for row in done.rows] == [1, 0.5] and done.without_entities == 1


def test_without_any_coverage_there_is_no_mean():
    assert curate([question("yes")], {"1": ["a bus"]}).mean is None


@pytest.mark.parametrize("gold", ["B", "a dog", "B. a dog", "<answer>B</answer>"])
def test_an_option_is_covered_by_its_words(gold):
    one = question(gold, options=("a cat", "a dog"))
    (row,) = curate([one], {"1": ["a cat", "two dogs"]}).rows
    assert (row["prompt"], row["concept_coverage"], row["qa_type"]) == ("two dogs", 1, "MC")
    assert row["qa_problem"].startswith(
        "Question: What is it?\nOptions:\nA. a cat\nB. a dog\n\nThink first, then give the"
    )
    assert row["qa_solution"] == f"<answer>{gold.removeprefix('<answer>').removesuffix('</answer>')}</answer>"


def test_options_may_be_lines_of_the_question():
    asked = question("A", text="Which?\nA. a cat\nB. a dog")
    (row,) = curate([asked], {"1": ["a dog", "cats"]}).rows
    assert (row["prompt"], row["qa_type"]) == ("cats", "MC") and row["qa_problem"].count("A. a cat") == 1


def test_complete_problems_are_unchanged():
    text, solution = "Which? Write <answer> </answer>.", "<think>I see it.</think><answer>a dog</answer>"
    (row,) = curate([question(solution, text=text, extra_columns={"prompt": "x", "extra": 3})], {"1": ["a dog"]}).rows
    assert (row["qa_problem"], row["qa_solution"], row["extra"], row["prompt"]) == (text, solution, 3, "a dog")
    assert row["concept_coverage"] == 1  # of `a dog` alone


def test_options_stay_with_a_question_that_is_whole():
    text = "Which? Write <answer> </answer>."
    (row,) = curate([question("B", text=text, options=("a cat", "a dog"))], {"1": ["a dog"]}).rows
    assert row["qa_problem"] == f"{text}\nOptions:\nA. a cat\nB. a dog" and row["qa_type"] == "MC"


def test_a_solution_that_is_none_of_its_options_is_left_out():
    invalid_gold = question("E", options=("a cat", "a dog"))
    done = curate([invalid_gold, question("a dog")], {"1": ["a dog"]})
    assert done.invalid_gold == [invalid_gold] and [row["qa_type"] for row in done.rows] == ["OE"]


def test_target_entities_may_be_given():
    captions = ["a cat", "people eat pizza", "pizza"]
    done = curate(
        [question("pepperoni", target_entities=("pizza", "person"))],
        {"1": captions},
    )
    assert (done.rows[0]["prompt"], done.rows[0]["concept_coverage"]) == ("people eat pizza", 1)
    assert curate([question("pepperoni", target_entities=())], {"1": ["a cat"]}).without_entities == 1


def test_images_that_are_named_otherwise_are_an_error():
    with pytest.raises(DataError, match="No question's image has a caption: questions name '9', captions '0009'"):
        curate([question("a bus", image="9")] * 2, {"0009": ["a bus"]})
