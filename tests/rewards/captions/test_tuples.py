"""The caption reader on captions as people write them under photographs, and on the prompts of the shapes world."""

import pytest

from motet.rewards.captions.lexicon import canonical, singular
from motet.rewards.captions.tuples import scene_tuples, tuple_f1


def tuples(text):
    """`dog; dog 2; dog on sofa` -> tuples: the middle word of three is the relation, with `_` for a blank."""
    return {tuple(word.replace("_", " ") for word in part.split()) for part in text.split(";") if part.strip()}


SCENES = [
    ("a man riding a wave on a surfboard", "man; wave; surfboard; man ride wave; wave on surfboard"),
    ("two dogs play in the snow", "dog; dog 2; dog play; snow; dog in snow"),
    ("A group of people standing around a kitchen.", "person; person stand; kitchen; person around kitchen"),
    ("three men and a woman wearing hats", "man; man 3; woman; hat; man wear hat; woman wear hat"),
    ("a plate of food with broccoli and carrots", "plate; food; plate of food; broccoli; carrot; food with broccoli; "
     "food with carrot"),
    ("a stop sign on the corner of a street", "sign; sign stop; corner; street; sign on corner; corner of street"),
    ("The bus is red and white.", "bus; bus red; bus white"),
    ("a black and white cat", "cat; cat black; cat white"),
    ("There is a cat that is sitting on a wooden bench.", "cat; cat sit; bench; bench wooden; cat on bench"),
    ("people watch a man who is flying a kite", "person; man; person watch man; kite; man fly kite"),
    ("a woman holding a tennis racket while a man watches", "woman; racket; racket tennis; woman hold racket; man; "
     "man watch"),
    ("a dog is held by a man", "dog; man; man hold dog"),
    ("a kitchen with a stove, a refrigerator and a sink", "kitchen; oven; refrigerator; sink; kitchen with oven; "
     "kitchen with refrigerator; kitchen with sink"),
    ("a cat and a dog sitting on a sofa", "cat; dog; sofa; cat sit; dog sit; cat on sofa; dog on sofa"),
    ("a man riding a horse and a dog running beside a fence", "man; horse; man ride horse; dog; dog run; fence; "
     "dog next_to fence"),
    ("several sheep grazing in a grassy field",
     "sheep; sheep several; sheep graze; field; field grassy; sheep in field"),
    ("a couple of giraffes near a tree", "giraffe; giraffe 2; tree; giraffe next_to tree"),
    ("two fruit stands", "stand; stand 2; stand fruit"),
    ("a sleeping cat", "cat; cat sleep"),
    ("a tall brick building", "building; building tall; building brick"),
    ("a large truck parked next to a small building", "truck; truck big; truck park; building; building small; "
     "truck next_to building"),
    ("A person's hand holding a cell phone", "hand; hand person; phone; phone cell; hand hold phone"),
    ("a close-up of a pizza", "pizza"),
    ("", ""),
    ("  ...", ""),
    # real captions
    ("a tube of paint", "tube; paint; tube of paint"),
    ("a bucket of white paint", "bucket; paint; paint white; bucket of paint"),
    ("a can of spray paint", "can; paint; paint spray; can of paint"),
    ("a woman painting a wall", "woman; wall; woman paint wall"),
    ("a wall painting of a ship", "painting; painting wall; ship; painting of ship"),
    ("please draw a cat", "cat"),
    ("a TV show", "show; show television"),
    ("a red car — a blue truck", "car; car red; truck; truck blue"),
    ("a red car—a blue truck", "car; car red; truck; truck blue"),
    ("a red car -- a blue truck", "car; car red; truck; truck blue"),
    ("a dog (brown) on a sofa", "dog; dog brown; sofa; dog on sofa"),
    ("a dog/cat", "dog; cat"),
    ("a man — wearing a hat — sits on a bench", "man; hat; man wear hat; man sit; bench; man on bench"),
    ("a man smiling, holding a cup", "man; man smile; cup; man hold cup"),
    ("a cat, sleeping dogs and a bird", "cat; dog; dog sleep; bird"),
    ("A cat—black and small—sleeps", "cat; cat black; cat small; cat sleep"),
    ("an old Chinese sailing ship", "ship; ship old; ship chinese; ship sail"),
    ("an old, Chinese, sailing ship", "ship; ship old; ship chinese; ship sail"),
    ("the man's running shoes", "shoe; shoe man; shoe run"),
    ("a modern Japanese living room", "room; room modern; room japanese; room living"),
    ("a boat sailing on a lake", "boat; boat sail; lake; boat on lake"),
    ("a big, red bus", "bus; bus big; bus red"),
    ("a bucket full of paint", "bucket; bucket full; paint; bucket of paint"),
    ("a stethoscope lets your doctor hear", "stethoscope; doctor; stethoscope let doctor; doctor hear"),
    ("a stethoscope lets your doctor hear your heart",
     "stethoscope; doctor; heart; stethoscope let doctor; doctor hear heart"),
    ("a microscope allows a scientist to see bacteria",
     "microscope; scientist; bacteria; microscope allow scientist; scientist see bacteria"),
    ("people watch a man fly a kite", "person; man; kite; person watch man; man fly kite"),
    ("a hammer is used to drive nails into wood",
     "hammer; hammer use; nail; hammer drive nail; wood; nail in wood"),
    ("a man walking to a bus", "man; man walk; bus; man to bus"),
    # the shapes world
    ("two red circles", "circle; circle 2; circle red"),
    ("please draw three crosses", "cross; cross 3"),
    ("a picture of a red circle and a blue square", "circle; circle red; square; square blue"),
    ("a blue square above a cross", "square; square blue; cross; square above cross"),
    ("a cross below a blue square", "square; square blue; cross; square above cross"),
    ("a red circle left of a star", "circle; circle red; star; circle left_of star"),
    ("a star to the right of a red circle", "circle; circle red; star; circle left_of star"),
]  # fmt: skip


@pytest.mark.parametrize(("caption", "wanted"), SCENES)
def test_tuples_of_a_caption(caption, wanted):
    assert scene_tuples(caption) == tuples(wanted)


SAME = [
    ("a man next to a dog", "a guy beside a puppy"),
    ("a cat under a table", "a table above a cat"),
    ("the car is parked", "a parked car"),
    ("2 dogs", "two dogs"),
    ("Red apples!", "red apple"),
]


@pytest.mark.parametrize(("first", "second"), SAME)
def test_the_same_scene_in_other_words(first, second):
    assert tuple_f1(first, second) == 1.0


def test_f1_by_hand():
    reference = "two brown dogs on a sofa"  # dog, brown, 2, sofa, on: five tuples
    assert tuple_f1("a brown dog", reference) == pytest.approx(2 * 2 / (2 + 5))
    assert tuple_f1("a brown dog on a couch", reference) == pytest.approx(2 * 4 / (4 + 5))
    assert tuple_f1("three brown dogs on a sofa", reference) == pytest.approx(2 * 4 / (5 + 5))
    assert tuple_f1("a sofa on two brown dogs", reference) == pytest.approx(2 * 4 / (5 + 5))
    assert tuple_f1("a red bus", reference) == tuple_f1("", reference) == tuple_f1("", "") == 0.0


def test_a_longer_list_of_everything_does_not_win():
    prompt = "a cat on a red chair"
    listed = "a cat, a dog, a bird, a chair, a table, a lamp, a bus, a tree and a car"
    assert tuple_f1(listed, prompt) < tuple_f1("a cat on a chair", prompt)


SINGULAR = [
    ("dogs", "dog"), ("buses", "bus"), ("men", "man"), ("women", "woman"), ("children", "child"), ("people", "person"),
    ("knives", "knife"), ("leaves", "leaf"), ("feet", "foot"), ("sheep", "sheep"), ("cities", "city"),
    ("cookies", "cookie"), ("boxes", "box"), ("benches", "bench"), ("dishes", "dish"), ("glasses", "glass"),
    ("horses", "horse"), ("vases", "vase"), ("giraffes", "giraffe"), ("tomatoes", "tomato"), ("shoes", "shoe"),
    ("gloves", "glove"), ("bus", "bus"), ("grass", "grass"), ("cactus", "cactus"), ("tennis", "tennis"),
    ("scissors", "scissors"), ("crosses", "cross"), ("toys", "toy"),
]  # fmt: skip


@pytest.mark.parametrize(("plural", "single"), SINGULAR)
def test_singular(plural, single):
    assert singular(plural) == single
    assert singular(single) == single


def test_synonyms_are_singular_and_settled():
    assert [canonical(word) for word in ("guys", "couches", "bikes", "dogs")] == ["man", "sofa", "bicycle", "dog"]
