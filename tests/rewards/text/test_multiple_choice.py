"""Multiple choice: the tricky ways to choose, and not to choose."""

import time
from itertools import permutations

import pytest

from motet.rewards.text.choice_parsing import chosen_letter, letter_of
from motet.rewards.text.multiple_choice import options_of

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


EXPLAINED = [
    ("The correct answer is B. Here's why the others fail.", "B"),
    ("The correct answer is B. Here's why: A is wrong, and C shows no birds.", "B"),
    ("**Answer: B**\n\nThe animal in the picture barks.", "B"),
    ("Answer:\n\nB\n\nExplanation: the animal barks at a man.", "B"),
    ("B\n\nThe animal barks.", "B"),
    ("B.\n\nA dog has four legs and barks.", "B"),
    ("(B)\nThe picture shows a dog, not a cat.", "B"),
    ("B. dog\n\nOption A is wrong because there is no cat.", "B"),
    ("dog. It barks at the man.", "B"),
    ("B is correct. The animal barks loudly.", "B"),
    ("A\n\nThe picture shows a cat.", "A"),
    ("It barks, so the answer is B.", "B"),
    ("A is a cat and C shows birds, so the answer is B.", "B"),
    ("The animal barks. Therefore, the correct answer is (B) dog.", "B"),
    ("It barks; hence the answer is: B", "B"),
    ("The animal barks.\n\nFinal answer: B", "B"),
    ("The animal barks. The answer is B.", "B"),
    ("Based on the image, the correct answer is B.", "B"),
    ("Ans: B", "B"),
    ("Ans. B", "B"),
    ("ans = b", "B"),
    ("Solution: B", "B"),
    ("The correct option is (B).", "B"),
    ("The correct one is B.", "B"),
    ("The answer to the question is B.", "B"),
    ("I'd go with B.", "B"),
    ("So, B.", "B"),
    ("The correct answer is B, which is the dog.", "B"),
    ("答案：B", "B"),
    ("答案是B。", "B"),
    ("正确答案是：Ｂ", "B"),
    ("故选B", "B"),
    ("它会叫，所以答案是B。", "B"),
    ("Ｂ", "B"),
    ("（Ｂ）", "B"),
    ("Ｂ．dog", "B"),
    ("答案：B。因为它会叫。", "B"),
    # no choice, or more than one
    ("B\n\nA", None),
    ("B\nC", None),
    ("B\n\nC and D are possible as well", None),
    ("B\n\ncat", None),
    ("B\n\nIt is a cat.", None),
    ("B\n\nThe picture shows a cat.", None),
    ("B\n\nThe answer is A.", None),
    ("B\n\nWait, it looks like a cat.", None),
    ("B\n\nThat is wrong, of course.", None),
    ("B\n\nJust kidding, it's A.", None),
    ("B\n\nOr maybe the first one.", None),
    ("B\n\nis not the answer", None),
    ("B\n\nIs not what I see.", None),
    ("B\n\nNot the right one.", None),
    ("B\n\nA is not wrong.", None),
    ("B\n\nI would take A instead of B.", None),
    ("B\n\nThis is what one says; the truth is A.", None),
    ("B\n\nDo you agree with this?", None),
    ("A. cat\nB. dog", None),
    ("A. cat\nB. dog\nC. two red birds\nD. none of them", None),
    ("B. dog\nC. two red birds", None),
    ("1. A\n2. B\n3. C", None),
    ("B. Smith drew this picture.", None),
    ("The correct answer is B. Wait, no, it is A.", None),
    ("The correct answer is B. Or C is correct.", None),
    ("The correct answer is B. A is also correct.", None),
    ("The correct answer is B. cat", None),
    ("The correct answer is not B. Here's why I say so.", None),
    ("The correct answer is B. Actually, A fits better.", None),
    ("The correct answer is B. Not A but C is another.", None),
    ("The answer is B. False.", None),
    ("The answer is B. The answer is C.", None),
    ("B, not A. Actually A.", None),
    ("B because it barks. It's A", None),
    ("B, which is wrong", None),
    ("It barks, so the answer is not B.", None),
    ("It barks, so the answer is A or B.", None),
    ("It barks, so the answer is B?", None),
    ("It barks, so the answer is B. Or A.", None),
    ("If it barks, the answer is B.", None),
    ("If it barks, so the answer is B.", None),
    ("I don't think so, the answer is B", None),
    ("They say it barks, so the answer is B.", None),
    ("Anyone who says the answer is B is wrong.", None),
    ("A is right, so the answer is B.", None),
    ("It is not B. So the answer is B.", None),
    ("The answer is A. So the answer is B.", None),
    ("I am not sure. The answer is B.", None),
    ("Is the answer B?", None),
    ("My friend says: the answer is B, which I doubt", None),
    ("Ans: A, B", None),
    ("Ans: not B", None),
    ("Ans: B. cat", None),
    ("Ans: A/B", None),
    ("答案：A或B", None),
    ("答案：A、B", None),
    ("答案不是B", None),
    ("不选B", None),
    ("答案：B，不对，是A", None),
    ("答案：B。错", None),
    ("答案：B。A也对。", None),
    ("答案：B。答案：A。", None),
    ("选A还是B", None),
    ("Ａ或Ｂ", None),
    ("ＡＢ", None),
    ("Ａ，Ｂ", None),
    ("E\n\nThe animal barks.", None),
    ("So Be it.", None),
    ("Choose wisely.", None),
    ("A\n\ndog", None),
    ("A because the answer is dog", None),
    ("B\n\nOption A could be right.", None),
    ("cat is right, therefore the answer is B.", None),
    ("A. So the answer is B.", None),
    ("I choose B. I choose A.", None),
    ("dog. And also a cat.", None),
    ("B\n\nAny of them would do.", None),
    ("For question 1 the answer is A. For question 2 the answer is B.", None),
    ("B: the answer is A", None),
    ("The correct answer is B. The correct answer would be A if it meowed.", None),
]


@pytest.mark.parametrize(("answer", "letter"), CHOSEN + EXPLAINED)
def test_chosen_letter(answer, letter):
    assert chosen_letter(answer, ANIMALS) == letter


FISH = ["cat", "dog", "fish", "bird"]
DENIED = [
    ("The answer is B. There is no cat, so I choose C.", None),
    ("The answer is B. It does not bark, so I go with C.", None),
    ("B\nThere is no dog in the picture, I pick option C.", None),
    ("The answer is B. A cat does not swim, so the animal is a fish.", None),
    ("The answer is B. D cannot be ruled out and I'd choose D.", None),
    ("The answer is B. D cannot be ruled out.", None),
    ("B. I can't rule out D.", None),
    ("B because there is no cat, so I choose C", None),
    ("B because it does not bark, so I pick the fish", None),
    ("B\nIt is not a cat, so C it is.", None),
    ("The answer is B. There is no cat, so I choose c.", None),
    ("The answer is B. There is no cat and I select (C).", None),
    ("The answer is B. It's not a cat; C fits.", None),
    ("The answer is B. There is no cat: C it is.", None),
    ("The answer is B. A is not right and C fits.", None),
    ("It must be C. The answer is B.", None),
    ("The answer is B. Not a cat, I take C.", None),
    ("The answer is B. It's not a cat - it is a fish.", None),
    ("The answer is B. It is not a dog at all.", None),
    ("The answer is B. I do not pick B.", None),
    ("The answer is B. I can't go with option B.", None),
    ("B\n\nThere is no dog.", None),
    ("There is no cat, so I pick C. So the answer is B.", None),
    ("B。没有猫，所以选C。", None),
    ("The answer is B. A and C are wrong.", "B"),
    ("The answer is B. A, C and D are wrong.", "B"),
    ("答案：B。A、C都是错的。", "B"),
    ("The answer is B. There is no cat and no fish.", "B"),
    ("The answer is B. There is no cat, so I go with the dog.", "B"),
    ("The answer is B. I would not choose A.", "B"),
    ("The answer is B. It barks, so A is wrong.", "B"),
    ("The answer is B. A does not bark, and C shows no fur.", "B"),
    ("B because A is wrong, so I choose B", "B"),
    ("The answer is B. A dog is not a cat.", "B"),
]


@pytest.mark.parametrize(("answer", "letter"), DENIED)
def test_a_denial_hides_no_other_choice(answer, letter):
    assert chosen_letter(answer, FISH) == letter


PAIRS = [
    "{x} {y}", "{x}. {y}.", "{x}\n{y}", "{x}\n\n{y}", "{x}; {y}", "{x}:\n{y}", "{x}\n- {y}", "({x}) ({y})",
    "{x}。{y}。",
    "The answer is {x}. The answer is {y}.", "The answer is {x}.\n\nThe answer is {y}.", "{x}, so the answer is {y}.",
    "The answer is {x}. So the answer is {y}.", "The answer is {x}, or {y}.", "{x} and {y}", "both {x} and {y}",
    "either {x} or {y}", "{x} because the answer is {y}", "Ans: {x}\nAns: {y}", "答案：{x}。答案：{y}。",
    "答案是{x}，{y}", "{x}\n\nExplanation: {y}", "{x}\n\nThe other answer is {y}.", "Not {x}, not {y}.",
    "{x} is correct. {y} is correct.", "{x} is correct. {y} is also correct.", "Option {x}. Option {y}.",
    "The correct answer is {x}. Here is why {y} is right.", "The correct answer is {x}. Here is why: {y}.",
    "I choose {x}. I choose {y}.", "{x}\n\nOption {y} could be right.", "{x}\n\nThe right one is {y}.",
    "So {x}. So {y}.", "Is it {x}? Then the answer is {y}.", "{x} is right, therefore the answer is {y}.",
]  # fmt: skip


@pytest.mark.parametrize("template", PAIRS)
def test_two_options_are_no_choice_in_any_words(template):
    for (x, one), (y, other) in permutations(zip("ABCD", ANIMALS, strict=True), 2):
        for said in ((x, y), (one, y), (x, other), (one, other)):
            text = template.format(x=said[0], y=said[1])
            if not (template == "{x} {y}" and x == "A" == said[0]):  # `A dog`: an article
                assert chosen_letter(text, ANIMALS) is None, text


def test_long_answers_are_read_in_linear_time():
    barks = "The dog barks. "
    texts = (barks * 500 + "So the answer is B.", "." * 20000, "B because " + "not A. " * 1000, "B\n" * 1000)
    for text in (*texts, "B because " + "word " * 20000, "The answer is B. It is not " + "A, " * 20000):
        began = time.process_time()
        chosen_letter(text, ANIMALS)
        assert time.process_time() - began < 5


def test_negative_numbers_keep_their_sign():
    assert chosen_letter("A. -3", ["-3", "3"]) == "A"
    assert chosen_letter("A. 3", ["-3", "3"]) is None
    assert chosen_letter("-3", ["-3", "3"]) == "A"


def test_an_option_may_sound_like_a_lead_or_a_reason():
    options = ["The answer is unknown", "because it rains", "who is right"]
    assert chosen_letter("The answer is unknown", options) == "A"
    assert chosen_letter("B. because it rains", options) == "B"
    assert chosen_letter("who is right", options) == "C"


def test_text_of_two_equal_options_chooses_none():
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
