"""Which bytes come next, and when a failure is repeated: no clock, no network."""

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gallery.download_plan import Claim, DownloadConfig, DownloadPlan, Range, merged
from gallery.journal import Journal, decode, encode

CONFIG = DownloadConfig(lanes=3, piece=10, failures=3, first_pause=1, longest_pause=5, stall_after=10, trickle=4)

spans = st.lists(st.tuples(st.integers(0, 120), st.integers(0, 40)).map(lambda s: Range(s[0], s[0] + s[1])), max_size=8)


@given(size=st.integers(1, 100), done=spans, steps=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 12))))
def test_no_byte_is_fetched_twice_at_once_and_none_is_forgotten(
    size: int, done: list[Range], steps: list[tuple[int, int]]
) -> None:
    plan = DownloadPlan(size, CONFIG, done)
    claims: list[Claim] = []
    for step, count in steps:
        if step == 0 and (claim := plan.take(0)) is not None:
            claims.append(claim)
        elif step == 1 and claims:
            plan.received(claims[0], count, 0)
        elif step == 2 and claims:
            plan.give_back(claims.pop())
        taken = sorted((c.start, c.end) for c in claims)
        assert all(first[1] <= second[0] for first, second in pairwise(taken))
        assert all(c.end <= part.start or c.start >= part.end for c in claims for part in plan.done)
    for claim in claims:
        plan.give_back(claim)
    while (claim := plan.take(0)) is not None:
        plan.received(claim, claim.end - claim.at, 0)
        plan.give_back(claim)
    assert plan.is_complete
    assert plan.written() == (Range(0, size),)


def test_lanes_take_the_lowest_free_bytes() -> None:
    plan = DownloadPlan(100, CONFIG, [Range(0, 5), Range(12, 20)])

    claims = [plan.take(0) for _ in range(4)]

    assert [(c.start, c.end) for c in claims if c] == [(5, 12), (20, 30), (30, 40)]


def test_a_small_file_is_shared_among_all_lanes() -> None:
    plan = DownloadPlan(90, DownloadConfig(lanes=3, piece=1000, least=10))

    claims = [plan.take(0) for _ in range(3)]

    assert [(c.start, c.end) for c in claims if c] == [(0, 30), (30, 60), (60, 90)]


def test_pauses_double_and_end_and_progress_forgets_them() -> None:
    plan = DownloadPlan(100, CONFIG)
    pauses = []
    now = 0.0
    for _ in range(3):
        plan.failed(now)
        pauses.append(plan.wait_until - now)
        now = plan.wait_until

    assert pauses == [1, 2, 4]
    claim = plan.take(now)
    assert claim is not None
    plan.received(claim, 4, now)
    assert plan.failures == 0

    for _ in range(4):
        plan.failed(now)
        now = plan.wait_until
    assert plan.is_given_up
    assert plan.take(now) is None


def test_one_outage_that_breaks_all_lanes_counts_once() -> None:
    plan = DownloadPlan(100, CONFIG)

    plan.failed(0)
    plan.failed(0.1)
    plan.failed(0.2)

    assert plan.failures == 1


def test_nobody_is_asked_before_a_server_wants_to_be() -> None:
    plan = DownloadPlan(100, CONFIG)

    plan.failed(0, retry_after=60, too_many=True)

    assert plan.take(59) is None
    assert plan.take(60) is not None
    assert plan.take(60) is None  # It wants fewer at once, too.


def test_a_server_that_wants_us_to_wait_for_an_hour_ends_it() -> None:
    plan = DownloadPlan(100, CONFIG)

    plan.failed(0, retry_after=3600)

    assert plan.is_given_up


def test_a_lane_with_next_to_nothing_in_a_whole_window_is_stalled() -> None:
    plan = DownloadPlan(100, CONFIG)
    claim = plan.take(0)
    assert claim is not None

    plan.received(claim, 3, 9)
    assert not plan.is_stalled(claim, 9.9)
    assert plan.is_stalled(claim, 10)
    plan.received(claim, 1, 10)
    assert not plan.is_stalled(claim, 19)


def test_without_ranges_a_broken_connection_loses_everything_and_does_not_count_as_progress() -> None:
    plan = DownloadPlan(100, CONFIG, [Range(0, 50)], in_order=True)
    claim = plan.take(0)
    assert claim is not None
    assert (claim.start, claim.end) == (0, 100)
    plan.received(claim, 60, 0)
    plan.give_back(claim)
    plan.failed(0)
    again = plan.take(1)
    assert again is not None
    plan.received(again, 60, 1)

    assert plan.contiguous == 0
    assert plan.failures == 1


@given(spans, st.integers(0, 100))
def test_merged_ranges_hold_the_same_bytes(ranges: list[Range], size: int) -> None:
    whole = merged(ranges, size)

    assert {b for r in whole for b in range(r.start, r.end)} == {
        b for r in ranges for b in range(r.start, r.end) if b < size
    }
    assert all(first.end < second.start for first, second in pairwise(whole))


JOURNAL = Journal(size=100, sha256=None, validator='"a"', url="http://x/y", done=(Range(0, 5), Range(7, 9)))


@given(spans)
def test_a_journal_is_read_as_it_was_written(ranges: list[Range]) -> None:
    journal = replace(JOURNAL, done=merged(ranges, 100))

    assert decode(encode(journal)) == journal


@given(st.one_of(st.text(), st.recursive(st.none() | st.integers() | st.text(), st.lists).map(str)))
def test_what_is_no_journal_is_none(text: str) -> None:
    assert decode(text) is None


@pytest.mark.parametrize(
    ("changes", "goes_on"),
    [
        ({}, True),
        ({"size": 101}, False),
        ({"validator": '"b"'}, False),
        ({"url": "http://x/z"}, False),
        ({"sha256": "ab"}, False),
    ],
)
def test_a_part_is_gone_on_with_only_if_it_is_of_the_same_file(changes: dict[str, object], goes_on: bool) -> None:
    assert JOURNAL.continues(replace(JOURNAL, **changes)) is goes_on  # type: ignore[arg-type]


def test_a_digest_says_more_than_an_address() -> None:
    known = replace(JOURNAL, sha256="ab")

    assert known.continues(replace(known, url="http://mirror/y", validator=None))


def test_without_a_validator_nobody_knows_whether_it_is_the_same_file() -> None:
    unknown = replace(JOURNAL, validator=None)

    assert not unknown.continues(unknown)
