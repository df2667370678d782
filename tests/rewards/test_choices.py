"""Multiple choice: the tricky ways to choose, and not to choose."""

import pytest

from motet.rewards.choices import chosen_letter, letter_of, options_of

ANIMALS = ["cat", "dog", "two red birds", "none of them"]

CHOSEN = [
    ("B", "B"),
    ("b", "B"),
    ("b.", "B"),
    ("(B)", "B"),
    ("[b]", "B"),
    ("B)", "B"),
    ("B:", "B"),
    (" **B** ", "B"),
    ("`B`", "B"),
    (r"\boxed{B}", "B"),
    ("A", "A"),
    ("a", "A"),
    ("The answer is (B)", "B"),
    ("The answer is B.", "B"),
    ("the correct answer is: b", "B"),
    ("Answer: B", "B"),
    ("My final answer is option B", "B"),
    ("Option B", "B"),
    ("Choice B.", "B"),
    ("I choose B", "B"),
    ("I think it's B", "B"),
    ("So, the answer is B", "B"),
    ("It's B", "B"),
    ("option B because A is wrong", "B"),
    ("B because A is wrong", "B"),
    ("B, because option A is wrong and C too", "B"),
    ("B. Because it barks", "B"),
    ("B (since A meows)", "B"),
    ("B, not A", "B"),
    ("B rather than A", "B"),
    ("B because the answer is B", "B"),
    ("B is correct", "B"),
    ("B is the right answer.", "B"),
    ("dog", "B"),
    ("Dog.", "B"),
    ("a dog", "B"),
    ("A dog", "B"),
    ("the answer is dog", "B"),
    ("It is a dog", "B"),
    ("dog because it barks", "B"),
    ("B. dog", "B"),
    ("(B) dog", "B"),
    ("B: a dog", "B"),
    ("B (dog)", "B"),
    ("2 red birds", "C"),
    ("C. 2 red birds", "C"),
    ("None of them", "D"),
    # no choice, or more than one
    ("", None),
    (".", None),
    ("A or B", None),
    ("A, B", None),
    ("A and B", None),
    ("A B", None),
    ("AB", None),
    ("A/B", None),
    ("cat or dog", None),
    ("cat, dog", None),
    ("A. cat B. dog", None),
    ("B. cat", None),
    ("A. dog", None),
    ("B as well as A", None),
    ("The answer is A. The answer is B.", None),
    ("A or B because they are animals", None),
    ("B because the answer is A", None),
    ("B because it barks. Answer: A", None),
    ("B since C is the right one", None),
    ("not B", None),
    ("The answer is not B", None),
    ("B is wrong", None),
    ("E", None),
    ("Because", None),
    ("doge", None),
    ("dogs", None),
    ("hot dog", None),
    ("red birds", None),
    ("I do not know", None),
    ("any", None),
    ("Bad question", None),
    ("Answering B", None),
]


@pytest.mark.parametrize(("answer", "letter"), CHOSEN)
def test_chosen_letter(answer, letter):
    assert chosen_letter(answer, ANIMALS) == letter


def test_negative_numbers_keep_their_sign():
    assert chosen_letter("A. -3", ["-3", "3"]) == "A"
    assert chosen_letter("A. 3", ["-3", "3"]) is None
    assert chosen_letter("-3", ["-3", "3"]) == "A"


def test_an_option_may_sound_like_a_lead_or_a_reason():
    options = ["The answer is unknown", "because it rains", "who is right"]
    assert chosen_letter("The answer is unknown", options) == "A"
    assert chosen_letter("B. because it rains", options) == "B"
    assert chosen_letter("who is right", options) == "C"


def test_text_of_two_equal_options_is_no_choice():
    assert chosen_letter("cat", ["cat", "Cat", "dog"]) is None


def test_without_options_any_single_letter_counts():
    assert chosen_letter("The answer is F", None) == "F"
    assert chosen_letter("dog", None) is None


@pytest.mark.parametrize(
    ("gold", "letter"), [("B", "B"), ("(b)", "B"), ("dog", "B"), ("B. dog", "B"), ("E", None), ("bird", None)]
)
def test_letter_of_gold(gold, letter):
    assert letter_of(gold, ANIMALS) == letter


def test_options_come_from_the_column_first():
    assert options_of("Which?\nA. x\nB. y", ["cat", "dog"]) == ["cat", "dog"]


def test_options_lose_their_own_letters():
    assert options_of(None, ["A. cat", "(B) dog"]) == ["cat", "dog"]
    assert options_of(None, ["A. cat", "dog"]) == ["A. cat", "dog"]


def test_options_from_lines_of_the_question():
    assert options_of("A. Smith painted what?\nA. a cat\n(B) a dog\nC) none ", None) == ["a cat", "a dog", "none"]
    assert options_of([{"role": "user", "content": [{"type": "text", "text": "?\nA. x\nB. y"}]}], []) == ["x", "y"]
    assert options_of([{"role": "user", "content": "?\nA. x\nB. y"}], None) == ["x", "y"]


@pytest.mark.parametrize(
    ("question", "options"),
    [
        ("What is it? Options: (A) cat (B) dog", ["cat", "dog"]),
        ("which? A. light red B. blue C. green", ["light red", "blue", "green"]),
        ("Vitamin A. Or B. Which? A) one, two; B) three", ["one, two", "three"]),
        ("what shape? A. circle B. square\nThink first.", ["circle", "square"]),
    ],
)
def test_options_one_after_another_in_the_question(question, options):
    assert options_of(question, None) == options


@pytest.mark.parametrize("question", [None, "How many?", "A. only one", "A. x\nC. z", "Who is A. Smith?", "A. B. C."])
def test_no_options(question):
    assert options_of(question, None) is None
