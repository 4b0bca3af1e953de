"""A GGUF model's header as a ModelFile: what it is, how it attends, what tensors it has; fast, no weights read.

The raw format is gguf/header.py's, the reading of keys gguf/metadata.py's, the rules for layers gguf/layers.py's, exact
memory figures are the dry run's. Any thread or process; the cost is one pass over the header (tens of milliseconds for a large vocabulary).
"""

from __future__ import annotations

import math
import os
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from kvdesk.backend.gguf import architectures, layers
from kvdesk.backend.gguf.file_stamp import FileStamp, read_stamp
from kvdesk.backend.gguf.header import (
    MAX_HEADER_BYTES,
    MAX_TENSORS,
    ArraySummary,
    GgufHeader,
    HeaderCutShort,
    MetadataValue,
    Tensor,
    read_header,
    refusal,
)
from kvdesk.backend.gguf.holes import hollow_bytes
from kvdesk.backend.gguf.metadata import HeaderFacts
from kvdesk.backend.gguf.pieces import joined_words, joining_words
from kvdesk.backend.gguf.positions import ALL_ALIKE, Positions, find_positions
from kvdesk.errors import ModelFileError
from kvdesk.shown_text import shown_line
from kvdesk.sizes import format_file_size

MAX_LAYERS = 512
"""llama-hparams.h, LLAMA_MAX_LAYERS."""

HOLLOW_NOTED, HOLLOW_REFUSED = 0.01, 0.5
"""Shares of the weights that lie in holes of the file. Tensors that are zero throughout may be stored so on purpose
(cp --sparse, ZFS): some say nothing, and only a file that holds little else is no model."""

SPLIT_NAME = re.compile(r"(?P<prefix>.*)-(?P<no>\d{5})-of-(?P<count>\d{5})\.gguf")
"""File name of one part of a split model (llama.cpp, llama_split_path)."""

_FILE_TYPES: Mapping[int, str] = {
    0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 7: "Q8_0", 8: "Q5_0", 9: "Q5_1", 10: "Q2_K", 11: "Q3_K_S", 12: "Q3_K_M",
    13: "Q3_K_L", 14: "Q4_K_S", 15: "Q4_K_M", 16: "Q5_K_S", 17: "Q5_K_M", 18: "Q6_K", 19: "IQ2_XXS", 20: "IQ2_XS",
    21: "Q2_K_S", 22: "IQ3_XS", 23: "IQ3_XXS", 24: "IQ1_S", 25: "IQ4_NL", 26: "IQ3_S", 27: "IQ3_M", 28: "IQ2_S",
    29: "IQ2_M", 30: "IQ4_XS", 31: "IQ1_M", 32: "BF16", 36: "TQ1_0", 37: "TQ2_0", 38: "MXFP4_MOE", 39: "NVFP4",
    40: "Q1_0", 41: "Q2_0",
}  # fmt: skip
"""general.file_type -> label (llama.h, llama_ftype)."""


@dataclass(frozen=True)
class ModelFile:
    """A model as its header describes it. Lengths are tokens or layers, sizes bytes.

    Tuples named ``..._layers``, ``n_head`` and ``n_head_kv`` have one entry for each of ``n_layer`` layers (layers for
    multi-token prediction left out, as in llama.cpp's n_layer). Head sizes are values per head, 0 without attention;
    the ``_swa`` ones hold in ``windowed_layers``. ``cached_layers`` have a KV cache of their own: they are not
    recurrent and do not read another layer's. With ``caches_latent`` it holds one latent (as K)
    from which V is computed. ``hollow_bytes`` of the weights were never written, though the file is long enough. ``stamps`` tell the state of each part when its header was read (None: missing).
    """

    path: Path
    part_paths: tuple[Path, ...]
    missing_parts: tuple[Path, ...]
    is_complete: bool
    name: str
    architecture: str
    n_layer: int
    n_ctx_train: int
    n_embd: int
    n_vocab: int
    has_vocab: bool
    has_chat_template: bool
    n_head: tuple[int, ...]
    n_head_kv: tuple[int, ...]
    head_size_k: int
    head_size_v: int
    head_size_k_swa: int
    head_size_v_swa: int
    sliding_window: int | None
    windowed_layers: tuple[bool, ...]
    recurrent_layers: tuple[bool, ...]
    cached_layers: tuple[bool, ...]
    kv_lora_rank: int | None
    caches_latent: bool
    expert_count: int
    expert_used_count: int
    is_recurrent: bool
    is_hybrid: bool
    is_causal: bool
    attention: tuple[str, ...]
    file_type: int | None
    quantization: str
    size_bytes: int
    tensors: tuple[Tensor, ...] = field(repr=False)
    metadata: Mapping[str, MetadataValue] = field(repr=False, hash=False)
    truncated_part: Path | None = None
    hollow_bytes: int = 0
    stamps: tuple[FileStamp | None, ...] = ()
    positions: Positions = ALL_ALIKE

    @property
    def tensor_bytes(self) -> int:
        """The weights alone, padding left out (llama_model_size)."""
        return sum(tensor.size_bytes for tensor in self.tensors)

    @property
    def n_params(self) -> int:
        """Values in all tensors (llama_model_n_params)."""
        return sum(math.prod(tensor.shape) for tensor in self.tensors)

    @property
    def n_params_active(self) -> int:
        """Values that one token is computed with: of the experts (tensors named ``..._exps``) only those that are used."""
        if not self.expert_count or not self.expert_used_count:
            return self.n_params
        experts = sum(math.prod(tensor.shape) for tensor in self.tensors if "_exps." in tensor.name)
        return self.n_params - experts + experts * self.expert_used_count // self.expert_count

    def is_current(self) -> bool:
        """Whether all parts are as they were when the headers were read: none written to, none replaced. Asks the disk."""
        return self.stamps == tuple(read_stamp(path) for path in self.part_paths)

    def check_unchanged(self) -> None:
        """Raise ModelFileError when a part has changed since its header was read."""
        for path, stamp in zip(self.part_paths, self.stamps, strict=True):
            if read_stamp(path) != stamp:
                raise ModelFileError(f"{path.name} was changed or replaced while it was loaded; open it again.", path)

    @property
    def is_embedding_only(self) -> bool:
        """It turns text into vectors and cannot continue it."""
        return self.architecture in architectures.EMBEDDING or not self.is_causal

    def check_loadable(self) -> None:
        """Raise ModelFileError when llama.cpp could not load the weights: a part is missing, cut short, or hollow."""
        for missing in self.missing_parts:
            others = f" ({len(self.missing_parts)} are missing)" if len(self.missing_parts) > 1 else ""
            raise ModelFileError(
                f"{self.path.name} is one of {len(self.part_paths)} parts, and {missing.name} is not beside it{others}.",
                missing,
                "split.count",
            )
        if self.truncated_part is not None:
            here = self.part_paths.index(self.truncated_part)
            file_bytes = self.truncated_part.stat().st_size if self.truncated_part.exists() else 0
            lacking = [t for t in self.tensors if t.part == here and t.offset + t.size_bytes > file_bytes]
            if lacking:  # none when the download has finished meanwhile
                needed_bytes = lacking[-1].offset + lacking[-1].size_bytes
                raise ModelFileError(
                    f"{self.truncated_part.name} is incomplete: {format_file_size(file_bytes)} of "
                    f"{format_file_size(needed_bytes)} are there, {format_file_size(needed_bytes - file_bytes)} are "
                    f"missing (the tensor {lacking[0].name} is not whole). "
                    + (joining_words(self.truncated_part) or "Download it again."),
                    self.truncated_part,
                    f"tensor {lacking[0].name}",
                )
        if self.hollow_bytes > HOLLOW_REFUSED * self.tensor_bytes:
            raise ModelFileError(self._hollow_words(), self.path, "tensors")

    @property
    def lacking(self) -> str:
        """What of the weights is not there, and what to do about it, in sentences; "" for a model that is whole."""
        try:
            self.check_loadable()
        except ModelFileError as error:
            return str(error)
        return self._hollow_words() if self.hollow_bytes > HOLLOW_NOTED * self.tensor_bytes else ""

    def _hollow_words(self) -> str:
        return (
            f"{self.path.name} is as long as it should be, but {format_file_size(self.hollow_bytes)} of its "
            f"{format_file_size(self.tensor_bytes)} of weights were never written (the file is sparse there), as in a "
            "download that was broken off; download it again."
        )

    def check_can_chat(self) -> None:
        """Raise ModelFileError when it cannot answer, whole or not; loadable or not is check_loadable's."""
        reason = ""
        if self.is_embedding_only:
            reason = "is an embedding model: it turns text into vectors and cannot chat"
        elif self.architecture in architectures.DIFFUSION:
            reason = "is a diffusion model, which does not write token after token; kvdesk cannot chat with it"
        elif self.architecture in architectures.ENCODER_DECODER:
            reason = "is an encoder-decoder model; kvdesk chats with decoder models only"
        elif self.architecture in architectures.SPEECH:
            reason = "is a speech model and cannot chat"
        elif self.architecture in architectures.DRAFT:
            reason = "is a draft model, which only speculates for another model"
        elif not self.has_vocab:
            reason = "has no vocabulary: it can be planned, but it cannot chat"
        if reason:
            field_name = "tokenizer.ggml.tokens" if "vocabulary" in reason else "general.architecture"
            raise ModelFileError(f"{self.path.name} {reason}.", self.path, field_name)


def first_part(path: Path) -> Path:
    """The part that a split model is loaded from: ``path`` itself unless its name says it is a later part."""
    match = SPLIT_NAME.fullmatch(path.name)
    if match is None or match["no"] == "00001":
        return path
    return path.with_name(f"{match['prefix']}-00001-of-{match['count']}.gguf")


def read_model_file(path: Path) -> ModelFile:
    """Read the header of the GGUF model ``path`` (any part of a split one; the first is read for the facts).

    Weights are not read and need not be there: ``is_complete`` and ``check_loadable`` tell. Raises ModelFileError,
    naming the field, for a file that is no model or whose header is damaged.
    """
    path = first_part(path)
    try:
        header = read_header(path)
    except ModelFileError as error:
        advice = joining_words(path) if isinstance(error, HeaderCutShort) or error.field == "magic" else ""
        if not advice:
            raise
        raise ModelFileError(advice, path, error.field) from error
    facts = HeaderFacts(header)
    if joined := joined_words(header, facts.integer("split.count", 0)):
        raise ModelFileError(joined, path, "split.count")
    facts.refuse_other_kinds()
    part_paths, later_headers = _read_parts(header, facts)
    return _assemble(facts, part_paths, [header, *later_headers])


def _read_parts(header: GgufHeader, facts: HeaderFacts) -> tuple[tuple[Path, ...], list[GgufHeader]]:
    """The names of all parts, and the headers of the later ones that exist (llama-model-loader.cpp, split.count)."""
    n_parts = facts.integer("split.count", 0)
    if n_parts < 2:
        return (header.path,), []
    match = SPLIT_NAME.fullmatch(header.path.name)
    if n_parts > 0xFFFF or facts.integer("split.no") != 0 or match is None or int(match["count"]) != n_parts:
        raise facts.fault(
            "split.count",
            f"the header says part {facts.integer('split.no') + 1} of {n_parts}, "
            "but the file is not named so (name-00001-of-0000N.gguf)",
        )
    folder, prefix = header.path.parent, match["prefix"]
    paths = tuple(folder / f"{prefix}-{number:05}-of-{n_parts:05}.gguf" for number in range(1, n_parts + 1))
    names = {tensor.name for tensor in header.tensors}
    header_bytes = header.data_offset
    headers: list[GgufHeader] = []
    for part, path in enumerate(paths[1:], 1):
        if not os.path.exists(path):
            continue
        later = read_header(path, part, MAX_TENSORS - len(names), MAX_HEADER_BYTES - header_bytes)
        header_bytes += later.data_offset
        if later.metadata.get("split.no") != part:
            raise refusal(path, "split.no", f"split.no does not say that this is part {part + 1}")
        for tensor in later.tensors:
            if tensor.name in names:
                raise refusal(path, f"tensor {tensor.name}", f"the tensor {tensor.name} is in another part too")
            names.add(tensor.name)
        headers.append(later)
    n_tensors = facts.integer("split.tensors.count")
    if len(headers) == n_parts - 1 and len(names) != n_tensors:
        raise facts.fault("split.tensors.count", f"{n_tensors} tensors are promised, the parts hold {len(names)}")
    return paths, headers


def _assemble(facts: HeaderFacts, part_paths: tuple[Path, ...], headers: list[GgufHeader]) -> ModelFile:
    stamps = {header.path: header.stamp for header in headers}
    missing = tuple(path for path in part_paths if path not in stamps)
    truncated = next((header.path for header in headers if not header.is_complete), None)
    tensors = tuple(tensor for header in headers for tensor in header.tensors)

    n_layer_all = facts.of_arch("block_count")
    if not 1 <= n_layer_all <= MAX_LAYERS:
        raise facts.fault(
            f"{facts.architecture}.block_count", f"block_count is {n_layer_all}; llama.cpp takes 1 to {MAX_LAYERS}"
        )
    n_layer = n_layer_all - facts.of_arch("nextn_predict_layers", 0)
    if n_layer < 0:
        raise facts.fault(
            f"{facts.architecture}.nextn_predict_layers", "nextn_predict_layers is larger than block_count"
        )
    n_embd = facts.of_arch("embedding_length")
    heads = facts.per_layer("attention.head_count", n_layer_all, 0)
    heads_kv = facts.per_layer("attention.head_count_kv", n_layer_all, heads)
    default_size = n_embd // heads[0] if heads[0] else 0
    head_size_k = facts.of_arch("attention.key_length", default_size) if heads[0] else 0
    head_size_v = facts.of_arch("attention.value_length", default_size) if heads[0] else 0
    window, windowed = layers.window(facts, n_layer, n_layer_all)
    recurrent = layers.recurrent_layers(facts, n_layer, n_layer_all, heads_kv)
    n_head, n_head_kv = heads[:n_layer], heads_kv[:n_layer]
    is_hybrid = facts.architecture in architectures.HYBRID
    attending = layers.attending_layers(facts, n_head_kv, recurrent)
    is_mla = facts.architecture in architectures.MLA
    caches_mla = is_mla and facts.of_arch("attention.key_length_mla", 0) > 0
    expert_count, expert_used_count = layers.experts(facts, n_layer_all)
    kv_lora_rank = facts.of_arch("attention.kv_lora_rank", 0) if is_mla else 0
    n_vocab = _n_vocab(facts)
    file_type = facts.integer("general.file_type") if "general.file_type" in facts.metadata else None
    return ModelFile(
        path=facts.path,
        part_paths=part_paths,
        missing_parts=missing,
        is_complete=not missing and truncated is None,
        truncated_part=truncated,
        name=shown_line(facts.text("general.name") or _stem(facts.path), 200),
        architecture=facts.architecture,
        n_layer=n_layer,
        n_ctx_train=facts.of_arch("context_length"),
        n_embd=n_embd,
        n_vocab=n_vocab,
        has_vocab=n_vocab > 0 and facts.text("tokenizer.ggml.model") not in (None, "no_vocab", "none"),
        has_chat_template=bool(facts.metadata.get("tokenizer.chat_template")),
        n_head=n_head,
        n_head_kv=n_head_kv,
        head_size_k=head_size_k,
        head_size_v=head_size_v,
        head_size_k_swa=facts.of_arch("attention.key_length_swa", head_size_k),
        head_size_v_swa=facts.of_arch("attention.value_length_swa", head_size_v),
        sliding_window=window,
        windowed_layers=windowed,
        recurrent_layers=recurrent,
        cached_layers=layers.cached_layers(facts, attending),
        kv_lora_rank=kv_lora_rank or None,
        caches_latent=caches_mla or facts.architecture in architectures.KEYS_ONLY,
        expert_count=expert_count,
        expert_used_count=expert_used_count,
        is_recurrent=facts.architecture in architectures.RECURRENT,
        is_hybrid=is_hybrid,
        is_causal=facts.flag(f"{facts.architecture}.attention.causal", True),
        attention=layers.attention_labels(
            n_head, n_head_kv, attending, is_mla, caches_mla, window, recurrent, is_hybrid
        ),
        file_type=file_type,
        quantization=_quantization(file_type, tensors),
        stamps=tuple(stamps.get(path) for path in part_paths),
        hollow_bytes=sum(_hollow(header) for header in headers),
        size_bytes=sum(max(header.file_bytes, header.needed_bytes) for header in headers),
        tensors=tensors,
        metadata=facts.metadata,
        positions=find_positions(facts.architecture, facts.of_arch("context_length"), facts.metadata, tensors),
    )


def _hollow(header: GgufHeader) -> int:
    return hollow_bytes(header.path, [(tensor.offset, tensor.size_bytes) for tensor in header.tensors])


def _n_vocab(facts: HeaderFacts) -> int:
    tokens = facts.metadata.get("tokenizer.ggml.tokens")
    if tokens is None:
        return 0
    if not isinstance(tokens, ArraySummary) or tokens.type_name != "str":
        raise facts.fault("tokenizer.ggml.tokens", "tokenizer.ggml.tokens is not an array of texts")
    return tokens.count


def _quantization(file_type: int | None, tensors: tuple[Tensor, ...]) -> str:
    """The label of general.file_type, or else the most frequent tensor type (llama-model-loader.cpp guesses so too)."""
    if file_type is not None and file_type in _FILE_TYPES:
        return _FILE_TYPES[file_type]
    counts = Counter(tensor.type_name for tensor in tensors)
    return counts.most_common(1)[0][0].upper() if counts else ""


def _stem(path: Path) -> str:
    match = SPLIT_NAME.fullmatch(path.name)
    return match["prefix"] if match else path.stem
