"""Who is next when everything is busy. Pure.

Callers take turns, on every level: the API keys among each other, those who share a key (by their addresses), and the
users that one of these names. So nobody gains by asking more often, from more places, or under more names than the
others with the same key. One caller's own requests keep their order.

The queue is bounded. When it is full, whoever has the most waiting gives way, again on every level: the latest request
there is turned away.
"""

from collections import OrderedDict, deque
from collections.abc import Hashable, Iterator, Sequence
from typing import Generic, TypeVar

Item = TypeVar("Item", bound=Hashable)


class FairQueue(Generic[Item]):
    """Requests that wait, by caller: the path to it, as ("key", "address", "user"). All paths are equally long."""

    def __init__(self, most: int) -> None:
        """`most`: how many may wait at all."""
        self.most = most
        self._line: _Turns[Item] | None = None

    def __len__(self) -> int:
        return len(self._line) if self._line else 0

    def __iter__(self) -> Iterator[Item]:
        """In the order in which they will come."""
        return iter(self._line or ())

    def add(self, caller: Sequence[str], item: Item) -> Item | None:
        """Lets `item` wait. Returns whoever must go instead, if it is full: maybe `item` itself."""
        if self._line is None:
            self._line = _Turns(len(caller))
        self._line.add(caller, item)
        if len(self) <= self.most:
            return None
        greedy, turned_away = self._line.greediest(caller)
        self._line.remove(greedy, turned_away)
        return turned_away

    def pop(self) -> Item | None:
        """The next one; None if nobody waits."""
        return self._line.pop() if self._line else None

    def remove(self, caller: Sequence[str], item: Item) -> None:
        """`item` waits no more."""
        if self._line:
            self._line.remove(caller, item)


class _Turns(Generic[Item]):
    """Those who wait below one place in the tree of callers, and whose turn it is there."""

    def __init__(self, levels: int) -> None:
        self._levels = levels
        self._own: deque[Item] = deque()
        """Who waits, at the lowest level."""
        self._below: OrderedDict[str, _Turns[Item]] = OrderedDict()
        """On the others: whose turn it is comes first."""
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Item]:
        if not self._levels:
            yield from self._own
        turns = deque(iter(line) for line in self._below.values())
        while turns:
            line = turns.popleft()
            for item in line:
                yield item
                turns.append(line)
                break

    def add(self, caller: Sequence[str], item: Item) -> None:
        self._count += 1
        if not self._levels:
            self._own.append(item)
            return
        if caller[0] not in self._below:
            self._below[caller[0]] = _Turns(self._levels - 1)
        self._below[caller[0]].add(caller[1:], item)

    def pop(self) -> Item:
        """The next one; there is one."""
        self._count -= 1
        if not self._levels:
            return self._own.popleft()
        name, line = self._below.popitem(last=False)
        item = line.pop()
        if line:
            self._below[name] = line
        return item

    def remove(self, caller: Sequence[str], item: Item) -> bool:
        """Whether it was there."""
        if not self._levels:
            found = item in self._own
            if found:
                self._own.remove(item)
        else:
            line = self._below.get(caller[0])
            found = line is not None and line.remove(caller[1:], item)
            if not line:
                self._below.pop(caller[0], None)
        self._count -= found
        return found

    def greediest(self, newcomer: Sequence[str]) -> tuple[list[str], Item]:
        """The latest request of who has the most waiting, and the path to it."""
        if not self._levels:
            return [], self._own[-1]
        # Of equals the one who came now: who waits already has more claim.
        name = max(self._below, key=lambda name: (len(self._below[name]), [name] == list(newcomer[:1])))
        path, item = self._below[name].greediest(newcomer[1:] if [name] == list(newcomer[:1]) else ())
        return [name, *path], item


def expected_wait(ahead: int, slots: int, answer_seconds: float) -> float:
    """Seconds until the turn of a request with `ahead` others before it, where `slots` answers run at a time."""
    return (ahead + 1) * answer_seconds / max(slots, 1)
