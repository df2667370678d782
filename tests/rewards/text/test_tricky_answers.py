"""A hundred tricky completions: what each is worth as an answer and as a format, and why.

The rule behind the column of reasons: an answer counts when a strict reader would accept it, and nothing that a policy
could add, repeat or leave out may make it count.
"""

import pytest

from motet.rewards.text.exact_match import format_
from motet.rewards.text.partial_credit import qa_accuracy
from tests.rewards.judges import says

OPTIONS = ["cat", "dog", "two red birds", "4"]


def t(answer):
    return f"<think>I look.</think><answer>{answer}</answer>"


# completion, gold, right?, well formed?, why
CHOICE = [
    (t("B"), "B", 1, 1, "the letter"),
    (t("b"), "B", 1, 1, "case is style"),
    (t("b."), "B", 1, 1, "a full stop is style"),
    (t("(B)"), "B", 1, 1, "brackets are style"),
    (t("[B]"), "B", 1, 1, "brackets are style"),
    (t("B)"), "B", 1, 1, "half a bracket, as in the question"),
    (t(" B "), "B", 1, 1, "white space is style"),
    (t("\nB\n"), "B", 1, 1, "white space is style"),
    (t("**B**"), "B", 1, 1, "markup is style"),
    (t("$B$"), "B", 1, 1, "markup is style"),
    (t(r"\boxed{B}"), "B", 1, 1, "markup is style"),
    (t('"B"'), "B", 1, 1, "quotes are style"),
    (t("The answer is (B)"), "B", 1, 1, "a lead"),
    (t("The answer is B."), "B", 1, 1, "a lead"),
    (t("The correct answer is B"), "B", 1, 1, "a lead"),
    (t("My final answer: B"), "B", 1, 1, "a lead"),
    (t("Answer: B"), "B", 1, 1, "a lead"),
    (t("Option B"), "B", 1, 1, "a lead"),
    (t("option B because A is wrong"), "B", 1, 1, "the other letter is in the reason"),
    (t("B because A is wrong"), "B", 1, 1, "the other letter is in the reason"),
    (t("B, since C and D are no animals"), "B", 1, 1, "the other letters are in the reason"),
    (t("B, not A"), "B", 1, 1, "A is denied"),
    (t("B rather than A"), "B", 1, 1, "A is denied"),
    (t("I choose B"), "B", 1, 1, "a lead"),
    (t("B is correct"), "B", 1, 1, "said of B"),
    (t("dog"), "B", 1, 1, "the option's text"),
    (t("Dog."), "B", 1, 1, "the option's text"),
    (t("a dog"), "B", 1, 1, "an article is style"),
    (t("It is a dog"), "B", 1, 1, "a lead and the text"),
    (t("B. dog"), "B", 1, 1, "letter and text agree"),
    (t("(B) dog"), "B", 1, 1, "letter and text agree"),
    (t("dog"), "dog", 1, 1, "gold as text"),
    (t("B"), "dog", 1, 1, "gold as text, answer as letter"),
    (t("B"), "B. dog", 1, 1, "gold as both"),
    (t("2 red birds"), "C", 1, 1, "a numeral for a number word"),
    (t("four"), "D", 1, 1, "a number word for a numeral"),
    (t("D. four"), "D", 1, 1, "letter and text agree"),
    (t("A"), "B", 0, 1, "the wrong letter"),
    (t("cat"), "B", 0, 1, "the wrong text"),
    (t("B. cat"), "B", 0, 1, "letter and text disagree"),
    (t("A. dog"), "B", 0, 1, "letter and text disagree"),
    (t("A or B"), "B", 0, 1, "two answers"),
    (t("A, B"), "B", 0, 1, "two answers"),
    (t("A and B"), "B", 0, 1, "two answers"),
    (t("AB"), "B", 0, 1, "two answers"),
    (t("A B C D"), "B", 0, 1, "all answers"),
    (t("cat or dog"), "B", 0, 1, "two answers in words"),
    (t("A. cat B. dog C. two red birds"), "B", 0, 1, "the list copied"),
    (t("The answer is A. The answer is B."), "B", 0, 1, "two claims"),
    (t("B because the answer is A"), "B", 0, 1, "the reason claims another"),
    (t("not B"), "B", 0, 1, "a denial"),
    (t("The answer is not B"), "B", 0, 1, "a denial"),
    (t("B is wrong"), "B", 0, 1, "a denial"),
    (t("E"), "B", 0, 1, "no such option"),
    (t("hot dog"), "B", 0, 1, "another thing"),
    (t("dogs"), "B", 0, 1, "not the option's text"),
    (t("Because it barks"), "B", 0, 1, "a word that begins with B"),
    (t("Boat"), "B", 0, 1, "a word that begins with B"),
    (t("?"), "B", 0, 1, "no answer, though visible"),
    (t("I don't know"), "B", 0, 1, "no answer"),
    (t(""), "B", 0, 0, "empty"),
    (t("   "), "B", 0, 0, "empty to the eye"),
    (t("\u200b"), "B", 0, 0, "empty to the eye"),
]
OPEN = [
    (t("four"), "4", 1, 1, "a number word for a numeral"),
    (t("4"), "four", 1, 1, "a numeral for a number word"),
    (t("4.0"), "4", 1, 1, "the same number"),
    (t("1,000"), "1000", 1, 1, "the same number"),
    (t("twenty-one"), "21", 1, 1, "the same number"),
    (t("The red bus."), "red bus", 1, 1, "article and full stop are style"),
    (t("RED BUS"), "red bus", 1, 1, "case is style"),
    (t("yes!"), "yes", 1, 1, "an exclamation is style"),
    (t("5"), "4", 0, 1, "another number"),
    (t("14"), "4", 0, 1, "contains the gold digit"),
    (t("-4"), "4", 0, 1, "the sign counts"),
    (t("4 or 5"), "4", 0, 1, "two answers"),
    (t("3 4 5"), "4", 0, 1, "a list"),
    (t("red"), "red bus", 0, 1, "half of it"),
    (t("a red bus and a car"), "red bus", 0, 1, "more than it"),
    (t("yes and no"), "yes", 0, 1, "two answers"),
    (t("bus"), "buses", 0, 1, "a plural is another word: soft_answer forgives it in part"),
    (t(""), "yes", 0, 0, "empty: the released code gives 0.9 to it"),
    (t("."), "yes", 0, 1, "a mark is no answer"),
]
STRUCTURE = [
    ("", "B", 0, 0, "nothing"),
    ("B", "B", 0, 0, "no tags"),
    ("<answer>B</answer>", "B", 1, 0, "right, but no thought"),
    ("<think>I look.</think>B", "B", 0, 0, "no answer block"),
    ("<think>I look.</think> \n <answer>B</answer>", "B", 1, 1, "white space between is style"),
    (" <think>I look.</think><answer>B</answer>\n", "B", 1, 1, "white space around is style: one blank broke theirs"),
    ("<think></think><answer>B</answer>", "B", 1, 0, "an empty thought"),
    ("<think> ... </think><answer>B</answer>", "B", 1, 0, "a thought without a word"),
    (t("B") + " junk", "B", 1, 0, "junk after the answer"),
    (t("B") + "<answer>", "B", 0, 0, "an open tag after the answer"),
    ("junk " + t("B"), "B", 1, 0, "junk before the thought"),
    ("<think>I look.</think> so <answer>B</answer>", "B", 1, 0, "junk between"),
    (t("B") + t("B"), "B", 0, 0, "everything twice"),
    (t("A") + "<answer>B</answer>", "B", 0, 0, "two answers in tags"),
    ("<answer>A</answer>" + t("B"), "B", 0, 0, "two answers in tags"),
    ("<think><think>I look.</think></think><answer>B</answer>", "B", 1, 0, "nested thoughts"),
    ("<think>I look.</think><answer><answer>B</answer></answer>", "B", 0, 0, "nested answers"),
    ("<think>I look.</think><answer><b>B</b></answer>", "B", 0, 1, "other markup is not understood"),
    ("<think>is it <answer>B</answer>?</think>", "B", 0, 0, "an answer inside the thought"),
    ("<think>I look.<answer>B</answer>", "B", 0, 0, "the thought never ends"),
    ("<think>I look.</think><answer>B", "B", 0, 0, "cut off"),
    ("<answer>B</answer><think>I look.</think>", "B", 1, 0, "the wrong way round"),
    ("<THINK>I look.</THINK><ANSWER>B</ANSWER>", "B", 0, 0, "tags are lower case"),
    ("< think >I look.</think>< answer >B</answer>", "B", 0, 0, "tags have no blanks"),
    ("<think>I look.</think><answer>B</think></answer>", "B", 0, 0, "a tag inside the answer"),
]


def check(completion, gold, right, formed, kind):
    question = ["Which?"] if kind == "MC" else None
    options = [OPTIONS] if kind == "MC" else None
    assert qa_accuracy(says(completion), [gold], [kind], question, options) == [float(right)]
    assert format_(says(completion)) == [float(formed)]


@pytest.mark.parametrize(("completion", "gold", "right", "formed", "why"), CHOICE)
def test_multiple_choice(completion, gold, right, formed, why):
    check(completion, gold, right, formed, "MC")


@pytest.mark.parametrize(("completion", "gold", "right", "formed", "why"), OPEN)
def test_open_ended(completion, gold, right, formed, why):
    check(completion, gold, right, formed, "OE")


@pytest.mark.parametrize(("completion", "gold", "right", "formed", "why"), STRUCTURE)
def test_structure(completion, gold, right, formed, why):
    check(completion, gold, right, formed, "MC")


def test_there_are_a_hundred():
    assert len({row[0] + row[1] for row in CHOICE + OPEN + STRUCTURE}) >= 100
