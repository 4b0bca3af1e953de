"""Headers of real and of hostile GGUF files: facts of the one, a sentence naming the field for the other."""

from __future__ import annotations

import contextlib
import os
import struct
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kvdesk.backend.gguf import header
from kvdesk.backend.gguf.header import MAX_KEPT_NUMBERS, ArraySummary
from kvdesk.backend.gguf.model_file import ModelFile, read_model_file
from kvdesk.errors import ModelFileError
from tests.tiny_models import CHATML, replace_alike, write_sparse_header, write_tiny

U8, U32, I32, F32, BOOL, STRING, ARRAY, U64 = 0, 4, 5, 6, 7, 8, 9, 10
_FORMS = {U8: "<B", U32: "<I", I32: "<i", F32: "<f", BOOL: "<?", U64: "<Q"}


def text(value: str | bytes) -> bytes:
    raw = value.encode() if isinstance(value, str) else value
    return struct.pack("<Q", len(raw)) + raw


def value_bytes(kind: int, value: Any) -> bytes:
    return text(value) if kind == STRING else struct.pack(_FORMS[kind], value)


def key(name: str | bytes, kind: int, value: Any) -> bytes:
    return text(name) + struct.pack("<I", kind) + value_bytes(kind, value)


def array(name: str, kind: int, values: list[Any]) -> bytes:
    items = b"".join(value_bytes(kind, value) for value in values)
    return text(name) + struct.pack("<IIQ", ARRAY, kind, len(values)) + items


def tensor(name: str | bytes, shape: tuple[int, ...], offset: int, kind: int = 0) -> bytes:
    dims = struct.pack(f"<I{len(shape)}Q", len(shape), *shape)
    return text(name) + dims + struct.pack("<IQ", kind, offset)


def keys_of(architecture: str) -> list[bytes]:
    return [
        key("general.architecture", STRING, architecture),
        key(f"{architecture}.block_count", U32, 2),
        key(f"{architecture}.context_length", U32, 2048),
        key(f"{architecture}.embedding_length", U32, 64),
        key(f"{architecture}.attention.head_count", U32, 4),
    ]


KEYS = keys_of("llama")
TENSORS = [tensor("token_embd.weight", (64, 8), 0), tensor("output_norm.weight", (64,), 2048)]
DATA = bytes(2048 + 256)


def gguf(
    keys: list[bytes] = KEYS,
    tensors: list[bytes] = TENSORS,
    *,
    magic: bytes = b"GGUF",
    version: int = 3,
    n_tensors: int | None = None,
    n_keys: int | None = None,
    data: bytes = DATA,
) -> bytes:
    counts = (len(tensors) if n_tensors is None else n_tensors, len(keys) if n_keys is None else n_keys)
    head = magic + struct.pack("<IQQ", version, *counts) + b"".join(keys) + b"".join(tensors)
    return head + bytes(-len(head) % 32) + data


def read(folder: Path, content: bytes, name: str = "model.gguf") -> ModelFile:
    (folder / name).write_bytes(content)
    return read_model_file(folder / name)


# --- facts ------------------------------------------------------------------------------------------------------


def test_facts_of_a_plain_model(tmp_path: Path) -> None:
    path = write_tiny("llama", tmp_path, n_ctx_train=8192, chat_template=CHATML)
    model = read_model_file(path)
    assert (model.name, model.architecture, model.quantization) == ("Tiny llama", "llama", "F16")
    assert (model.n_layer, model.n_ctx_train, model.n_embd, model.n_vocab) == (2, 8192, 256, 512)
    assert (model.n_head, model.n_head_kv) == ((4, 4), (2, 2))
    assert (model.head_size_k, model.head_size_v, model.attention) == (64, 64, ("GQA",))
    assert model.has_vocab
    assert model.has_chat_template
    assert (model.part_paths, model.missing_parts, model.is_complete) == ((path,), (), True)
    assert model.metadata["tokenizer.ggml.tokens"] == ArraySummary("str", 512)
    first = model.tensors[0]
    assert (first.name, first.shape, first.type_name, first.size_bytes) == (
        "token_embd.weight", (256, 512), "f16", 256 * 512 * 2,
    )  # fmt: skip
    assert model.tensor_bytes <= path.stat().st_size - first.offset
    model.check_loadable()
    model.check_can_chat()


def test_sliding_window_layers(tmp_path: Path) -> None:
    model = read_model_file(write_tiny("gemma3", tmp_path, n_layer=7))
    assert (model.sliding_window, model.attention) == (256, ("MQA", "SWA"))
    assert model.windowed_layers == (True, True, True, True, True, False, True)


def test_recurrent_and_hybrid_models(tmp_path: Path) -> None:
    mamba = read_model_file(write_tiny("mamba", tmp_path))
    assert (mamba.is_recurrent, mamba.attention, mamba.head_size_k) == (True, ("recurrent",), 0)
    assert not any(mamba.cached_layers)
    lfm2 = read_model_file(write_tiny("lfm2", tmp_path))
    assert (lfm2.is_hybrid, lfm2.n_head_kv) == (True, (0, 1, 0, 1))
    assert lfm2.recurrent_layers == (True, False, True, False)
    assert lfm2.cached_layers == (False, True, False, True)
    assert lfm2.attention == ("hybrid", "MQA")


def test_experts(tmp_path: Path) -> None:
    model = read_model_file(write_tiny("qwen3moe", tmp_path))
    assert (model.expert_count, model.expert_used_count) == (4, 2)


def test_heads_that_differ_between_layers(tmp_path: Path) -> None:
    keys = [
        *KEYS[:4],
        array("llama.attention.head_count", U32, [4, 8]),
        array("llama.attention.head_count_kv", I32, [4, 2]),
    ]
    model = read(tmp_path, gguf(keys))
    assert (model.n_head, model.n_head_kv, model.attention) == ((4, 8), (4, 2), ("MHA", "GQA"))


def test_latent_attention_is_told_from_its_uncompressed_form(tmp_path: Path) -> None:
    keys = [*keys_of("deepseek2"), key("deepseek2.attention.kv_lora_rank", U32, 512)]
    model = read(tmp_path, gguf(keys))
    assert (model.kv_lora_rank, model.caches_latent, model.attention) == (512, False, ("MLA", "MHA"))
    latent = [
        key("deepseek2.attention.key_length", U32, 576),
        key("deepseek2.attention.value_length", U32, 512),
        key("deepseek2.attention.key_length_mla", U32, 192),
        key("deepseek2.attention.head_count_kv", U32, 1),
    ]
    model = read(tmp_path, gguf(keys + latent))
    assert (model.caches_latent, model.head_size_k, model.attention) == (True, 576, ("MLA",))


def test_prediction_layers_are_not_counted(tmp_path: Path) -> None:
    model = read(tmp_path, gguf([*KEYS, key("llama.nextn_predict_layers", U32, 1)]))
    assert (model.n_layer, len(model.n_head)) == (1, 1)


def test_long_arrays_are_summarised_and_short_ones_kept(tmp_path: Path) -> None:
    keys = [
        *KEYS,
        array("x.short", I32, [1, -2, 3]),
        array("x.long", U8, [7] * (MAX_KEPT_NUMBERS + 1)),
        array("x.words", STRING, ["a", "", "ccc"]),
        key("x.text", STRING, b"caf\xe9"),
    ]
    metadata = read(tmp_path, gguf(keys)).metadata
    assert metadata["x.short"] == (1, -2, 3)
    assert metadata["x.long"] == ArraySummary("u8", MAX_KEPT_NUMBERS + 1)
    assert metadata["x.words"] == ArraySummary("str", 3)
    assert metadata["x.text"] == "caf�"


@pytest.mark.parametrize("window_bytes", [16, 100, 4099])
def test_where_the_reading_window_ends_does_not_matter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, window_bytes: int
) -> None:
    path = write_tiny("gemma3", tmp_path, chat_template=CHATML)
    whole = read_model_file(path)
    monkeypatch.setattr(header, "_WINDOW_BYTES", window_bytes)
    assert read_model_file(path) == whole


def test_name_is_fit_to_be_shown(tmp_path: Path) -> None:
    model = read(tmp_path, gguf([*KEYS, key("general.name", STRING, "evil\n\x1b[2J" + "x" * 5000)]))
    assert model.name.startswith("evil ␛[2J")
    assert model.name.isprintable()
    assert len(model.name) == 200


def test_name_and_quantization_without_their_keys(tmp_path: Path) -> None:
    model = read(tmp_path, gguf(), "some-model.gguf")
    assert (model.name, model.file_type, model.quantization) == ("some-model", None, "F32")
    assert not model.has_vocab
    with pytest.raises(ModelFileError, match="no vocabulary"):
        model.check_can_chat()


@pytest.mark.parametrize(
    ("architecture", "words"),
    [("bert", "embedding"), ("llada", "diffusion"), ("t5", "encoder-decoder"), ("wavtokenizer-dec", "speech")],
)
def test_models_that_cannot_chat_say_so(tmp_path: Path, architecture: str, words: str) -> None:
    chatty = read_model_file(write_tiny("llama", tmp_path))
    with pytest.raises(ModelFileError, match=words):
        replace(chatty, architecture=architecture).check_can_chat()


# --- files that are not whole -----------------------------------------------------------------------------------


def test_header_alone_gives_all_facts_but_cannot_be_loaded(tmp_path: Path) -> None:
    whole = write_tiny("llama", tmp_path)
    model = read_model_file(write_sparse_header(whole, tmp_path / "header.gguf"))
    assert not model.is_complete
    assert model.size_bytes == read_model_file(whole).tensors[-1].offset + model.tensors[-1].size_bytes
    with pytest.raises(ModelFileError, match="incomplete") as caught:
        model.check_loadable()
    assert caught.value.field == f"tensor {model.tensors[0].name}"


def test_every_truncation_is_told(tmp_path: Path) -> None:
    content = gguf()
    for length in range(0, len(content), 7):
        try:
            model = read(tmp_path, content[:length])
        except ModelFileError:
            assert length < len(content) - len(DATA)
        else:
            assert length >= len(content) - len(DATA) - 32
            assert not model.is_complete


def split_parts(folder: Path, numbers: tuple[int, ...] = (1, 2, 3)) -> list[Path]:
    """A model of three parts with one tensor in each; ``numbers`` are those that are written."""
    paths = []
    for number in (1, 2, 3):
        keys = [key("split.no", U32, number - 1), key("split.count", U32, 3), key("split.tensors.count", U32, 3)]
        content = gguf([*(KEYS if number == 1 else []), *keys], [tensor(f"t{number}", (8,), 0)], data=bytes(32))
        path = folder / f"big-{number:05}-of-00003.gguf"
        if number in numbers:
            path.write_bytes(content)
        paths.append(path)
    return paths


def test_split_model_reads_from_any_part(tmp_path: Path) -> None:
    paths = split_parts(tmp_path)
    for path in paths:
        model = read_model_file(path)
        assert (model.path, model.part_paths, model.name) == (paths[0], tuple(paths), "big")
        assert [(t.name, t.part) for t in model.tensors] == [("t1", 0), ("t2", 1), ("t3", 2)]
        assert model.size_bytes == sum(part.stat().st_size for part in paths)
        model.check_loadable()


def test_missing_part_is_named(tmp_path: Path) -> None:
    paths = split_parts(tmp_path, (1, 3))
    model = read_model_file(paths[0])
    assert (model.missing_parts, model.is_complete) == ((paths[1],), False)
    with pytest.raises(ModelFileError, match=r"big-00002-of-00003\.gguf is not beside"):
        model.check_loadable()
    with pytest.raises(ModelFileError, match=r"no file .*big-00001-of-00003\.gguf"):
        read_model_file(split_parts(tmp_path / "none", ())[2])


def test_truncated_part_is_named(tmp_path: Path) -> None:
    paths = split_parts(tmp_path)
    paths[2].write_bytes(paths[2].read_bytes()[:-1])
    with pytest.raises(ModelFileError, match=r"big-00003-of-00003\.gguf is incomplete"):
        read_model_file(paths[0]).check_loadable()


def test_parts_that_do_not_belong_together(tmp_path: Path) -> None:
    paths = split_parts(tmp_path)
    paths[1].write_bytes(paths[2].read_bytes())
    with pytest.raises(ModelFileError, match=r"split\.no"):
        read_model_file(paths[0])
    lone = tmp_path / "renamed.gguf"
    lone.write_bytes(paths[0].read_bytes())
    with pytest.raises(ModelFileError, match="not named so"):
        read_model_file(lone)


def test_a_changed_or_replaced_part_is_noticed(tmp_path: Path) -> None:
    paths = split_parts(tmp_path)
    model = read_model_file(paths[0])
    assert model.is_current()
    model.check_unchanged()
    replace_alike(paths[1], b"GGUF", b"GGUF")
    assert not model.is_current()
    with pytest.raises(ModelFileError, match=r"big-00002-of-00003\.gguf was changed or replaced"):
        model.check_unchanged()
    model = read_model_file(paths[0])
    assert model.is_current()
    os.utime(paths[2], ns=(1, 1))
    assert not model.is_current()
    model = read_model_file(paths[0])
    paths[2].unlink()
    assert not model.is_current()
    assert read_model_file(paths[0]).is_current()


# --- what is no model -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ([key("general.type", STRING, "mmproj")], "projector"),
        ([key("general.type", STRING, "adapter")], "LoRA adapter"),
        ([key("general.type", STRING, "imatrix")], "importance matrix"),
        ([key("general.architecture", STRING, "clip")], "projector"),
        ([key("general.architecture", STRING, "controlvector")], "control vector"),
    ],
)
def test_other_kinds_of_gguf_are_named(tmp_path: Path, keys: list[bytes], words: str) -> None:
    with pytest.raises(ModelFileError, match=words) as caught:
        read(tmp_path, gguf(keys))
    assert caught.value.field == "general.type"


def test_vocabulary_alone_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="only a vocabulary"):
        read(tmp_path, gguf(tensors=[], data=b""))


def test_missing_file_folder_and_pipe(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="There is no file"):
        read_model_file(tmp_path / "nowhere.gguf")
    with pytest.raises(ModelFileError, match="is a folder"):
        read_model_file(tmp_path)
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe.gguf")
        with pytest.raises(ModelFileError, match="not a regular file"):
            read_model_file(tmp_path / "pipe.gguf")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_unreadable_file(tmp_path: Path) -> None:
    path = tmp_path / "secret.gguf"
    path.write_bytes(gguf())
    path.chmod(0)
    with pytest.raises(ModelFileError, match="permission denied"):
        read_model_file(path)


HUGE = 2**63 - 1
HOSTILE: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "magic"),
    "text": (b"Hello, I am a text file.\n", "magic"),
    "short": (b"GG", "magic"),
    "old ggml": (b"tjgg" + bytes(64), "magic"),
    "version 1": (gguf(version=1), "version"),
    "version 0": (gguf(version=0), "version"),
    "future version": (gguf(version=4), "version"),
    "big-endian": (gguf(version=0x03000000), "version"),
    "tensor count": (gguf(n_tensors=HUGE), "tensor count"),
    "negative tensor count": (gguf(n_tensors=2**64 - 1), "tensor count"),
    "key count": (gguf(n_keys=2**40), "metadata key count"),
    "key length": (gguf([struct.pack("<Q", 2**62), *KEYS]), "metadata key 0"),
    "empty key": (gguf([key("", U32, 1), *KEYS]), "metadata key 0"),
    "key not UTF-8": (gguf([key(b"\xff\xfe", U32, 1), *KEYS]), "metadata key 0"),
    "duplicate key": (gguf([*KEYS, KEYS[1]]), "llama.block_count"),
    "unknown value type": (gguf([text("x.y") + struct.pack("<II", 77, 0), *KEYS]), "x.y"),
    "endless string": (gguf([*KEYS, text("x.y") + struct.pack("<IQ", STRING, 2**50)]), "x.y"),
    "huge string array": (gguf([*KEYS, text("x.y") + struct.pack("<IIQ", ARRAY, STRING, 2**60)]), "x.y"),
    "endless string in array": (gguf([*KEYS, text("x.y") + struct.pack("<IIQQ", ARRAY, STRING, 1, HUGE)]), "x.y"),
    "string length near 2^64": (gguf([*KEYS, text("x.y") + struct.pack("<IIQQ", ARRAY, STRING, 2, 2**64 - 9)]), "x.y"),
    "huge number array": (gguf([*KEYS, text("x.y") + struct.pack("<IIQ", ARRAY, F32, 2**61)]), "x.y"),
    "nested array": (gguf([*KEYS, text("x.y") + struct.pack("<IIQ", ARRAY, ARRAY, 1)]), "x.y"),
    "alignment 3": (gguf([*KEYS, key("general.alignment", U32, 3)]), "general.alignment"),
    "alignment 0": (gguf([*KEYS, key("general.alignment", U32, 0)]), "general.alignment"),
    "alignment type": (gguf([*KEYS, key("general.alignment", U64, 32)]), "general.alignment"),
    "too many dimensions": (gguf(tensors=[tensor("t", (1,) * 5, 0)]), "tensor t"),
    "dimensions overflow": (gguf(tensors=[tensor("t", (2**32, 2**32), 0)]), "tensor t"),
    "zero hides overflow": (gguf(tensors=[tensor("t", (2**40, 2**40, 0), 0)]), "tensor t"),
    "negative dimension": (gguf(tensors=[tensor("t", (2**64 - 1,), 0)]), "tensor t"),
    "unknown tensor type": (gguf(tensors=[tensor("t", (32,), 0, 4)]), "tensor t"),
    "future tensor type": (gguf(tensors=[tensor("t", (32,), 0, 4096)]), "tensor t"),
    "block does not divide": (gguf(tensors=[tensor("t", (33,), 0, 8)]), "tensor t"),
    "long tensor name": (gguf(tensors=[tensor("t" * 64, (32,), 0)]), "tensor " + "t" * 64),
    "tensor name not UTF-8": (gguf(tensors=[tensor(b"\xc3", (32,), 0)]), "name of tensor 0"),
    "duplicate tensor": (gguf(tensors=[tensor("t", (8,), 0), tensor("t", (8,), 32)]), "tensor t"),
    "overlapping tensors": (gguf(tensors=[tensor("a", (64,), 0), tensor("b", (64,), 128)]), "tensor b"),
    "gap between tensors": (gguf(tensors=[tensor("a", (64,), 0), tensor("b", (64,), 4096)]), "tensor b"),
    "unaligned tensor": (gguf(tensors=[tensor("a", (3,), 0), tensor("b", (64,), 12)]), "tensor b"),
    "no architecture": (gguf(KEYS[1:]), "general.architecture"),
    "architecture is a novel": (gguf([key("general.architecture", STRING, "ll\nama")]), "general.architecture"),
    "lines in a key": (gguf([*KEYS, text("x\ny") + struct.pack("<II", 77, 0)]), "x\ny"),
    "architecture is a number": (gguf([key("general.architecture", U32, 1)]), "general.architecture"),
    "no layers": (gguf([KEYS[0], *KEYS[2:]]), "llama.block_count"),
    "billions of layers": (gguf([KEYS[0], key("llama.block_count", U32, 2**32 - 1), *KEYS[2:]]), "llama.block_count"),
    "layers as text": (gguf([KEYS[0], key("llama.block_count", STRING, "2"), *KEYS[2:]]), "llama.block_count"),
    "negative context": (
        gguf([*KEYS[:2], key("llama.context_length", I32, -1), *KEYS[3:]]), "llama.context_length",
    ),
    "heads of another model": (
        gguf([*KEYS[:4], array("llama.attention.head_count", U32, [4, 4, 4])]), "llama.attention.head_count",
    ),
    "more experts used than there are": (
        gguf([*KEYS, key("llama.expert_count", U32, 2), key("llama.expert_used_count", U32, 3)]),
        "llama.expert_used_count",
    ),
    "tokens are numbers": (
        gguf([*KEYS, array("tokenizer.ggml.tokens", U32, [1, 2])]), "tokenizer.ggml.tokens",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_header_is_refused_with_its_field(tmp_path: Path, case: str) -> None:
    content, field = HOSTILE[case]
    with pytest.raises(ModelFileError) as caught:
        read(tmp_path, content)
    assert caught.value.field == field
    assert caught.value.path == tmp_path / "model.gguf"
    assert str(caught.value).endswith(".")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


def test_out_of_file_tensor_is_refused_for_loading(tmp_path: Path) -> None:
    model = read(tmp_path, gguf(tensors=[tensor("t", (2**40, 2**10), 0)]))
    assert not model.is_complete
    with pytest.raises(ModelFileError, match="the tensor t is not"):
        model.check_loadable()


@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is read from /proc")
def test_hostile_counts_in_a_file_that_could_hold_them_stay_cheap(tmp_path: Path) -> None:
    """Sparse files of 1 TiB make every huge count plausible; own limits must bound time and memory."""
    tails = {
        "strings": [text("x.y") + struct.pack("<IIQ", ARRAY, STRING, 2**30)],
        "numbers": [text("x.y") + struct.pack("<IIQ", ARRAY, U8, 2**30)],
        "string": [text("x.y") + struct.pack("<IQ", STRING, 2**30)],
        "texts": [key(f"x.{n}", STRING, "é" * 400_000) for n in range(40)],
        "arrays": [array(f"x.{n}", U8, [1] * 4096) for n in range(500)],
    }
    paths = []
    for name, keys in tails.items():
        path = tmp_path / f"{name}.gguf"
        path.write_bytes(gguf([*KEYS, *keys]))
        os.truncate(path, 2**40)
        paths.append(str(path))
    script = (
        "import re, sys\nfrom pathlib import Path\n"
        "from kvdesk.backend.gguf.model_file import read_model_file\nfrom kvdesk.errors import ModelFileError\n"
        "for path in sys.argv[1:]:\n"
        "    try: read_model_file(Path(path))\n"
        "    except ModelFileError as error: print(error)\n"
        "print(re.search(r'VmHWM:\\s+(\\d+)', Path('/proc/self/status').read_text())[1])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, *paths], capture_output=True, text=True, check=True, timeout=60
    )
    *sentences, peak_kib = done.stdout.splitlines()
    assert len(sentences) == 3
    assert all("x.y" in sentence for sentence in sentences)
    assert int(peak_kib) < 200 * 1024


# --- fuzzing ----------------------------------------------------------------------------------------------------

EXTREMES = [0, 1, 2**31, 2**32 - 1, 2**62, 2**63 - 1, 2**63, 2**64 - 8, 2**64 - 1]


@pytest.fixture(scope="module")
def fuzzed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[bytes]]:
    """Where mutants are written, and what they come from: a hand-made header and a tiny model's."""
    folder = tmp_path_factory.mktemp("fuzz")
    tiny = write_tiny("gemma3", folder, n_vocab=300)
    return folder / "mutant.gguf", [gguf(), write_sparse_header(tiny, folder / "header.gguf").read_bytes()]


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    source=st.integers(0, 1),
    edits=st.lists(st.tuples(st.floats(0, 1), st.one_of(st.integers(0, 255), st.sampled_from(EXTREMES))), max_size=4),
    cut=st.one_of(st.none(), st.floats(0, 1)),
)
def test_any_mutant_is_read_or_refused(
    fuzzed: tuple[Path, list[bytes]], source: int, edits: list[tuple[float, int]], cut: float | None
) -> None:
    path, sources = fuzzed
    content = bytearray(sources[source])
    for place, value in edits:
        raw = bytes([value]) if value < 256 else struct.pack("<Q", value)
        at = int(place * (len(content) - len(raw)))
        content[at : at + len(raw)] = raw
    path.write_bytes(content[: int(cut * len(content))] if cut is not None else content)
    with contextlib.suppress(ModelFileError):
        model = read_model_file(path)
        assert len(model.n_head) == len(model.cached_layers) == model.n_layer
        with contextlib.suppress(ModelFileError):
            model.check_loadable()
        model.check_can_chat()
