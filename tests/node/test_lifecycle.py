"""The life of a backend, told by calling functions. No process is started here."""

import math
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.lifecycle import (
    TABLE,
    BackendLifecycle,
    CallsFinished,
    ConnectionLost,
    Event,
    Failure,
    Happening,
    Kill,
    LifecycleConfig,
    Load,
    LoadFailed,
    LoadFinished,
    LoadRequested,
    Order,
    ProcessAnswered,
    ProcessExited,
    ReportFailed,
    ReportLost,
    ReportReady,
    ReportStopped,
    Spawn,
    State,
    StopRequested,
    Terminate,
    Tick,
    table_as_text,
)

CONFIG = LifecycleConfig(
    start_timeout=10,
    load_timeout=100,
    exit_timeout=5,
    first_backoff=1,
    longest_backoff=4,
    crash_limit=5,
    stable_after=60,
    retry_after=30,
)

CRASH = ProcessExited("killed by SIGKILL")


@pytest.fixture
def life() -> BackendLifecycle:
    return BackendLifecycle(CONFIG)


def tell(life: BackendLifecycle, now: float, *events: Event) -> list[Order]:
    """Several events at one moment; the orders of all of them."""
    return [order for event in events for order in life.handle(event, now)]


def starting(life: BackendLifecycle, now: float = 0) -> None:
    tell(life, now, LoadRequested())
    assert life.state is State.STARTING


def loading(life: BackendLifecycle, now: float = 0) -> None:
    tell(life, now, LoadRequested(), ProcessAnswered())
    assert life.state is State.LOADING


def ready(life: BackendLifecycle, now: float = 0) -> None:
    tell(life, now, LoadRequested(), ProcessAnswered(), LoadFinished())
    assert life.state is State.READY


# ------------------------------------------------------------------ the good life


def test_a_request_leads_to_a_loaded_model(life: BackendLifecycle) -> None:
    assert life.handle(LoadRequested(), 0) == [Spawn()]
    assert life.handle(ProcessAnswered(), 1) == [Load()]
    assert life.handle(LoadFinished(), 2) == [ReportReady()]
    assert life.state is State.READY


def test_a_second_request_starts_nothing(life: BackendLifecycle) -> None:
    starting(life)

    assert life.handle(LoadRequested(), 0) == []
    assert life.state is State.STARTING


def test_a_ready_backend_needs_no_attention(life: BackendLifecycle) -> None:
    ready(life)

    assert life.due_at == math.inf
    assert life.handle(Tick(), 1e9) == []


# ------------------------------------------------------------------ crashes


def test_a_crash_under_running_calls_is_reported_and_followed_by_a_pause(life: BackendLifecycle) -> None:
    ready(life)

    assert life.handle(CRASH, 5) == [ReportLost("killed by SIGKILL")]
    assert life.state is State.BACKING_OFF
    assert life.handle(Tick(), 5.9) == []
    assert life.handle(Tick(), 6) == [Spawn()]


def test_a_crash_while_loading_keeps_who_waits_waiting(life: BackendLifecycle) -> None:
    loading(life)

    assert life.handle(CRASH, 1) == []
    assert life.state is State.BACKING_OFF


def test_pauses_double_up_to_the_cap(life: BackendLifecycle) -> None:
    now, pauses = 0.0, []
    life.handle(LoadRequested(), now)
    for _ in range(CONFIG.crash_limit - 1):
        life.handle(CRASH, now)
        pauses.append(life.due_at - now)
        now = life.due_at
        assert life.handle(Tick(), now) == [Spawn()]

    assert pauses == [1, 2, 4, 4]


def test_a_crash_loop_ends_in_a_failure_that_says_why(life: BackendLifecycle) -> None:
    now = 0.0
    life.handle(LoadRequested(), now)
    for _ in range(CONFIG.crash_limit - 1):
        life.handle(CRASH, now)
        now = life.due_at
        life.handle(Tick(), now)

    [order] = life.handle(CRASH, now)

    assert order == ReportFailed(Failure("killed by SIGKILL (5 times in a row)", "crash_loop", now + 30))
    assert life.state is State.STOPPED
    assert life.due_at == math.inf


def test_an_hour_of_service_forgives_earlier_crashes(life: BackendLifecycle) -> None:
    ready(life)
    for _ in range(CONFIG.crash_limit - 1):
        life.handle(CRASH, 0)
        tell(life, life.due_at, Tick(), ProcessAnswered(), LoadFinished())

    life.handle(CRASH, 3600)

    assert life.crashes == 1
    assert life.state is State.BACKING_OFF


def test_a_program_that_cannot_run_here_is_not_tried_again(life: BackendLifecycle) -> None:
    starting(life)

    [order] = life.handle(ProcessExited("exit status 3: llama_cpp is missing", is_final=True), 1)

    assert order == ReportFailed(Failure("exit status 3: llama_cpp is missing", "start_failed", 31))
    assert life.state is State.STOPPED


def test_a_process_that_never_answers_is_killed_and_counts_as_crashed(life: BackendLifecycle) -> None:
    starting(life)

    assert life.handle(Tick(), 10) == [Kill()]
    assert life.handle(Tick(), 11) == []
    assert life.handle(CRASH, 12) == []
    assert life.state is State.BACKING_OFF


def test_a_process_that_lives_without_its_connection_is_killed_and_restarted(life: BackendLifecycle) -> None:
    ready(life)

    orders = life.handle(ConnectionLost(), 1)

    assert orders == [ReportLost("the backend's connection broke"), Kill()]
    assert life.state is not State.READY
    assert life.handle(CRASH, 1) == []
    assert life.handle(Tick(), 2) == [Spawn()]


# ------------------------------------------------------------------ loads that fail


def test_what_the_engine_says_about_the_weights_is_believed(life: BackendLifecycle) -> None:
    loading(life)

    orders = life.handle(LoadFailed("not a GGUF file"), 1)

    assert orders == [ReportFailed(Failure("not a GGUF file", "load_failed", 31)), Terminate()]
    assert life.handle(ProcessExited("exit status 0"), 2) == [ReportLost("")]
    assert life.state is State.STOPPED
    assert life.handle(Tick(), 1e9) == []


def test_a_load_that_takes_too_long_has_failed(life: BackendLifecycle) -> None:
    loading(life)

    [report, kill] = life.handle(Tick(), 100)

    assert isinstance(report, ReportFailed)
    assert report.failure.reason == "it was not loaded within 100 s"
    assert kill == Kill()


def test_requests_soon_after_a_failure_get_the_same_answer_at_once(life: BackendLifecycle) -> None:
    loading(life)
    tell(life, 0, LoadFailed("not a GGUF file"), ProcessExited("exit status 0"))

    assert life.handle(LoadRequested(), 29.9) == [ReportFailed(Failure("not a GGUF file", "load_failed", 30))]
    assert life.state is State.STOPPED


@pytest.mark.parametrize(
    ("request_", "now"),
    [
        pytest.param(LoadRequested(), 30, id="after the cool-down"),
        pytest.param(LoadRequested(explicit=True), 1, id="by a person, at once"),
    ],
)
def test_a_failed_model_is_tried_again(life: BackendLifecycle, request_: LoadRequested, now: float) -> None:
    loading(life)
    tell(life, 0, LoadFailed("not a GGUF file"), ProcessExited("exit status 0"))

    assert life.handle(request_, now) == [Spawn()]
    assert life.failure is None


# ------------------------------------------------------------------ stopping


def test_stopping_waits_for_running_calls(life: BackendLifecycle) -> None:
    ready(life)

    assert life.handle(StopRequested("unloaded", grace=20), 0) == [ReportStopped("unloaded")]
    assert life.state is State.DRAINING
    assert life.handle(Tick(), 19.9) == []
    assert life.handle(CallsFinished(), 19.9) == [Terminate()]
    assert life.handle(ProcessExited("exit status 0"), 20) == [ReportLost("unloaded")]
    assert life.state is State.STOPPED


def test_calls_that_outlast_the_grace_are_ended(life: BackendLifecycle) -> None:
    ready(life)
    life.handle(StopRequested("unloaded", grace=20), 0)

    assert life.handle(Tick(), 20) == [ReportLost("unloaded"), Terminate()]
    # The calls end because they were told; that is no reason to terminate twice.
    assert life.handle(CallsFinished(), 20) == []


def test_a_process_that_ignores_terminate_is_killed(life: BackendLifecycle) -> None:
    ready(life)
    tell(life, 0, StopRequested("unloaded"), CallsFinished())

    assert life.handle(Tick(), 4.9) == []
    assert life.handle(Tick(), 5) == [Kill()]
    assert life.handle(Tick(), 6) == []


@pytest.mark.parametrize("reach", [starting, loading], ids=["starting", "loading"])
def test_stopping_before_it_is_ready_tells_who_waits(
    life: BackendLifecycle, reach: Callable[[BackendLifecycle], None]
) -> None:
    reach(life)

    assert life.handle(StopRequested("unloaded"), 1) == [ReportStopped("unloaded"), Terminate()]
    assert life.state is State.DRAINING


def test_stopping_while_backing_off_is_done_at_once(life: BackendLifecycle) -> None:
    ready(life)
    life.handle(CRASH, 1)

    assert life.handle(StopRequested("unloaded"), 1) == [ReportStopped("unloaded")]
    assert life.state is State.STOPPED
    assert life.handle(Tick(), 1e9) == []


def test_a_second_stop_may_hurry_the_first(life: BackendLifecycle) -> None:
    ready(life)
    life.handle(StopRequested("unloaded", grace=100), 0)

    life.handle(StopRequested("this node is stopping", grace=1), 0)

    assert life.handle(Tick(), 1) == [ReportLost("this node is stopping"), Terminate()]


def test_a_request_while_stopping_is_served_by_the_next_process(life: BackendLifecycle) -> None:
    ready(life)
    tell(life, 0, StopRequested("unloaded"), CallsFinished())

    assert life.handle(LoadRequested(), 0) == []
    assert life.handle(ProcessExited("exit status 0"), 1) == [ReportLost("unloaded"), Spawn()]
    assert life.state is State.STARTING


def test_a_stop_takes_back_a_request_made_while_stopping(life: BackendLifecycle) -> None:
    ready(life)
    tell(life, 0, StopRequested("unloaded"), CallsFinished(), LoadRequested())

    assert life.handle(StopRequested("this node is stopping"), 0) == [ReportStopped("this node is stopping")]
    life.handle(ProcessExited("exit status 0"), 1)

    assert life.state is State.STOPPED


def test_a_crash_while_draining_starts_nothing_new(life: BackendLifecycle) -> None:
    ready(life)
    life.handle(StopRequested("unloaded", grace=20), 0)

    assert life.handle(CRASH, 1) == [ReportLost("killed by SIGKILL")]
    assert life.state is State.STOPPED


# ------------------------------------------------------------------ the table itself


def test_every_state_has_a_way_in_and_a_way_out() -> None:
    left = {state for (state, _), (then, _) in TABLE.items() if then is not state}
    entered = {then for (state, _), (then, _) in TABLE.items() if then is not state}

    assert left == entered == set(State)


def test_every_happening_means_something_somewhere() -> None:
    assert {happening for _, happening in TABLE} == set(Happening)


def test_the_table_prints_one_row_per_entry() -> None:
    lines = table_as_text().splitlines()

    assert len(lines) == len(TABLE)
    assert lines[0].split() == ["STOPPED", "REQUESTED", "STARTING", "Spawn"]


# ------------------------------------------------------------------ whatever happens

events: st.SearchStrategy[Event] = st.one_of(
    st.builds(LoadRequested, st.booleans()),
    st.just(ProcessAnswered()),
    st.just(LoadFinished()),
    st.just(LoadFailed("bad")),
    st.just(ConnectionLost()),
    st.builds(ProcessExited, st.just("gone"), st.booleans()),
    st.builds(StopRequested, st.just("stop"), st.floats(0, 50)),
    st.just(CallsFinished()),
    st.just(Tick()),
)


@given(st.lists(st.tuples(events, st.floats(0, 40)), max_size=60))
def test_there_is_never_a_second_process_nor_a_forgotten_one(history: Sequence[tuple[Event, float]]) -> None:
    life, now, is_running = BackendLifecycle(CONFIG), 0.0, False
    for event, passed in history:
        now += passed
        if isinstance(event, ProcessExited):
            if not is_running:
                continue
            is_running = False
        for order in life.handle(event, now):
            if isinstance(order, Spawn):
                assert not is_running
                is_running = True
            if isinstance(order, Load | Terminate | Kill):
                assert is_running
        assert is_running == (life.state not in (State.STOPPED, State.BACKING_OFF))
        if life.state is State.STOPPED:
            assert life.due_at == math.inf


@given(st.lists(st.tuples(events, st.floats(0, 40)), max_size=40))
def test_left_alone_it_comes_to_rest(history: Sequence[tuple[Event, float]]) -> None:
    life, now, is_running = BackendLifecycle(CONFIG), 0.0, False
    for event, passed in history:
        now += passed
        if isinstance(event, ProcessExited) and not is_running:
            continue
        orders = life.handle(event, now)
        is_running = (is_running and not isinstance(event, ProcessExited)) or Spawn() in orders

    for _ in range(100):
        if life.due_at == math.inf:
            break
        now = life.due_at
        # A process that dies of every kill and of every start, so each wait has an end.
        for order in life.handle(Tick(), now):
            if isinstance(order, Kill | Spawn):
                life.handle(ProcessExited("gone"), now)

    assert life.due_at == math.inf
    assert life.state is not State.BACKING_OFF
