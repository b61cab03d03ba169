"""What is kept of a backend's output."""

from pathlib import Path

import pytest

from node import backend_log
from node.backend_log import BackendLog


def test_lines_are_kept_whole_however_they_arrive(tmp_path: Path) -> None:
    log = BackendLog(tmp_path / "m.log")

    for piece in (b"first li", b"ne\nsecond\n", b"\nlast, unfinished"):
        log.write(piece)

    assert log.last_lines() == ["first line", "second", "last, unfinished"]
    assert (tmp_path / "m.log").read_bytes() == b"first line\nsecond\n\nlast, unfinished"


def test_of_a_traceback_only_the_last_line_is_told(tmp_path: Path) -> None:
    log = BackendLog(tmp_path / "m.log")

    log.write(b'Traceback (most recent call last):\n  File "x.py", line 1\n    boom()\nValueError: no\n')

    assert log.last_words() == "ValueError: no"


def test_what_was_said_before_is_forgotten_on_request(tmp_path: Path) -> None:
    log = BackendLog(tmp_path / "m.log")
    log.write(b"listening\nhalf a li")

    log.forget_lines()

    assert log.last_words() == ""


def test_the_file_has_a_bounded_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend_log, "MAX_LOG_BYTES", 100)
    log = BackendLog(tmp_path / "m.log")

    for _ in range(100):
        log.write(b"0123456789\n")

    assert sorted(p.name for p in tmp_path.iterdir()) in (["m.log", "m.log.1"], ["m.log.1"])
    assert sum(p.stat().st_size for p in tmp_path.iterdir()) <= 2 * (100 + 11)


def test_a_line_without_end_does_not_fill_the_memory(tmp_path: Path) -> None:
    log = BackendLog(tmp_path / "m.log")

    for _ in range(100):
        log.write(b"x" * 10_000)

    assert [len(line) for line in log.last_lines()] == [backend_log.MAX_LINE_BYTES]


def test_a_disk_that_takes_nothing_costs_only_the_file(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("in the way")
    log = BackendLog(tmp_path / "file" / "m.log")

    log.write(b"one\n")
    log.write(b"two\n")

    assert log.last_lines() == ["one", "two"]
    assert len(caplog.records) == 1
