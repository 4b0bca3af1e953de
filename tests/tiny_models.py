"""Writes real, tiny GGUF models that llama.cpp loads and decodes: random weights of a fixed seed, a small vocabulary.

``write_tiny("llama", folder)`` is all most tests need; tiny_architectures.py has the data per architecture. Which
tensors a model needs is asked of llama.cpp itself, in a short-lived process.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from numpy.typing import NDArray

from kvdesk.backend.gguf.header import read_header
from tests.tiny_architectures import RECIPES, Dims, Recipe, Value

NO_CHAT: tuple[str, ...] = ("dream", "llada", "llada-moe", "rnd1", "t5", "bert")
"""Architectures that write_tiny knows and kvdesk cannot chat with: diffusion, encoder-decoder, embedding."""
ARCHITECTURES: tuple[str, ...] = tuple(name for name in RECIPES if name not in NO_CHAT)
"""Architectures that write_tiny knows and kvdesk can chat with."""
FAMILIES: tuple[str, ...] = ("llama", "gemma3", "mamba", "lfm2", "qwen3moe")
"""One of each kind: grouped-query attention, sliding window, recurrent, hybrid, experts."""

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""A chat template whose special tokens are in the vocabulary."""

SPECIAL_TOKENS = ("<unk>", "<s>", "</s>", "<|im_start|>", "<|im_end|>", "<|endoftext|>")
BOS_ID, EOS_ID, EOT_ID = 1, 2, 4

_WORDS = """
the of and to in is that it was for on are as with his they at be this have from or one had by word but not what
all were we when your can said there use an each which she do how their if will up other about out many then them
these so some her would make like him into time has look two more write go see number no way could people my than
first water been call who oil its now find long down day did get come made may part over new sound take only
little work know place year live me back give most very after thing our just name good sentence man think say
great where help through much before line right too mean old any same tell boy follow came want show also around
form three small set put end does another well large must big even such because turn here why ask went men read
need land different home us move try kind hand picture again change off play spell air away animal house point
""".split()  # noqa: SIM905 - a list of quoted words would fill a page

_NEVER_REAL = re.compile(r".*\.(scale|input_scale)")
"""Optional tensors of one quantization tool only."""
_NOT_QUANTIZED = re.compile(
    r".*(_norm\.weight|ffn_gate_inp|altup|laurel|per_layer_model_proj|position_embd|token_types|ssm_conv1d|shortconv\.conv"
    r"|indexer|hc_|time_mix_(first|w\d|v\d|a\d|g\d|decay_w|lerp)|attn_rel_b|conv|_sinks|ssm_a|ssm_d\b|exp_probs_b|ape).*"
)
"""What stays f32, as in llama-quant.cpp, tensor_allows_quantization."""
_TYPES = {
    "f32": gguf.GGMLQuantizationType.F32,
    "f16": gguf.GGMLQuantizationType.F16,
    "q8_0": gguf.GGMLQuantizationType.Q8_0,
    "q4_0": gguf.GGMLQuantizationType.Q4_0,
}
_FILE_TYPES = {"f32": 0, "f16": 1, "q8_0": 7, "q4_0": 2}


def write_tiny(
    architecture: str,
    folder: Path,
    *,
    n_layer: int | None = None,
    n_ctx_train: int | None = None,
    chat_template: str | None = None,
    vocab: bool = True,
    byte_tokens: bool = True,
    long_rope: float = 1.0,
    weight_type: str = "f16",
    seed: int = 1,
    file_name: str | None = None,
    **overrides: Any,
) -> Path:
    """Write a tiny model of ``architecture`` into ``folder`` and return its path.

    ``weight_type`` is "f32", "f16", "q8_0" or "q4_0", for matrices. Without ``vocab`` the file has no tokenizer, without ``byte_tokens`` a vocabulary that spells only what
    it has tokens for. ``long_rope`` is the factor of rotation of contexts beyond the original length, where there is one.
    ``overrides`` are further sizes (``n_embd``, ``n_head``, ``n_head_kv``, ``n_ff``, ``n_vocab``) or metadata keys
    without the architecture's prefix and with ``__`` for a dot (``attention__sliding_window=64``). The same arguments
    give the same bytes. Special and byte tokens are written so that greedy decoding never picks them: replies go on
    until they are stopped and are plain words.
    """
    recipe, dims, metadata = _resolve(architecture, n_layer, n_ctx_train, overrides)
    path = folder / (file_name or f"tiny-{architecture}.gguf")
    writer = gguf.GGUFWriter(path, architecture)
    _add(writer, metadata)
    writer.add_file_type(_FILE_TYPES[weight_type])
    if vocab:
        _add_vocabulary(writer, dims.n_vocab, byte_tokens)
    else:
        writer.add_tokenizer_model("no_vocab")
    if chat_template is not None:
        writer.add_chat_template(chat_template)
    for name, shape in _tensors(architecture, metadata, recipe.without):
        values, kind = _weights(name, shape, weight_type, seed, recipe.embedding)
        if "rope_factors_long" in name:
            values *= long_rope
        writer.add_tensor(name, values, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def write_all(folder: Path, architectures: Sequence[str] = ARCHITECTURES, **options: Any) -> dict[str, Path]:
    """write_tiny for each of ``architectures`` with the same ``options``; asks llama.cpp only once, so it is faster."""
    shared = {"n_layer": options.get("n_layer"), "n_ctx_train": options.get("n_ctx_train")}
    own = {"chat_template", "vocab", "byte_tokens", "long_rope", "weight_type", "seed", "file_name", *shared}
    overrides = {name: value for name, value in options.items() if name not in own}
    _ask([(name, _resolve(name, overrides=overrides, **shared)[2]) for name in architectures])
    return {name: write_tiny(name, folder, **options) for name in architectures}


def write_sparse_header(src: Path, dst: Path, *, full_size: bool = False) -> Path:
    """Write only the header of ``src`` to ``dst``; with ``full_size`` as a sparse file as long as ``src``."""
    header = read_header(src)
    with src.open("rb") as whole, dst.open("wb") as file:
        file.write(whole.read(header.data_offset))
        if full_size:
            file.truncate(header.file_bytes)
    return dst


def replace_alike(path: Path, old: bytes, new: bytes) -> None:
    """Put another file in the place of ``path``, of the same size and time, with the first ``old`` in it as ``new``."""
    facts = path.stat()
    content = path.read_bytes()
    assert old in content
    assert len(old) == len(new)
    other = path.with_suffix(".new")
    other.write_bytes(content.replace(old, new, 1))
    os.utime(other, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    other.replace(path)


def _resolve(
    architecture: str, n_layer: int | None, n_ctx_train: int | None, overrides: Mapping[str, Any]
) -> tuple[Recipe, Dims, dict[str, Value]]:
    """The recipe, the sizes and the metadata of one model."""
    recipe = RECIPES[architecture]
    names = {field.name for field in dataclasses.fields(Dims)}
    given = {"n_layer": n_layer, "n_ctx_train": n_ctx_train} | {k: v for k, v in overrides.items() if k in names}
    dims = dataclasses.replace(Dims(), **{**recipe.dims, **{k: v for k, v in given.items() if v is not None}})
    keys = {k.replace("__", "."): v for k, v in overrides.items() if k not in names}
    return recipe, dims, _metadata(architecture, recipe, dims, keys)


def _metadata(architecture: str, recipe: Recipe, dims: Dims, keys: Mapping[str, Value]) -> dict[str, Value]:
    values: dict[str, Any] = {
        "context_length": dims.n_ctx_train,
        "embedding_length": dims.n_embd,
        "block_count": dims.n_layer,
        "feed_forward_length": dims.n_ff,
        "attention.head_count": dims.n_head,
        "attention.head_count_kv": dims.n_head_kv,
        "attention.layer_norm_rms_epsilon": 1e-5,
        "attention.layer_norm_epsilon": 1e-5,
        "vocab_size": dims.n_vocab,
    }
    values |= {**recipe.metadata, **keys}
    called = {key: value(dims) if callable(value) else value for key, value in values.items()}
    named = {
        key[1:] if key.startswith("/") else f"{architecture}.{key}": value
        for key, value in called.items()
        if value is not None
    }
    return {"general.name": f"Tiny {architecture}", "general.type": "model"} | named


def _add(writer: gguf.GGUFWriter, metadata: Mapping[str, Value]) -> None:
    for key, value in metadata.items():
        if isinstance(value, bool):
            writer.add_bool(key, value)
        elif isinstance(value, int):
            writer.add_uint32(key, value)
        elif isinstance(value, float):
            writer.add_float32(key, value)
        elif isinstance(value, str):
            writer.add_string(key, value)
        else:
            writer.add_array(key, value)


def vocabulary(n_vocab: int) -> list[str]:
    """The texts of ``n_vocab`` (at least 261) tokens: specials, all 256 bytes, letters and signs, words."""
    tokens = [*SPECIAL_TOKENS, *(f"<0x{byte:02X}>" for byte in range(256)), "▁"]
    tokens += [chr(code) for code in range(33, 127)]
    tokens += [f"▁{word}" for word in _WORDS]
    tokens += [f"▁extra{number}" for number in range(n_vocab - len(tokens))]
    return tokens[:n_vocab]


def _add_vocabulary(writer: gguf.GGUFWriter, n_vocab: int, byte_tokens: bool) -> None:
    """A SentencePiece vocabulary, with byte fallback if wanted, whatever the architecture: llama.cpp does not mind."""
    tokens = vocabulary(n_vocab)
    types = [gguf.TokenType.NORMAL] * n_vocab
    types[0] = gguf.TokenType.UNKNOWN
    types[1 : len(SPECIAL_TOKENS)] = [gguf.TokenType.CONTROL] * (len(SPECIAL_TOKENS) - 1)
    the_bytes = slice(len(SPECIAL_TOKENS), len(SPECIAL_TOKENS) + 256)
    if byte_tokens:
        types[the_bytes] = [gguf.TokenType.BYTE] * 256
    else:
        tokens[the_bytes] = [f"▁spare{number}" for number in range(256)]
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_add_space_prefix(False)
    writer.add_token_list(tokens)
    writer.add_token_scores([-float(index) for index in range(n_vocab)])
    writer.add_token_types([int(kind) for kind in types])
    writer.add_bos_token_id(BOS_ID)
    writer.add_eos_token_id(EOS_ID)
    writer.add_eot_token_id(EOT_ID)
    writer.add_unk_token_id(0)
    writer.add_add_bos_token(True)
    writer.add_add_eos_token(False)


Shapes = list[tuple[str, tuple[int, ...]]]
_ASKED: dict[str, Shapes] = {}
"""What llama.cpp said, by the metadata it was asked about."""


def _tensors(architecture: str, metadata: Mapping[str, Value], without: str) -> Shapes:
    """Names and ggml shapes of the tensors to write."""
    _ask([(architecture, metadata)])
    unwanted = re.compile(without or "-")
    return [
        (name, shape)
        for name, shape in _ASKED[json.dumps(metadata)]
        if not _NEVER_REAL.fullmatch(name) and not unwanted.fullmatch(name)
    ]


def _ask(models: Sequence[tuple[str, Mapping[str, Value]]]) -> None:
    """Have llama.cpp say which tensors ``models`` need; RuntimeError with its words when it refuses one."""
    new = [(name, metadata) for name, metadata in models if json.dumps(metadata) not in _ASKED]
    if not new:
        return
    with tempfile.TemporaryDirectory() as folder:
        headers = [Path(folder) / f"{number}.gguf" for number in range(len(new))]
        for header, (architecture, metadata) in zip(headers, new, strict=True):
            writer = gguf.GGUFWriter(header, architecture)
            _add(writer, metadata)
            writer.add_tokenizer_model("no_vocab")
            writer.write_header_to_file()
            writer.write_kv_data_to_file()
            writer.close()
        script = os.fspath(Path(__file__).with_name("tiny_tensors.py"))
        told = subprocess.run(
            [sys.executable, script, *map(os.fspath, headers)],
            capture_output=True, text=True, timeout=120, check=False, env=os.environ | {"GGML_NO_BACKTRACE": "1"},
        )  # fmt: skip
    answers = told.stdout.splitlines()
    for (_, metadata), answer in zip(new, answers, strict=False):
        _ASKED[json.dumps(metadata)] = [(name, tuple(shape)) for name, shape in json.loads(answer)]
    if told.returncode != 0:
        raise RuntimeError(f"llama.cpp refuses the metadata of {new[len(answers)][0]}:\n{told.stderr[-3000:]}")


def _weights(
    name: str, shape: tuple[int, ...], weight_type: str, seed: int, embedding: float
) -> tuple[NDArray[Any], gguf.GGMLQuantizationType]:
    """Values that keep activations near 1 and attention selective, so that a reply depends on all of its context."""
    random = np.random.default_rng((seed, zlib.crc32(name.encode())))
    values = random.standard_normal(shape[::-1], dtype=np.float32)
    if re.fullmatch(r"rope_f\w+\.weight", name):
        values = np.ones_like(values)
    elif "norm" in name and not name.endswith(".bias"):
        values = (2 if re.search(r"attn_[qk]_norm", name) else 1) + 0.1 * values
    elif re.search(r"ssm_a\b", name):
        values = -0.5 - np.abs(values)
    elif re.search(r"ssm_d\b", name):
        values = np.ones_like(values)
    elif name.endswith(".bias") or len(shape) == 1:
        values *= 0.1
    else:
        values *= 1.5 / np.sqrt(shape[0])
    if name == "token_embd.weight":
        values *= embedding * np.sqrt(shape[0]) / 1.5
    if name in ("token_embd.weight", "output.weight"):
        values[: len(SPECIAL_TOKENS) + 256] *= 1e-3
    kind = _TYPES[weight_type]
    if len(shape) < 2 or not name.endswith("weight") or _NOT_QUANTIZED.fullmatch(name) or shape[0] % 32:
        kind = gguf.GGMLQuantizationType.F32
    return gguf.quantize(values, kind), kind
