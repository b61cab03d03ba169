"""Tokens and the keys that follow from them."""

import pytest

from mesh.errors import TokenError
from mesh.token import MeshKeys, new_token


def test_a_new_token_has_at_least_128_bits_and_is_never_the_same() -> None:
    tokens = {new_token() for _ in range(50)}

    assert len(tokens) == 50
    assert all(len(token) == len("shoal-") + 32 for token in tokens)


def test_one_token_gives_the_same_keys_everywhere_and_another_one_others() -> None:
    token = new_token()

    assert MeshKeys.from_token(token) == MeshKeys.from_token(f"  {token.upper()}\n")
    assert MeshKeys.from_token(token) != MeshKeys.from_token(new_token())


def test_no_key_gives_away_another() -> None:
    keys = MeshKeys.from_token(new_token())

    secrets = {keys.psk, keys.membership, keys.api_key.encode(), keys.topic.encode(), keys.fingerprint.encode()}
    assert len(secrets) == 5
    assert len(keys.psk) == len(keys.membership) == 32
    assert keys.api_key.startswith("sk-shoal-")


def test_printing_keys_shows_no_secret() -> None:
    keys = MeshKeys.from_token(new_token())

    shown = repr(keys)

    assert keys.api_key not in shown
    assert keys.psk.hex() not in shown
    assert repr(keys.membership) not in shown


def test_a_passphrase_is_a_token_too() -> None:
    assert MeshKeys.from_token("correct horse battery") == MeshKeys.from_token("correct horse battery")


@pytest.mark.parametrize(
    "token",
    [
        pytest.param("", id="empty"),
        pytest.param("short", id="too short to be safe"),
        pytest.param("x" * 2000, id="absurdly long"),
        pytest.param("shoal-", id="prefix only"),
        pytest.param("shoal-abcdefgh", id="a part is missing"),
        pytest.param("shoal-" + "1" * 32, id="letters no token has"),
        pytest.param("shoal-ä" + "a" * 31, id="not ASCII"),
    ],
)
def test_a_bad_token_is_refused_without_being_repeated(token: str) -> None:
    with pytest.raises(TokenError) as caught:
        MeshKeys.from_token(token)

    assert len(token) < 8 or token not in str(caught.value)


def test_typing_errors_are_noticed() -> None:
    token = new_token()
    wrong = [token[:i] + ("a" if token[i] != "a" else "b") + token[i + 1 :] for i in range(6, len(token))]
    unnoticed = 0
    for text in wrong:
        try:
            MeshKeys.from_token(text)
        except TokenError:
            continue
        unnoticed += 1

    # One byte of checksum sees all but one in 256; more than three of 32 would be a bug, not luck.
    assert unnoticed <= 3
