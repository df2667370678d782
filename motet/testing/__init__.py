"""For tests: the contract of a policy in executable form, a fake policy, and a fake reward service."""

from motet.testing.check_policy import check_policy
from motet.testing.fake_policy import CODES, END, FakePolicy, colour_of, number_of
from motet.testing.fake_reward_server import FakeRewardServer, Fault
from motet.testing.paper_gpu import PaperGPU, paper_gpu
from motet.testing.report import ClauseResult, PolicyContractError, PolicyReport, Violation

__all__ = [
    "CODES",
    "END",
    "ClauseResult",
    "FakePolicy",
    "FakeRewardServer",
    "Fault",
    "PaperGPU",
    "PolicyContractError",
    "PolicyReport",
    "Violation",
    "check_policy",
    "colour_of",
    "number_of",
    "paper_gpu",
]
