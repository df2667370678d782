"""Workers of tests that import next to nothing, so that a process starts at once."""

import os
import signal
import time
from pathlib import Path

from motet.core.errors import ConfigError
from motet.distributed.supervisor import Status


class Calculator:
    """Does what its work says: a number is doubled."""

    def do(self, work, shared=None):
        if work == "hang":
            time.sleep(600)
        if work == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if work == "raise":
            raise ConfigError("It is wrong.", fix="correct it.")
        if work == "break":
            raise ValueError("a bug")
        if isinstance(work, str):  # the path of a file: die if it is not there yet
            if not Path(work).exists():
                Path(work).touch()
                os.kill(os.getpid(), signal.SIGKILL)
            return work
        return 2 * work, shared


class SmallTrainer:
    """`plan`: "done", "hang", or the path of a file without which it dies."""

    def __init__(self, plan):
        self.plan, self.asked, self.said = plan, False, False

    def address(self):
        return "127.0.0.1", 1

    def run(self, place):
        if self.plan == "hang":
            time.sleep(600)
        elif self.plan == "until asked":
            while not self.asked:
                time.sleep(0.05)
        elif self.plan != "done" and not Path(self.plan).exists():
            time.sleep(0.5)  # be seen in a phase
            Path(self.plan).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return place.rank, os.getpid()

    def status(self):
        output, self.said = [] if self.said else [("train 1/4\n", False)], True
        return Status(output, "rewards")

    def stop(self):
        self.asked = True
