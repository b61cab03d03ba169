"""One backend from spawn to exit, without I/O.

`BackendLifecycle` knows what should happen next to one backend process. Tell it what happened and
when; it answers with orders, which `node.backend` carries out:

    lifecycle.handle(LoadRequested(), now)  ->  [Spawn()]
    lifecycle.handle(ProcessAnswered(), now) -> [Load()]

      LoadRequested     ProcessAnswered      LoadFinished       StopRequested
    STOPPED ──────► STARTING ──────► LOADING ──────► READY ──────────► DRAINING ──► STOPPED
                        ▲  └──────────────┴────────────┤ ProcessExited
                        └──────── BACKING_OFF ◄────────┘

The rules, in full:

1. A model is wanted from the request for it until it is stopped or given up. While it is wanted, a
   process that dies is started again, each time after a longer pause.
2. A process that dies `crash_limit` times without a stretch of `stable_after` seconds of service is
   given up. Whoever waits is told why.
3. What the engine itself says about the weights (`LoadFailed`), or a program that cannot run at all
   (`ProcessExited(is_final=True)`), is believed: no second try.
4. After rule 2 or 3, requests are refused with the same reason for `retry_after` seconds. Then, or
   when a person asks by name (`LoadRequested(explicit=True)`), everything starts anew.
5. Stopping lets running calls finish for the grace asked for, then asks the process to end
   (`Terminate`), then ends it (`Kill`). A request that arrives meanwhile is served by a new process,
   once the old one has given its memory back.

`TABLE` is the whole machine. A pair that is not in it is late news about a process that is already on
its way out, and changes nothing.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, StrEnum, auto


@dataclass(frozen=True, slots=True, kw_only=True)
class LifecycleConfig:
    """How patient the supervisor is. Durations in seconds."""

    start_timeout: float = 60.0
    """A process that has not answered by then is killed, and counts as crashed. Importing a large engine
    from a cold disk takes tens of seconds."""
    load_timeout: float = 900.0
    """A load that takes longer has failed. Long, because weights may come from a slow disk."""
    exit_timeout: float = 5.0
    """From SIGTERM to SIGKILL."""
    first_backoff: float = 0.25
    """Pause before the first restart; each further one is twice as long."""
    longest_backoff: float = 10.0
    crash_limit: int = 5
    """Crashes in a row before giving up: with the pauses above, about four seconds of trying."""
    stable_after: float = 60.0
    """Seconds of service after which earlier crashes are forgotten."""
    retry_after: float = 30.0
    """How long a model that cannot be loaded is left alone."""


class State(StrEnum):
    """Where a backend is in its life."""

    STARTING = "starting"
    """The process runs but does not answer yet."""
    LOADING = "loading"
    """It answers, and reads its model."""
    READY = "ready"
    """It takes calls."""
    DRAINING = "draining"
    """It takes no new calls and is on its way out."""
    BACKING_OFF = "backing_off"
    """It died; there is no process until the pause is over."""
    STOPPED = "stopped"
    """There is no process and none is wanted."""


# ------------------------------------------------------------------ what can happen


@dataclass(frozen=True, slots=True)
class LoadRequested:
    """Somebody wants the model; `explicit`: by asking for the load itself."""

    explicit: bool = False


@dataclass(frozen=True, slots=True)
class ProcessAnswered:
    """The process says that it is up."""


@dataclass(frozen=True, slots=True)
class LoadFinished:
    """The model is loaded."""


@dataclass(frozen=True, slots=True)
class LoadFailed:
    """The engine says that it cannot load the model."""

    reason: str
    code: str = "load_failed"


@dataclass(frozen=True, slots=True)
class ConnectionLost:
    """The process is still there but its connection broke."""


@dataclass(frozen=True, slots=True)
class ProcessExited:
    """The process is gone; `is_final`: it said itself that starting it again is pointless."""

    reason: str
    is_final: bool = False


@dataclass(frozen=True, slots=True)
class StopRequested:
    """Stop the backend, giving running calls `grace` seconds."""

    reason: str
    grace: float = 0.0


@dataclass(frozen=True, slots=True)
class CallsFinished:
    """The last running call has ended."""


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed."""


Event = (
    LoadRequested
    | ProcessAnswered
    | LoadFinished
    | LoadFailed
    | ConnectionLost
    | ProcessExited
    | StopRequested
    | CallsFinished
    | Tick
)


# ------------------------------------------------------------------ what to do about it


@dataclass(frozen=True, slots=True)
class Spawn:
    """Start a process."""


@dataclass(frozen=True, slots=True)
class Load:
    """Tell the process which model to load."""


@dataclass(frozen=True, slots=True)
class Terminate:
    """Ask the process to end."""


@dataclass(frozen=True, slots=True)
class Kill:
    """End the process."""


@dataclass(frozen=True, slots=True)
class ReportReady:
    """Tell who waits: calls are welcome."""


@dataclass(frozen=True, slots=True)
class ReportLost:
    """Tell running calls: the process that served you is gone."""

    reason: str


@dataclass(frozen=True, slots=True)
class ReportFailed:
    """Tell who waits: the model cannot be loaded."""

    failure: "Failure"


@dataclass(frozen=True, slots=True)
class ReportStopped:
    """Tell who waits: the model was stopped."""

    reason: str


Order = Spawn | Load | Terminate | Kill | ReportReady | ReportLost | ReportFailed | ReportStopped


@dataclass(frozen=True, slots=True)
class Failure:
    """Why the model cannot be loaded, and until when that stands."""

    reason: str
    code: str
    until: float


# ------------------------------------------------------------------ the table


class Happening(Enum):
    """What an event amounts to, given the time and the crashes so far."""

    REQUESTED = auto()
    REFUSED = auto()
    """Requested, but too soon after a failure."""
    ANSWERED = auto()
    LOADED = auto()
    FAILED = auto()
    CONNECTION_LOST = auto()
    CRASHED = auto()
    GIVEN_UP = auto()
    """Crashed once too often, or for good."""
    EXITED = auto()
    """The process ended, as it should."""
    EXITED_WHILE_WANTED = auto()
    """It ended as it should, and somebody wants the model again."""
    STOP_REQUESTED = auto()
    CALLS_FINISHED = auto()
    OVERDUE = auto()
    """What the state waits for has not happened in time."""
    GRACE_OVER = auto()
    """Calls are still running, but the process must go."""


TABLE: Mapping[tuple[State, Happening], tuple[State, tuple[type[Order], ...]]] = {
    (State.STOPPED, Happening.REQUESTED): (State.STARTING, (Spawn,)),
    (State.STOPPED, Happening.REFUSED): (State.STOPPED, (ReportFailed,)),
    #
    (State.STARTING, Happening.ANSWERED): (State.LOADING, (Load,)),
    (State.STARTING, Happening.OVERDUE): (State.STARTING, (Kill,)),
    (State.STARTING, Happening.CRASHED): (State.BACKING_OFF, ()),
    (State.STARTING, Happening.GIVEN_UP): (State.STOPPED, (ReportFailed,)),
    (State.STARTING, Happening.STOP_REQUESTED): (State.DRAINING, (ReportStopped, Terminate)),
    #
    (State.LOADING, Happening.LOADED): (State.READY, (ReportReady,)),
    (State.LOADING, Happening.FAILED): (State.DRAINING, (ReportFailed, Terminate)),
    (State.LOADING, Happening.OVERDUE): (State.DRAINING, (ReportFailed, Kill)),
    (State.LOADING, Happening.CONNECTION_LOST): (State.LOADING, (Kill,)),
    (State.LOADING, Happening.CRASHED): (State.BACKING_OFF, ()),
    (State.LOADING, Happening.GIVEN_UP): (State.STOPPED, (ReportFailed,)),
    (State.LOADING, Happening.STOP_REQUESTED): (State.DRAINING, (ReportStopped, Terminate)),
    #
    (State.READY, Happening.CONNECTION_LOST): (State.STARTING, (ReportLost, Kill)),
    (State.READY, Happening.CRASHED): (State.BACKING_OFF, (ReportLost,)),
    (State.READY, Happening.GIVEN_UP): (State.STOPPED, (ReportLost, ReportFailed)),
    (State.READY, Happening.STOP_REQUESTED): (State.DRAINING, (ReportStopped,)),
    #
    (State.DRAINING, Happening.CALLS_FINISHED): (State.DRAINING, (Terminate,)),
    (State.DRAINING, Happening.GRACE_OVER): (State.DRAINING, (ReportLost, Terminate)),
    (State.DRAINING, Happening.OVERDUE): (State.DRAINING, (Kill,)),
    (State.DRAINING, Happening.REQUESTED): (State.DRAINING, ()),
    (State.DRAINING, Happening.REFUSED): (State.DRAINING, (ReportFailed,)),
    (State.DRAINING, Happening.STOP_REQUESTED): (State.DRAINING, (ReportStopped,)),
    (State.DRAINING, Happening.EXITED): (State.STOPPED, (ReportLost,)),
    (State.DRAINING, Happening.EXITED_WHILE_WANTED): (State.STARTING, (ReportLost, Spawn)),
    #
    (State.BACKING_OFF, Happening.OVERDUE): (State.STARTING, (Spawn,)),
    (State.BACKING_OFF, Happening.STOP_REQUESTED): (State.STOPPED, (ReportStopped,)),
}
"""What follows from what, whole: (state, happening) to (next state, orders)."""


def table_as_text() -> str:
    """The table for people: one line per row, states in the order of a life."""
    rows = [
        (state.name, happening.name, then.name, ", ".join(order.__name__ for order in orders))
        for (state, happening), (then, orders) in TABLE.items()
    ]
    return "\n".join(f"{a:<12} {b:<20} {c:<12} {d}".rstrip() for a, b, c, d in rows)


class BackendLifecycle:
    """One backend's life. Time is whatever the caller says, as long as it never runs backwards."""

    def __init__(self, config: LifecycleConfig) -> None:
        self._config = config
        self.state = State.STOPPED
        self.failure: Failure | None = None
        """Why it cannot be loaded, until somebody asks again after `failure.until`."""
        self.crashes = 0
        """Deaths in a row, not counting those before a stable stretch."""
        self._due_at = math.inf
        self._ready_at = math.inf
        self._reason = ""
        self._is_wanted_again = False
        self._is_ending = False
        """Draining: the process has been told to end."""

    @property
    def due_at(self) -> float:
        """When the next `Tick` is needed; infinity for never."""
        return self._due_at

    def handle(self, event: Event, now: float) -> list[Order]:
        """Take in what happened; returns what to do, in order."""
        happening = self._meaning(event, now)
        row = TABLE.get((self.state, happening)) if happening is not None else None
        if row is None or happening is None:
            return []
        before = self.state
        self.state, orders = row
        self._remember(before, happening, event, now)
        return [self._filled_in(order) for order in orders]

    def _meaning(self, event: Event, now: float) -> Happening | None:
        match event:
            case LoadRequested(explicit):
                is_refused = self.failure is not None and now < self.failure.until and not explicit
                return Happening.REFUSED if is_refused else Happening.REQUESTED
            case ProcessAnswered():
                return Happening.ANSWERED
            case LoadFinished():
                return Happening.LOADED
            case LoadFailed():
                return Happening.FAILED
            case ConnectionLost():
                return Happening.CONNECTION_LOST
            case ProcessExited(_, is_final):
                return self._meaning_of_exit(is_final, now)
            case StopRequested():
                return Happening.STOP_REQUESTED
            case CallsFinished():
                return None if self._is_ending else Happening.CALLS_FINISHED
            case Tick():
                return self._meaning_of_time(now)

    def _meaning_of_exit(self, is_final: bool, now: float) -> Happening:
        if self.state is State.DRAINING:
            return Happening.EXITED_WHILE_WANTED if self._is_wanted_again else Happening.EXITED
        is_one_too_many = self._crashes_so_far(now) + 1 >= self._config.crash_limit
        return Happening.GIVEN_UP if is_final or is_one_too_many else Happening.CRASHED

    def _meaning_of_time(self, now: float) -> Happening | None:
        if now < self._due_at:
            return None
        if self.state is State.DRAINING and not self._is_ending:
            return Happening.GRACE_OVER
        return Happening.OVERDUE

    def _crashes_so_far(self, now: float) -> int:
        was_stable = now - self._ready_at >= self._config.stable_after
        return 0 if was_stable else self.crashes

    def _remember(self, before: State, happening: Happening, event: Event, now: float) -> None:
        """What the next decision needs to know. `self.state` is already the new state."""
        config = self._config
        match happening:
            case Happening.REQUESTED:
                self.failure = None
                if before is State.DRAINING:
                    self._is_wanted_again = True
                else:
                    self.crashes = 0
                    self._starting(now)
            case Happening.ANSWERED:
                self._due_at = now + config.load_timeout
            case Happening.LOADED:
                self._ready_at, self._due_at = now, math.inf
            case Happening.FAILED:
                assert isinstance(event, LoadFailed)
                self._fail(event.reason, event.code, now)
                self._ending(now)
            case Happening.CONNECTION_LOST:
                self._reason = "the backend's connection broke"
                self._due_at = math.inf
            case Happening.CRASHED | Happening.GIVEN_UP:
                assert isinstance(event, ProcessExited)
                self.crashes = self._crashes_so_far(now) + 1
                self._ready_at = math.inf
                self._reason = event.reason
                if happening is Happening.CRASHED:
                    self._due_at = now + min(config.first_backoff * 2 ** (self.crashes - 1), config.longest_backoff)
                else:
                    self._due_at = math.inf
                    times = f" ({self.crashes} times in a row)" if self.crashes > 1 else ""
                    self._fail(event.reason + times, "start_failed" if event.is_final else "crash_loop", now)
            case Happening.EXITED | Happening.EXITED_WHILE_WANTED:
                assert isinstance(event, ProcessExited)
                if not self._is_ending:
                    self._reason = event.reason
                if happening is Happening.EXITED:
                    self._due_at = math.inf
                else:
                    self.crashes = 0
                    self._starting(now)
            case Happening.STOP_REQUESTED:
                assert isinstance(event, StopRequested)
                self._is_wanted_again = False
                self._stopping(before, event, now)
            case Happening.CALLS_FINISHED | Happening.GRACE_OVER:
                self._ending(now)
            case Happening.OVERDUE if before is State.LOADING:
                self._fail(f"it was not loaded within {config.load_timeout:.0f} s", "load_timeout", now)
                self._ending(now)
            case Happening.OVERDUE if before is State.BACKING_OFF:
                self._starting(now)
            case Happening.OVERDUE:
                # Killed: nothing left to wait for but its exit.
                self._due_at = math.inf

    def _starting(self, now: float) -> None:
        self._due_at = now + self._config.start_timeout
        self._ready_at = math.inf
        self._is_wanted_again = self._is_ending = False

    def _stopping(self, before: State, event: StopRequested, now: float) -> None:
        self._reason = event.reason
        match before:
            case State.READY:
                self._due_at = now + event.grace
                self._is_ending = False
            case State.DRAINING:
                # A second stop may be in more of a hurry, never in less.
                if not self._is_ending:
                    self._due_at = min(self._due_at, now + event.grace)
            case State.BACKING_OFF:
                self._due_at = math.inf
            case _:
                self._ending(now)

    def _ending(self, now: float) -> None:
        self._due_at = now + self._config.exit_timeout
        self._is_ending = True

    def _fail(self, reason: str, code: str, now: float) -> None:
        self.failure = Failure(reason, code, until=now + self._config.retry_after)

    def _filled_in(self, order: type[Order]) -> Order:
        if order is ReportFailed:
            assert self.failure is not None
            return ReportFailed(self.failure)
        if order is ReportLost:
            return ReportLost(self._reason)
        if order is ReportStopped:
            return ReportStopped(self._reason)
        return order()  # type: ignore[call-arg]
