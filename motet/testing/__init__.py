"""For tests of policies and of whatever uses them: a policy without a model, and the contract in executable form."""

from motet.testing.fake_policy import CODES, END, FakePolicy, colour_of, number_of

__all__ = ["CODES", "END", "FakePolicy", "colour_of", "number_of"]
