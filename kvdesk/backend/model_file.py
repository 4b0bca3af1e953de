"""A GGUF model's header as a ModelFile: what it is, how it attends, what tensors it has; fast, no weights read.

The raw format is gguf_header.py's, what llama.cpp knows by name architectures.py's, exact memory figures are the dry
run's. Any thread or process; the cost is one pass over the header (tens of milliseconds for a large vocabulary).
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from kvdesk.backend import architectures
from kvdesk.backend.gguf_header import MAX_TENSORS, ArraySummary, GgufHeader, MetadataValue, Tensor, read_header
from kvdesk.errors import ModelFileError

MAX_LAYERS = 512
"""llama-hparams.h, LLAMA_MAX_LAYERS."""
MAX_EXPERTS = 1024
"""llama-hparams.h, LLAMA_MAX_EXPERTS."""

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

_NOT_A_MODEL: Mapping[str, str] = {
    "mmproj": "is a multimodal projector (mmproj), which only works beside its model; open the model instead",
    "clip": "is a multimodal projector (mmproj), which only works beside its model; open the model instead",
    "adapter": "is a LoRA adapter, which only works on top of its model; open the model instead",
    "controlvector": "is a control vector, which only works on top of its model; open the model instead",
    "imatrix": "is an importance matrix for quantizing, not a model",
    "vocab": "holds only a vocabulary and no weights",
}
"""general.type or general.architecture -> why it is no model."""


@dataclass(frozen=True)
class ModelFile:
    """A model as its header describes it. Lengths are tokens or layers, sizes bytes.

    Tuples named ``..._layers``, ``n_head`` and ``n_head_kv`` have one entry for each of ``n_layer`` layers (layers for
    multi-token prediction left out, as in llama.cpp's n_layer). Head sizes are values per head, 0 without attention;
    the ``_swa`` ones hold in ``windowed_layers``. ``cached_layers`` have a KV cache of their own: they are not
    recurrent and do not read another layer's. With ``caches_latent`` it holds one latent (as K)
    from which V is computed.
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

    @property
    def tensor_bytes(self) -> int:
        """The weights alone, padding left out (llama_model_size)."""
        return sum(tensor.size_bytes for tensor in self.tensors)

    @property
    def n_params(self) -> int:
        """Values in all tensors (llama_model_n_params)."""
        return sum(math.prod(tensor.shape) for tensor in self.tensors)

    @property
    def is_embedding_only(self) -> bool:
        """It turns text into vectors and cannot continue it."""
        return self.architecture in architectures.EMBEDDING or not self.is_causal

    def check_loadable(self) -> None:
        """Raise ModelFileError when llama.cpp could not load the weights: a part is missing or cut short."""
        for missing in self.missing_parts:
            others = f" ({len(self.missing_parts)} are missing)" if len(self.missing_parts) > 1 else ""
            raise ModelFileError(
                f"{self.path.name} is one of {len(self.part_paths)} parts, and {missing.name} is not beside it{others}.",
                missing,
                "split.count",
            )
        if self.truncated_part is not None:
            here = self.part_paths.index(self.truncated_part)
            needed_bytes = max(t.offset + t.size_bytes for t in self.tensors if t.part == here)
            file_bytes = self.truncated_part.stat().st_size if self.truncated_part.exists() else 0
            first = next(t.name for t in self.tensors if t.part == here and t.offset + t.size_bytes > file_bytes)
            raise ModelFileError(
                f"{self.truncated_part.name} is incomplete: {file_bytes:,} of {needed_bytes:,} bytes are there, "
                f"the tensor {first} is not; download it again.",
                self.truncated_part,
                f"tensor {first}",
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
    header = read_header(path)
    facts = _Facts(header)
    facts.refuse_other_kinds()
    part_paths, later_headers = _read_parts(header, facts)
    return _assemble(facts, part_paths, [header, *later_headers])


class _Facts:
    """Checked access to one header's metadata; every fault names its key."""

    def __init__(self, header: GgufHeader) -> None:
        self.header = header
        self.path = header.path
        self.metadata = header.metadata
        self.architecture = self.text("general.architecture") or ""

    def fault(self, key: str, sentence: str) -> ModelFileError:
        return ModelFileError(f"{self.path.name}: {sentence}.", self.path, key)

    def refuse_other_kinds(self) -> None:
        kind = self.text("general.type") or "model"
        for word in (kind, self.architecture):
            if word in _NOT_A_MODEL:
                raise ModelFileError(f"{self.path.name} {_NOT_A_MODEL[word]}.", self.path, "general.type")
        if not self.architecture:
            raise self.fault("general.architecture", "the header does not say which architecture this is")
        if not self.header.tensors and self.integer("split.count", 0) < 2:
            raise ModelFileError(f"{self.path.name} {_NOT_A_MODEL['vocab']}.", self.path, "tensor count")

    def text(self, key: str) -> str | None:
        value = self.metadata.get(key)
        if value is None or isinstance(value, str):
            return value
        raise self.fault(key, f"{key} is not a text")

    def flag(self, key: str, default: bool) -> bool:
        value = self.metadata.get(key, default)
        if isinstance(value, bool):
            return value
        raise self.fault(key, f"{key} is neither true nor false")

    def integer(self, key: str, default: int | None = None) -> int:
        """The unsigned 32-bit value of ``key``; without ``default`` it must be there."""
        value = self.metadata.get(key, default)
        if value is None:
            raise self.fault(key, f"{key} is missing from the header")
        return self._checked(key, value)

    def of_arch(self, key: str, default: int | None = None) -> int:
        return self.integer(f"{self.architecture}.{key}", default)

    def per_layer(self, key: str, n_layer: int, default: int | tuple[int, ...]) -> tuple[int, ...]:
        """One value for each layer; a single value holds for all (llama-model-loader.cpp, get_key_or_arr)."""
        key = f"{self.architecture}.{key}"
        value = self.metadata.get(key, default)
        if isinstance(value, tuple):
            if len(value) != n_layer:
                raise self.fault(key, f"{key} has {len(value)} values for {n_layer} layers")
            return tuple(self._checked(key, item) for item in value)
        return (self._checked(key, value),) * n_layer

    def _checked(self, key: str, value: MetadataValue) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            raise self.fault(key, f"{key} is not a whole number")
        if not 0 <= value < 2**32:
            raise self.fault(key, f"{key} is {value}, out of range")
        return value


def _read_parts(header: GgufHeader, facts: _Facts) -> tuple[tuple[Path, ...], list[GgufHeader]]:
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
    paths = tuple(
        header.path.with_name(f"{match['prefix']}-{no:05}-of-{n_parts:05}.gguf") for no in range(1, n_parts + 1)
    )
    names = {tensor.name for tensor in header.tensors}
    headers: list[GgufHeader] = []
    for part, path in enumerate(paths[1:], 1):
        if not path.exists():
            continue
        later = read_header(path, part, MAX_TENSORS - len(names))
        if later.metadata.get("split.no") != part:
            raise ModelFileError(f"{path.name}: split.no does not say that this is part {part + 1}.", path, "split.no")
        for tensor in later.tensors:
            if tensor.name in names:
                raise ModelFileError(
                    f"{path.name}: the tensor {tensor.name} is in another part too.", path, f"tensor {tensor.name}"
                )
            names.add(tensor.name)
        headers.append(later)
    n_tensors = facts.integer("split.tensors.count")
    if len(headers) == n_parts - 1 and len(names) != n_tensors:
        raise facts.fault("split.tensors.count", f"{n_tensors} tensors are promised, the parts hold {len(names)}")
    return paths, headers


def _assemble(facts: _Facts, part_paths: tuple[Path, ...], headers: list[GgufHeader]) -> ModelFile:
    present = {header.path for header in headers}
    missing = tuple(path for path in part_paths if path not in present)
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
    window, windowed = _window(facts, n_layer, n_layer_all)
    recurrent = _recurrent_layers(facts, n_layer, n_layer_all, heads_kv)
    n_head, n_head_kv = heads[:n_layer], heads_kv[:n_layer]
    is_hybrid = facts.architecture in architectures.HYBRID
    attending = _attending_layers(facts, n_head_kv, recurrent)
    is_mla = facts.architecture in architectures.MLA
    caches_mla = is_mla and facts.of_arch("attention.key_length_mla", 0) > 0
    expert_count, expert_used_count = _experts(facts, n_layer_all)
    kv_lora_rank = facts.of_arch("attention.kv_lora_rank", 0) if is_mla else 0
    n_vocab = _n_vocab(facts)
    file_type = facts.integer("general.file_type") if "general.file_type" in facts.metadata else None
    return ModelFile(
        path=facts.path,
        part_paths=part_paths,
        missing_parts=missing,
        is_complete=not missing and truncated is None,
        truncated_part=truncated,
        name=facts.text("general.name") or _stem(facts.path),
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
        cached_layers=_cached_layers(facts, attending),
        kv_lora_rank=kv_lora_rank or None,
        caches_latent=caches_mla or facts.architecture in architectures.KEYS_ONLY,
        expert_count=expert_count,
        expert_used_count=expert_used_count,
        is_recurrent=facts.architecture in architectures.RECURRENT,
        is_hybrid=is_hybrid,
        is_causal=facts.flag(f"{facts.architecture}.attention.causal", True),
        attention=_attention(n_head, n_head_kv, attending, is_mla, caches_mla, window, recurrent, is_hybrid),
        file_type=file_type,
        quantization=_quantization(file_type, tensors),
        size_bytes=sum(max(header.file_bytes, header.needed_bytes) for header in headers),
        tensors=tensors,
        metadata=facts.metadata,
    )


def _window(facts: _Facts, n_layer: int, n_layer_all: int) -> tuple[int | None, tuple[bool, ...]]:
    """The sliding window in tokens, and which layers see only it (llama-model.cpp, load_swa_pattern)."""
    use = architectures.WINDOWS.get(facts.architecture)
    if facts.architecture == "exaone4" and n_layer == architectures.EXAONE4_WINDOWED_LAYERS:
        use = architectures.WINDOW_EXAONE4
    tokens = facts.of_arch("attention.sliding_window", use.default or 0) if use else 0
    if use is None or not tokens:
        return None, (False,) * n_layer
    key = f"{facts.architecture}.attention.sliding_window_pattern"
    pattern = facts.metadata.get(key, use.period)
    if isinstance(pattern, tuple):
        if len(pattern) > n_layer_all:
            raise facts.fault(key, f"{key} has {len(pattern)} values for {n_layer_all} layers")
        flags = [bool(value) for value in pattern] + [False] * (n_layer_all - len(pattern))
        return use.forced or tokens, tuple(flags[:n_layer])
    if use.period == 0:
        return use.forced or tokens, (True,) * n_layer
    period = facts.integer(key, use.period)
    full = 0 if use.dense_first else period - 1
    return use.forced or tokens, tuple(period == 0 or layer % period != full for layer in range(n_layer))


def _recurrent_layers(facts: _Facts, n_layer: int, n_layer_all: int, heads_kv: tuple[int, ...]) -> tuple[bool, ...]:
    """Which layers keep recurrent state (is_recr_impl in src/models/*.cpp)."""
    architecture = facts.architecture
    if architecture in architectures.RECURRENT:
        return (True,) * n_layer
    if architecture not in architectures.HYBRID or architecture == "deepseek4":
        return (False,) * n_layer
    if architecture == "falcon-h1":
        return (True,) * n_layer
    default_interval = architectures.RECURRENT_BY_INTERVAL.get(architecture)
    if default_interval is None:
        n_ff = facts.per_layer("feed_forward_length", n_layer_all, 0)
        attends_or_feeds = n_ff if architecture.startswith("nemotron_h") else (0,) * n_layer_all
        return tuple(heads_kv[layer] == 0 and attends_or_feeds[layer] == 0 for layer in range(n_layer))
    key = f"{architecture}.attention.recurrent_layers"
    listed = facts.metadata.get(key)
    if isinstance(listed, tuple):
        if len(listed) != n_layer_all:
            raise facts.fault(key, f"{key} has {len(listed)} values for {n_layer_all} layers")
        return tuple(bool(value) for value in listed[:n_layer])
    interval = facts.of_arch("full_attention_interval", default_interval)
    if interval == 0:
        raise facts.fault(f"{architecture}.full_attention_interval", "full_attention_interval is 0")
    return tuple((layer + 1) % interval != 0 for layer in range(n_layer))


def _attending_layers(facts: _Facts, n_head_kv: tuple[int, ...], recurrent: tuple[bool, ...]) -> tuple[bool, ...]:
    """Which layers have attention (the layer filters in llama-model.cpp, create_memory)."""
    both = facts.architecture == "falcon-h1"
    return tuple(heads > 0 and (both or not state) for heads, state in zip(n_head_kv, recurrent, strict=True))


def _cached_layers(facts: _Facts, attending: tuple[bool, ...]) -> tuple[bool, ...]:
    """Which of them keep K and V of their own (llama-hparams.cpp, has_kv)."""
    last = len(attending)
    if facts.architecture in architectures.NO_CACHE:
        last = 0
    elif facts.architecture == "gemma3n":
        last = architectures.GEMMA3N_LAYERS_WITH_CACHE
    elif facts.architecture == "gemma4":
        last -= facts.of_arch("attention.shared_kv_layers", 0)
    return tuple(attends and layer < last for layer, attends in enumerate(attending))


def _experts(facts: _Facts, n_layer_all: int) -> tuple[int, int]:
    """Experts in a layer, and how many of them a token uses; llama.cpp aborts on pairs that are refused here."""
    count = facts.of_arch("expert_count", 0)
    used = max(facts.per_layer("expert_used_count", n_layer_all, 0))
    if facts.architecture in ("hunyuan-dense", "hunyuan_vl") and count <= 1:
        return 0, 0
    if count > MAX_EXPERTS or used > count or (count > 0 and used == 0):
        raise facts.fault(
            f"{facts.architecture}.expert_used_count", f"{used} of {count} experts are used, which is impossible"
        )
    return count, used


def _n_vocab(facts: _Facts) -> int:
    tokens = facts.metadata.get("tokenizer.ggml.tokens")
    if tokens is None:
        return 0
    if not isinstance(tokens, ArraySummary) or tokens.type_name != "str":
        raise facts.fault("tokenizer.ggml.tokens", "tokenizer.ggml.tokens is not an array of texts")
    return tokens.count


def _attention(
    n_head: tuple[int, ...],
    n_head_kv: tuple[int, ...],
    attending: tuple[bool, ...],
    is_mla: bool,
    caches_mla: bool,
    window: int | None,
    recurrent: tuple[bool, ...],
    is_hybrid: bool,
) -> tuple[str, ...]:
    """Labels that apply, most general first: hybrid or recurrent, then how heads share K and V, then SWA."""
    kinds = {
        "MHA" if kv == heads else "MQA" if kv == 1 else "GQA"
        for heads, kv, attends in zip(n_head, n_head_kv, attending, strict=True)
        if attends
    }
    labels = ["hybrid"] if is_hybrid else ["recurrent"] if any(recurrent) else []
    labels += ["MLA"] if is_mla else []
    labels += [] if caches_mla else [kind for kind in ("MHA", "GQA", "MQA") if kind in kinds]
    labels += ["SWA"] if window else []
    return tuple(labels)


def _quantization(file_type: int | None, tensors: tuple[Tensor, ...]) -> str:
    """The label of general.file_type, or else the most frequent tensor type (llama-model-loader.cpp guesses so too)."""
    if file_type is not None and file_type in _FILE_TYPES:
        return _FILE_TYPES[file_type]
    counts = Counter(tensor.type_name for tensor in tensors)
    return counts.most_common(1)[0][0].upper() if counts else ""


def _stem(path: Path) -> str:
    match = SPLIT_NAME.fullmatch(path.name)
    return match["prefix"] if match else path.stem
