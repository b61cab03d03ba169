"""Which files make a model, and which quantization a machine gets."""

import pytest

from gallery.errors import InstallError
from gallery.unsafe_files import check_content, check_name
from gallery.variants import GIB, RepositoryFile, Variant, choose, quantization_of, variants


def repository(*files: tuple[str, float]) -> list[Variant]:
    return variants(RepositoryFile(path, int(size * GIB), None) for path, size in files)


USUAL = repository(
    ("m-Q2_K.gguf", 3), ("m-Q4_K_M.gguf", 5), ("m-Q8_0.gguf", 9), ("m-F16.gguf", 16), ("mmproj-m-F16.gguf", 1)
)


@pytest.mark.parametrize(
    ("path", "quantization"),
    [
        ("Qwen3-4B-Q4_K_M.gguf", "Q4_K_M"),
        ("model.q8_0.gguf", "Q8_0"),
        ("m-UD-Q4_K_XL.gguf", "UD-Q4_K_XL"),
        ("m-IQ2_XXS.gguf", "IQ2_XXS"),
        ("gpt-oss-20b-mxfp4.gguf", "MXFP4"),
        ("BF16/m-BF16-00001-of-00002.gguf", "BF16"),
        ("Q4_K_M/part-00001-of-00002.gguf", "Q4_K_M"),
        ("model.gguf", ""),
    ],
)
def test_a_quantization_is_read_from_the_name(path: str, quantization: str) -> None:
    assert quantization_of(path) == quantization


@pytest.mark.parametrize(
    ("free", "chosen", "words"),
    [
        (64, "Q8_0", "largest that fits"),
        (8, "Q4_K_M", "Q8_0 would take"),
        (4, "Q2_K", "largest that fits"),
        (1, "Q2_K", "even that takes"),
        (0, "Q4_K_M", "sizes are unknown"),
    ],
)
def test_the_largest_that_fits_is_chosen_and_the_choice_explained(free: int, chosen: str, words: str) -> None:
    choice = choose(USUAL, free=free * GIB, what="m")

    assert choice.variant.quantization == chosen
    assert words in choice.why


def test_a_longer_context_leaves_less_room_for_weights() -> None:
    assert choose(USUAL, free=12 * GIB, context=4096, what="m").variant.quantization == "Q8_0"
    assert choose(USUAL, free=12 * GIB, context=65536, what="m").variant.quantization == "Q2_K"


def test_where_the_cache_of_a_token_is_known_it_is_counted() -> None:
    choice = choose(USUAL, free=12 * GIB, context=32768, per_token=128 * 1024, what="m")

    assert choice.variant.quantization == "Q4_K_M"  # 5 and 9 GiB of weights, and 4 of cache.


def test_full_precision_is_taken_only_if_asked_for_or_alone() -> None:
    assert choose(USUAL, wanted="f16", what="m").variant.quantization == "F16"
    assert choose(repository(("m-F16.gguf", 1)), free=9 * GIB, what="m").variant.quantization == "F16"


def test_a_quantization_or_file_can_be_asked_for_and_others_are_listed_if_it_is_not_there() -> None:
    assert choose(USUAL, wanted="m-Q8_0.gguf", what="m").variant.quantization == "Q8_0"
    with pytest.raises(InstallError, match="there are: Q2_K, Q4_K_M, Q8_0, F16"):
        choose(USUAL, wanted="Q3_K", what="m")


def test_parts_belong_together_and_a_model_with_one_missing_is_none() -> None:
    found = repository(
        ("Q4/m-Q4_0-00002-of-00002.gguf", 2),
        ("Q4/m-Q4_0-00001-of-00002.gguf", 2),
        ("Q8/m-Q8_0-00001-of-00003.gguf", 2),
    )

    [variant] = found
    assert [f.path for f in variant.files] == ["Q4/m-Q4_0-00001-of-00002.gguf", "Q4/m-Q4_0-00002-of-00002.gguf"]
    assert variant.size == 4 * GIB


@pytest.mark.parametrize("name", ["pytorch_model.bin", "a/b.PT", "x.ckpt", "y.pth", "z.pkl"])
def test_pickles_are_refused_by_name_unless_allowed(name: str) -> None:
    with pytest.raises(InstallError, match="pickled"):
        check_name(name, allow_pickle=False)
    check_name(name, allow_pickle=True)


@pytest.mark.parametrize("beginning", [b"\x80\x02}q\x00", b"\x80\x04\x95", b"PK\x03\x04..archive/data.pkl"])
def test_pickles_are_refused_whatever_they_are_called(beginning: bytes) -> None:
    with pytest.raises(InstallError, match="pickled"):
        check_content("model.gguf", beginning, allow_pickle=False)
    check_content("model.gguf", b"GGUF\x03", allow_pickle=False)
