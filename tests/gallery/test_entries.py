"""The gallery that ships, and what makes an entry wrong."""

from pathlib import Path

import pytest

from gallery.entry_file import parse_entry, parse_gallery
from gallery.errors import CardError
from gallery.galleries import FRESH_FOR, SHIPPED, Galleries, is_due
from gallery.search import fits, matching
from gallery.variants import estimated_bytes
from tests.helpers.file_server import FileServer

GOOD = "description: A fish\nlicence: MIT\ncapabilities: [chat]\nhub: a/fish\n"
PATH = Path("entries/fish.yaml")


def test_every_entry_that_ships_is_valid_and_none_is_forgotten(tmp_path: Path) -> None:
    galleries = Galleries(tmp_path)

    entries = galleries.entries()

    assert galleries.problems == ()
    assert [e.name for e in entries] == sorted(p.stem for p in (SHIPPED / "entries").glob("*.yaml"))
    assert len(entries) >= 60
    names = [name.lower() for e in entries for name in (e.name, *e.aliases)]
    assert len(set(names)) == len(names)


def test_the_gallery_has_every_kind_of_model(tmp_path: Path) -> None:
    entries = Galleries(tmp_path).entries()

    for kind in ("chat", "tools", "vision", "embedding", "rerank", "image", "transcription", "speech"):
        assert any(kind in entry.capabilities for entry in entries), kind
    assert min(filter(None, (estimated_bytes(e.parameters) for e in entries if "chat" in e.capabilities))) < 10**8
    assert max(estimated_bytes(e.parameters) for e in entries) > 60 * 10**9


def test_an_entry_is_found_by_alias_and_whatever_its_case(tmp_path: Path) -> None:
    found = Galleries(tmp_path).find("QWEN3:4b")

    assert found is not None
    assert found.name == "qwen3-4b"


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        (GOOD.replace("hub: a/fish", "hub: fish"), 4, "a repository, ORG/REPO"),
        (GOOD.replace("hub:", "hubb:"), 4, "did you mean 'hub'"),
        (GOOD.replace("[chat]", "[chatting]"), 3, "unknown capability"),
        (GOOD + "parameters: big\n", 5, "a size like"),
        (GOOD + "engine: lama\n", 5, "must be one of"),
        (GOOD + "context: many\n", 5, "number of tokens"),
        (GOOD.replace("description: A fish\n", ""), 1, "description is missing"),
        (GOOD + "hub: b/c\n", 5, "there twice"),
        ("a: [", 1, "not valid YAML"),
    ],
)
def test_a_wrong_entry_is_refused_with_its_line(text: str, line: int, words: str) -> None:
    with pytest.raises(CardError, match=words) as caught:
        parse_entry(text, PATH, "fish")

    assert caught.value.line in (line, line + 1)
    assert str(PATH) in str(caught.value)


@pytest.mark.parametrize("name", ["../evil", "a/b", "x.yaml", ""])
def test_an_index_cannot_name_files_elsewhere(name: str) -> None:
    with pytest.raises(CardError) as caught:
        parse_gallery(f"name: x\nentries:\n  - good\n  - '{name}'\n", Path("index.yaml"))

    assert caught.value.line == 4


def gallery_at(folder: Path, **entries: str) -> Path:
    (folder / "entries").mkdir(parents=True)
    for name, text in entries.items():
        (folder / "entries" / f"{name}.yaml").write_text(text)
    (folder / "index.yaml").write_text("name: mine\nentries: [" + ", ".join(entries) + "]\n")
    return folder


def test_a_gallery_that_was_added_beats_the_one_that_ships_and_one_broken_entry_spoils_nothing(tmp_path: Path) -> None:
    mine = gallery_at(tmp_path / "mine", fish=GOOD, broken="hub: x\n", phi4=GOOD)
    galleries = Galleries(tmp_path / "cache", [str(mine)])

    found = galleries.find("phi4")

    assert found is not None
    assert (found.hub, found.gallery) == ("a/fish", "mine")
    assert galleries.find("fish") is not None
    assert galleries.find("qwen3-4b") is not None
    [problem] = galleries.problems
    assert "broken.yaml:1" in problem


def test_a_gallery_at_an_address_is_copied_and_goes_on_working_offline(tmp_path: Path) -> None:
    now = [1000.0]
    with FileServer(
        files={"/g/index.yaml": b"name: far\nentries: [fish]\n", "/g/entries/fish.yaml": GOOD.encode()}
    ) as far:
        galleries = Galleries(tmp_path, [f"{far.url}/g"], now=lambda: now[0])
        assert galleries.find("fish") is not None
        asked = len(far.requests)
        assert galleries.find("fish") is not None
        assert len(far.requests) == asked

    now[0] += FRESH_FOR + 1
    offline = Galleries(tmp_path, [f"{far.url}/g"], now=lambda: now[0])
    assert offline.find("fish") is not None
    assert "what was fetched before is used" in offline.problems[0]


@pytest.mark.parametrize(("fetched_at", "due"), [(None, True), (1000, False), (1000 - FRESH_FOR, True), (2000, True)])
def test_a_copy_is_asked_for_again_after_an_hour_or_when_the_clock_went_back(
    fetched_at: float | None, due: bool
) -> None:
    assert is_due(fetched_at, 1000) is due


def test_search_needs_every_word_and_lists_names_first(tmp_path: Path) -> None:
    found = [entry.name for entry in matching(Galleries(tmp_path).entries(), "qwen CODE")]

    assert found[0].startswith("qwen")
    assert "qwen2.5-coder-7b" in found
    assert "llama3.1-8b" not in found


def test_a_model_fits_where_it_and_a_context_have_room() -> None:
    free = {"desk": [("CPU", 16 * 10**9), ("GPU 0", 4 * 10**9)], "laptop": [("CPU", 3 * 10**9)]}

    assert fits(estimated_bytes("8B"), free) == ["desk (CPU)"]
    assert fits(0, free) == []
