"""The watchdog's thread ends before its process does."""

import threading

from torch.distributed import HashStore

from motet.distributed.meetings import Meetings
from motet.distributed.watchdog import Watchdog


class SlowMeetings(Meetings):
    """A store that takes a while to answer; `inside` is set while somebody waits for it."""

    def __init__(self):
        super().__init__(HashStore(), 0, 1, 1.0)
        self.inside, self.answer = threading.Event(), threading.Event()

    def has_ended(self):
        self.inside.set()
        self.answer.wait(2.0)
        self.inside.clear()
        return False


def test_stop_waits_for_an_answer_that_is_under_way(monkeypatch):
    monkeypatch.setattr("motet.distributed.watchdog.PERIOD", 0.01)
    meetings = SlowMeetings()
    watchdog = Watchdog(meetings)
    assert meetings.inside.wait(2.0)
    threading.Timer(0.2, meetings.answer.set).start()
    watchdog.stop()
    assert not meetings.inside.is_set()
