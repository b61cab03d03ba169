"""Who is next when everything is busy. Pure.

Callers take turns, however many requests each of them has waiting; one caller's own requests keep their order. The
queue is bounded. When it is full, the caller with the most waiting gives way: its latest request is turned away, so
nobody can keep the others out by asking more.
"""

from collections import OrderedDict, deque
from collections.abc import Hashable, Iterator
from typing import Generic, TypeVar

Item = TypeVar("Item", bound=Hashable)


class FairQueue(Generic[Item]):
    """Requests that wait, by caller."""

    def __init__(self, most: int) -> None:
        """`most`: how many may wait at all."""
        self.most = most
        self._by_caller: OrderedDict[str, deque[Item]] = OrderedDict()
        """The caller whose turn it is comes first."""
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Item]:
        """In the order in which they will come."""
        turns = [list(waiting) for waiting in self._by_caller.values()]
        for number in range(max(map(len, turns), default=0)):
            yield from (waiting[number] for waiting in turns if number < len(waiting))

    def add(self, caller: str, item: Item) -> Item | None:
        """Lets `item` wait. Returns whoever must go instead, if it is full: maybe `item` itself."""
        self._by_caller.setdefault(caller, deque()).append(item)
        self._count += 1
        if self._count <= self.most:
            return None
        # Of equals the one who came now: who waits already has more claim.
        greedy = max(self._by_caller, key=lambda name: (len(self._by_caller[name]), name == caller))
        turned_away = self._by_caller[greedy][-1]
        self.remove(greedy, turned_away)
        return turned_away

    def pop(self) -> Item | None:
        """The next one; None if nobody waits."""
        if not self._by_caller:
            return None
        caller, waiting = self._by_caller.popitem(last=False)
        item = waiting.popleft()
        self._count -= 1
        if waiting:
            self._by_caller[caller] = waiting
        return item

    def remove(self, caller: str, item: Item) -> None:
        """`item` waits no more."""
        waiting = self._by_caller.get(caller)
        if waiting is not None and item in waiting:
            waiting.remove(item)
            self._count -= 1
            if not waiting:
                del self._by_caller[caller]


def expected_wait(ahead: int, slots: int, answer_seconds: float) -> float:
    """Seconds until the turn of a request with `ahead` others before it, where `slots` answers run at a time."""
    return (ahead + 1) * answer_seconds / max(slots, 1)
