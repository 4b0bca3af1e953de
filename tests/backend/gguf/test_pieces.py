"""Models in pieces: what was cut by size or joined with cat is named, with what to do about it."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from kvdesk.backend.gguf.model_file import read_model_file
from kvdesk.backend.gguf.pieces import joining_words, piece_of
from kvdesk.errors import ModelFileError
from tests.backend.gguf.test_model_file import split_parts
from tests.tiny_models import write_tiny

STYLES = [
    ("big.gguf.part{}of3", ("1", "2", "3")),
    ("big.gguf-split-{}", ("a", "b", "c")),
    ("big.gguf.{}", ("001", "002", "003")),
    ("big.gguf.part-{}", ("aa", "ab", "ac")),
    ("big.part{}", ("0", "1", "2")),
    ("big two'.gguf.part{}of6", ("1", "2", "3", "4", "5", "6")),
    ("big.gguf.part{}", ("aa", "ab", "ac", "ad")),
    ("big.gguf-part-{}", ("a", "b", "c", "d", "e")),
    ("big.gguf.part{}of12", tuple(str(number) for number in range(1, 13))),
    ("big.q4.gguf.part{}-of-04", ("01", "02", "03", "04")),
]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny("llama", tmp_path_factory.mktemp("models"))


def cut(whole: Path, folder: Path, style: str, labels: tuple[str, ...]) -> list[Path]:
    """The bytes of ``whole`` in equal pieces, named by ``style``."""
    content = whole.read_bytes()
    size = -(-len(content) // len(labels))
    paths = [folder / style.format(label) for label in labels]
    for number, path in enumerate(paths):
        path.write_bytes(content[number * size : (number + 1) * size])
    return paths


@pytest.mark.skipif(sys.platform == "win32", reason="runs the command for a shell with cat")
@pytest.mark.parametrize(("style", "labels"), STYLES)
def test_the_advice_joins_the_pieces(whole: Path, tmp_path: Path, style: str, labels: tuple[str, ...]) -> None:
    pieces = cut(whole, tmp_path, style, labels)
    first = read_model_file(pieces[0])
    with pytest.raises(ModelFileError, match="are missing") as caught:
        first.check_loadable()
    commands = {command_of(str(caught.value))}
    for piece in pieces[1:]:
        with pytest.raises(ModelFileError, match=r"is piece .* which was cut by size") as caught:
            read_model_file(piece)
        commands.add(command_of(str(caught.value)))
    (command,) = commands
    subprocess.run(["bash", "-c", command], cwd=tmp_path, check=True)
    joined = tmp_path / shlex.split(command)[-1]
    assert joined.read_bytes() == whole.read_bytes()
    with pytest.raises(ModelFileError, match="lies beside it: open that"):
        read_model_file(pieces[1])
    read_model_file(joined).check_loadable()


def command_of(sentences: str) -> str:
    return sentences[sentences.index("cat ") :]


def test_pieces_that_are_not_there_are_named(whole: Path, tmp_path: Path) -> None:
    pieces = cut(whole, tmp_path, "big.gguf.part{}of6", ("1", "2", "3", "4", "5", "6"))
    pieces[3].unlink()
    assert "; big.gguf.part4of6 is not beside it. Join" in joining_words(pieces[0])
    for piece in pieces[1:]:
        piece.unlink(missing_ok=True)
    words = joining_words(pieces[0])
    assert "big.gguf.part2of6, big.gguf.part3of6, big.gguf.part4of6 and 2 more are not beside it" in words
    assert words.endswith("cat big.gguf.part{1..6}of6 > big.gguf")


@pytest.mark.parametrize(
    "name", ["model.gguf", "party.gguf", "notes.gguf.md", "big-00001-of-00003.gguf", "x.gguf.part", "counterpart"]
)
def test_other_names_are_no_pieces(name: str) -> None:
    assert piece_of(Path(name)) is None


def test_a_cut_file_says_how_much_is_missing(whole: Path, tmp_path: Path) -> None:
    path = tmp_path / "cut.gguf"
    content = whole.read_bytes()
    path.write_bytes(content[:-150_000])
    with pytest.raises(
        ModelFileError, match=r"150 kB are missing \(the tensor .* is not whole\)\. Download it again\."
    ):
        read_model_file(path).check_loadable()
    assert "150 kB are missing" in read_model_file(path).lacking
    path.write_bytes(content)
    assert read_model_file(path).lacking == ""


def test_parts_joined_with_cat_are_told_from_a_renamed_part(tmp_path: Path) -> None:
    parts = split_parts(tmp_path)
    joined = tmp_path / "joined.gguf"
    for content in (b"".join(part.read_bytes() for part in parts), parts[1].read_bytes() + parts[2].read_bytes()):
        for path in (joined, tmp_path / "other-00001-of-00003.gguf"):
            path.write_bytes(content)
            with pytest.raises(ModelFileError, match=r"llama-gguf-split --merge NAME-00001-of-00003\.gguf") as caught:
                read_model_file(path)
            assert "in 3 parts that were joined into one file" in str(caught.value)
    joined.write_bytes(parts[0].read_bytes())
    with pytest.raises(ModelFileError, match="not named so"):
        read_model_file(joined)
