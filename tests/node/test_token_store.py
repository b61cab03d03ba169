"""The token in the data folder."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from node.cli import main
from node.config import NodeConfig
from node.errors import ConfigError
from node.paths import DataFolder
from node.token_store import keep_token, settle_token


def settle(tmp_path: Path, **settings: object) -> tuple[str, bool]:
    """A start that works."""
    config = NodeConfig(data=tmp_path, **settings)  # type: ignore[arg-type]
    token, is_new = settle_token(config, DataFolder(tmp_path))
    keep_token(DataFolder(tmp_path), token)
    return token, is_new


def test_a_start_that_fails_stores_no_token_that_nobody_was_shown(tmp_path: Path) -> None:
    settle_token(NodeConfig(data=tmp_path), DataFolder(tmp_path))

    assert not (tmp_path / "token").exists()


def test_a_token_with_a_typing_error_is_to_be_copied_again(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        settle(tmp_path, token="shoal-abcdefghijklmnopqrstuvwxyz234567")

    assert "copy it again" in caught.value.hint


def test_the_first_start_makes_a_token_that_only_its_user_can_read(tmp_path: Path) -> None:
    token, is_new = settle(tmp_path)

    assert is_new
    assert token.startswith("shoal-")
    assert (tmp_path / "token").stat().st_mode & 0o777 == 0o600


def test_the_second_start_uses_it_and_does_not_call_it_new(tmp_path: Path) -> None:
    token, _ = settle(tmp_path)

    assert settle(tmp_path) == (token, False)


def test_a_token_that_is_given_is_kept(tmp_path: Path) -> None:
    settle(tmp_path, token="correct horse battery staple")

    assert settle(tmp_path) == ("correct horse battery staple", False)


def test_a_weak_token_is_refused_without_repeating_it(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        settle(tmp_path, token="hunter2")

    assert "hunter2" not in str(caught.value)
    assert not (tmp_path / "token").exists()


def test_two_tokens_are_one_too_many(tmp_path: Path) -> None:
    (tmp_path / "t").write_text("correct horse battery staple")

    with pytest.raises(ConfigError, match="not both"):
        settle(tmp_path, token="correct horse battery staple", token_file=tmp_path / "t")


def test_a_missing_token_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nowhere"):
        settle(tmp_path, token_file=tmp_path / "nowhere")


def test_token_show_prints_what_token_new_made_and_new_does_not_overwrite(tmp_path: Path) -> None:
    run = CliRunner().invoke
    made = run(main, ["token", "new", "--data", str(tmp_path)])
    token = (tmp_path / "token").read_text().strip()

    assert token not in made.output
    assert f"shoal up --token {token}" in run(main, ["token", "show", "--data", str(tmp_path)]).output
    again = run(main, ["token", "new", "--data", str(tmp_path)])
    assert again.exit_code == 1
    assert (tmp_path / "token").read_text().strip() == token
