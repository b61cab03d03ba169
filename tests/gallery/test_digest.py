"""When two models count as the same."""

import asyncio
import json
import os
from dataclasses import fields, replace
from pathlib import Path

import pytest

from backends.echo_reply import EchoSettings
from backends.llama.settings import LlamaSettings
from gallery import digest
from gallery.card import Adapter, ModelCard
from gallery.digest import DigestCache


@pytest.fixture
def card(tmp_path: Path) -> ModelCard:
    weights = tmp_path / "weights.gguf"
    weights.write_bytes(b"some weights")
    return ModelCard(name="m", engine="llama", path=weights)


@pytest.fixture
def cache(tmp_path: Path) -> DigestCache:
    return DigestCache(tmp_path / "digests.json")


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Every file that is really read."""
    read: list[Path] = []
    original = digest._hash

    def counting(path: Path, *rest: object) -> str:
        read.append(path)
        return original(path, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(digest, "_hash", counting)
    return read


async def test_the_name_does_not_matter_and_the_weights_do(cache: DigestCache, card: ModelCard, tmp_path: Path) -> None:
    other = tmp_path / "other.gguf"
    other.write_bytes(b"other weights")

    assert await cache.digest(card) == await cache.digest(replace(card, name="n", description="x"))
    assert await cache.digest(card) != await cache.digest(replace(card, path=other))


@pytest.mark.parametrize(
    ("settings", "is_same"),
    [
        pytest.param({"slots": 8}, True, id="how many at once"),
        pytest.param({"context_length": 512}, True, id="how long"),
        pytest.param({"chat_template": None}, True, id="nothing set"),
        pytest.param({"chat_template": "{{ messages }}"}, False, id="what is answered"),
    ],
)
async def test_settings_count_if_they_change_answers(
    cache: DigestCache, card: ModelCard, settings: dict[str, object], is_same: bool
) -> None:
    assert (await cache.digest(card) == await cache.digest(replace(card, settings=settings))) is is_same


async def test_adapters_and_their_scales_count_and_a_draft_model_does_not(
    cache: DigestCache, card: ModelCard, tmp_path: Path
) -> None:
    lora = tmp_path / "lora.gguf"
    lora.write_bytes(b"changes")
    plain = await cache.digest(card)
    adapted = await cache.digest(replace(card, adapters=(Adapter(lora),)))
    weaker = await cache.digest(replace(card, adapters=(Adapter(lora, 0.5),)))
    lora.write_bytes(b"other changes")
    other = await cache.digest(replace(card, adapters=(Adapter(lora),)))

    assert len({plain, adapted, weaker, other}) == 4
    assert await cache.digest(replace(card, draft=lora)) == plain


@pytest.mark.parametrize(("engine", "settings"), [("echo", EchoSettings), ("llama", LlamaSettings)])
def test_settings_that_do_not_count_are_settings_of_the_engine(engine: str, settings: type) -> None:
    assert digest.SPEED_SETTINGS[engine] <= {field.name for field in fields(settings)}


async def test_a_model_without_weights_has_a_digest(cache: DigestCache) -> None:
    echo = ModelCard(name="echo", engine="echo")

    assert len(await cache.digest(echo)) == digest.DIGEST_LENGTH
    assert await cache.digest(echo) == await cache.digest(replace(echo, settings={"token_interval": 1.0}))
    assert await cache.digest(echo) != await cache.digest(replace(echo, settings={"reply": "no"}))


async def test_every_part_counts(cache: DigestCache, tmp_path: Path) -> None:
    first, second = (tmp_path / f"big-0000{n}-of-00002.gguf" for n in (1, 2))
    first.write_bytes(b"one")
    second.write_bytes(b"two")
    card = ModelCard(name="big", engine="llama", path=first)
    before = await cache.digest(card)

    second.write_bytes(b"TWO!")

    assert await cache.digest(card) != before


async def test_a_file_is_read_once(cache: DigestCache, card: ModelCard, hashed: list[Path], tmp_path: Path) -> None:
    assert cache.known(card) is None
    first = await cache.digest(card)

    assert await DigestCache(tmp_path / "digests.json").digest(card) == first
    assert DigestCache(tmp_path / "digests.json").known(card) == first
    assert len(hashed) == 1


async def test_however_many_ask_a_file_is_read_once(cache: DigestCache, card: ModelCard, hashed: list[Path]) -> None:
    digests = await asyncio.gather(*(cache.digest(card) for _ in range(10)))

    assert len(set(digests)) == 1
    assert len(hashed) == 1


async def test_a_changed_file_is_read_again(cache: DigestCache, card: ModelCard, hashed: list[Path]) -> None:
    before = await cache.digest(card)
    assert card.path is not None
    card.path.write_bytes(b"SOME weights")
    os.utime(card.path, ns=(1, 1))

    assert await cache.digest(card) != before
    assert len(hashed) == 2


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param("", id="empty"),
        pytest.param('{"version": 1, "files": {"a"', id="cut short"),
        pytest.param("[1, 2]", id="something else"),
        pytest.param('{"version": 1, "files": {"a": {"stamp": 3}}}', id="wrong inside"),
        pytest.param('{"version": 99, "files": {}}', id="from the future"),
    ],
)
async def test_a_damaged_cache_is_made_anew(card: ModelCard, hashed: list[Path], tmp_path: Path, damage: str) -> None:
    path = tmp_path / "digests.json"
    path.write_text(damage)

    await DigestCache(path).digest(card)

    assert len(hashed) == 1
    assert len(json.loads(path.read_text())["files"]) == 1


async def test_a_full_disk_costs_only_the_memory_of_it(card: ModelCard, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")

    assert await DigestCache(tmp_path / "file" / "digests.json").digest(card)


async def test_a_missing_file_is_an_os_error(cache: DigestCache, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        await cache.digest(ModelCard(name="m", engine="llama", path=tmp_path / "gone.gguf"))


async def test_giving_up_stops_the_reading(cache: DigestCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = tmp_path / "large.gguf"
    with weights.open("wb") as file:
        file.truncate(8 * 1024**3)
    asking = asyncio.ensure_future(cache.digest(ModelCard(name="m", engine="llama", path=weights)))
    await asyncio.sleep(0.05)

    asking.cancel()

    with pytest.raises(asyncio.CancelledError):
        await asking
    # If the thread went on, closing the loop would wait for it: ten seconds and more for this file.
    await asyncio.wait_for(asyncio.get_running_loop().shutdown_default_executor(), 5)


async def test_one_of_two_giving_up_leaves_the_other_its_answer(
    cache: DigestCache, card: ModelCard, hashed: list[Path]
) -> None:
    first = asyncio.ensure_future(cache.digest(card))
    second = asyncio.ensure_future(cache.digest(card))
    await asyncio.sleep(0)

    first.cancel()

    assert await second
    assert len(hashed) == 1
