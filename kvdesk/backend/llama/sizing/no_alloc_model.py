"""A model that is never loaded: llama.cpp plans its buffers without allocating them. Helper process only.

``no_alloc`` reads metadata only; a context on such a model sizes everything. What the plan must add to what llama.cpp
then reports (mapped weights, the output buffer, recurrent state apart from KV) is added here.
"""

from __future__ import annotations

import ctypes
import dataclasses
import functools
import os
import re
from collections import defaultdict
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import llama_cpp.llama_cpp as lib

from kvdesk.backend.gguf.header import Tensor
from kvdesk.backend.llama import library
from kvdesk.backend.llama.mapped_pages import Range, page_bytes
from kvdesk.backend.llama.params import LOAD_MODE_NONE, context_params, model_params
from kvdesk.backend.llama.sizing import buffers_from_log, log_parser, memory_breakdown
from kvdesk.backend.protocol.facts import Buffer, BufferKind, CacheBlock
from kvdesk.backend.protocol.footprint import DRY_RUN, Footprint
from kvdesk.backend.settings import ContextSettings, EngineSettings, ModelSettings, pad256
from kvdesk.errors import PlanError, SettingsError
from kvdesk.sizes import GIB, MIB

_DEBUG = 1
"""GGML_LOG_LEVEL_DEBUG (ggml.h)."""
LONGEST_ASKED = 2**20
"""Cells that are really asked for: llama.cpp keeps 52 bytes of books for each even in a dry run."""
MOST_SEQUENCES = 256
"""LLAMA_MAX_SEQ (llama-cparams.h)."""
MOST_STATE_BYTES = 512 * MIB
"""Recurrent state that a dry run may take."""
LAZY_TENSOR = "per_layer_token_embd.weight"
LAZY_LEAST_BYTES = 4 * GIB
"""Read on demand and mapped apart from the rest when larger than this (llama-model-loader.cpp, lazy_read::add)."""

_RESERVED_FOR_ONE = frozenset({"kimi-linear", "minimax-01"})
"""Architectures whose worst-case graph is that of a single sequence (llama-context.cpp, TAG_RESERVE_DIAG_DECAY)."""

_COMPRESSOR_STATE = re.compile(r"\s(\S+) DSV4 .* state buffer size = *([\d.]+) MiB")
"""deepseek4 keeps a recurrent state of its own (llama-kv-cache-dsv4.cpp)."""

_REFUSALS = (
    (r"does not support different K .* and V", "This model caches K and V as one and needs one type for both."),
    (r"quantized V cache.* requires", "V quantization needs Flash Attention, which does not work with this model here."),
    (r"(\w) cache type (\S+) with block size (\d+) does not divide \S+=(\d+)",
     "{1} packs {2} values a block, which does not divide the {0} head size {3}."),
    (r"n_seq_max must be <= (\d+)", "llama.cpp takes at most {0} parallel sequences."),
    (r"ctx_other to be set|requires ctx_other", "This is a draft model; it runs only beside the model it speculates for."),
)  # fmt: skip


class _BriefLog:
    """llama.cpp's log without its debug lines: 700 of them a context, and each costs as much as real work."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self._callback = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)(self._on_text)
        lib.llama_log_set(ctypes.cast(self._callback, lib.llama_log_callback), ctypes.c_void_p(0))

    def _on_text(self, level: int, text: int, _user_data: object) -> None:
        if level > _DEBUG:
            self.lines += ctypes.string_at(text).decode("utf-8", "replace").splitlines()


@functools.cache
def _brief_log() -> _BriefLog:
    library.start()  # loads the backends, and would keep every line
    return _BriefLog()


class PlannedModel:
    """Metadata of a model in this process, ready to price contexts."""

    def __init__(self, path: Path, settings: ModelSettings, tensors: Sequence[Tensor]) -> None:
        """Open ``path``; ``tensors`` is the tensor table of the file that will really be loaded.

        Raises PlanError with llama.cpp's reason.
        """
        params = model_params(settings)
        params.no_alloc = True
        params.load_mode = LOAD_MODE_NONE
        self._log = _brief_log()
        self._log.lines.clear()
        self.ptr: Any = lib.llama_model_load_from_file(os.fsencode(path), params)
        if not self.ptr:
            raise PlanError(f"llama.cpp cannot plan this model: {_reason(self._log.lines)}.")
        self.settings = settings
        vocab: Any = lib.llama_model_get_vocab(self.ptr)
        self.n_vocab: int = lib.llama_vocab_n_tokens(vocab)
        self._n_ctx_train: int = lib.llama_model_n_ctx_train(self.ptr)
        self._tensors = {tensor.name: tensor for tensor in tensors}
        self._devices = library.devices()
        name: Any = ctypes.create_string_buffer(64)
        lib.llama_model_meta_val_str(self.ptr, b"general.architecture", name, len(name))
        self._architecture = name.value.decode("utf-8", "replace")
        self._mapped: dict[int, tuple[int, int]] | None = None
        self._recurrent: dict[int, dict[str, int]] = {}

    def footprint(self, settings: ContextSettings) -> Footprint:
        """What a context of ``settings`` would allocate, weights included.

        Raises SettingsError when llama.cpp refuses the settings.
        """
        n_ctx = pad256(settings.n_ctx or self._n_ctx_train)
        if n_ctx > LONGEST_ASKED:
            half, whole = (dataclasses.replace(settings, n_ctx=n) for n in (LONGEST_ASKED // 2, LONGEST_ASKED))
            return self._extrapolated(settings, half, whole, n_ctx / LONGEST_ASKED)
        most = self._most_sequences() if settings.n_seq_max > 1 else 1
        if settings.n_seq_max > most:
            each = pad256(n_ctx // settings.n_seq_max)
            half, whole = (dataclasses.replace(settings, n_seq_max=n, n_ctx=each * n) for n in (most // 2, most))
            return self._extrapolated(settings, half, whole, settings.n_seq_max / most)
        shares, lines, n_ctx, n_ctx_seq = self._plan(settings)
        caches = log_parser.caches(lines)
        output = [b for b in log_parser.buffers(lines) if b.kind is BufferKind.OUTPUT]
        if shares is None:
            n_layer = lib.llama_model_n_layer(self.ptr)
            buffers = buffers_from_log.buffers(
                lines, list(self._tensors.values()), self._devices, n_layer, self.settings
            )
        else:
            recurrent = self._recurrent_bytes(settings, lines, caches)
            shares = self._with_single_sequence(shares, settings, n_ctx_seq)
            buffers = tuple(self._buffers(shares, recurrent)) + tuple(self._exact_output(output, settings))
            caches = _exact_caches(caches, sum(b.size_bytes for b in buffers if b.kind is BufferKind.KV))
        return Footprint(
            settings=EngineSettings(self.settings, settings),
            source=DRY_RUN,
            n_ctx=n_ctx,
            n_ctx_seq=n_ctx_seq,
            flash_attn=_flash_attention(lines, settings),
            buffers=buffers,
            caches=caches,
            devices=self._devices,
            n_vocab=self.n_vocab,
            warnings=self._warnings(settings, buffers),
        )

    def _warnings(self, settings: ContextSettings, buffers: Sequence[Buffer]) -> tuple[str, ...]:
        """llama.cpp's dry run sizes the graph of a hybrid on a device in one go, the real one in three; with its cache in
        RAM (seen with lfm2 and granitehybrid) that comes to more than is made."""
        is_hybrid = any(buffer.kind is BufferKind.RECURRENT for buffer in buffers)
        if settings.offload_kqv or not is_hybrid or all(buffer.device == "CPU" for buffer in buffers):
            return ()
        return ("With its cache in RAM, this model's compute buffer on the GPU may be planned larger than it becomes.",)

    def _extrapolated(
        self, settings: ContextSettings, half: ContextSettings, whole: ContextSettings, times: float
    ) -> Footprint:
        """The footprint of something too large to ask for, ``times`` as large as ``whole``, of which ``half`` is half;
        by then everything grows in a straight line."""
        low, high = self.footprint(half), self.footprint(whole)

        def on(start: int, end: int) -> int:
            return round(end + (end - start) * 2 * (times - 1))

        return dataclasses.replace(
            high,
            settings=EngineSettings(self.settings, settings),
            n_ctx=on(low.n_ctx, high.n_ctx),
            n_ctx_seq=on(low.n_ctx_seq, high.n_ctx_seq),
            buffers=tuple(
                dataclasses.replace(b, size_bytes=on(a.size_bytes, b.size_bytes))
                for a, b in zip(low.buffers, high.buffers, strict=True)
            ),
            caches=tuple(
                dataclasses.replace(b, cells=on(a.cells, b.cells), size_bytes=on(a.size_bytes, b.size_bytes))
                for a, b in zip(low.caches, high.caches, strict=True)
            ),
        )

    def _most_sequences(self) -> int:
        """Sequences that may be asked for: recurrent state is really allocated, in a dry run too."""
        one = self.footprint(ContextSettings(n_ctx=256, n_seq_max=1)).bytes_of(BufferKind.RECURRENT)
        most = MOST_SEQUENCES
        while most > 2 and one * most > MOST_STATE_BYTES:
            most //= 2
        return most

    def close(self) -> None:
        """Free what was read of the model."""
        lib.llama_model_free(self.ptr)

    def _plan(self, settings: ContextSettings) -> tuple[tuple[memory_breakdown.Share, ...] | None, list[str], int, int]:
        """A context made, read and thrown away: its breakdown, log, n_ctx and n_ctx per sequence."""
        params = context_params(settings, settings.n_ctx or self._n_ctx_train)
        self._log.lines.clear()
        context = lib.llama_init_from_model(self.ptr, params)
        lines = list(self._log.lines)
        if not context:
            raise SettingsError(_refusal(lines))
        try:
            return memory_breakdown.read(context), lines, lib.llama_n_ctx(context), lib.llama_n_ctx_seq(context)
        finally:
            lib.llama_free(context)

    def _with_single_sequence(
        self, shares: Sequence[memory_breakdown.Share], settings: ContextSettings, n_ctx_seq: int
    ) -> Sequence[memory_breakdown.Share]:
        """``shares`` with the compute buffers of one sequence where those are larger and llama.cpp reserves them too."""
        if settings.n_seq_max == 1 or self._architecture not in _RESERVED_FOR_ONE:
            return shares
        single, _, _, _ = self._plan(dataclasses.replace(settings, n_ctx=n_ctx_seq, n_seq_max=1))
        compute = {share.name: share.compute_bytes for share in single or ()}
        return [dataclasses.replace(s, compute_bytes=max(s.compute_bytes, compute.get(s.name, 0))) for s in shares]

    def _buffers(self, shares: Sequence[memory_breakdown.Share], recurrent: dict[str, int]) -> list[Buffer]:
        mapped: dict[int, tuple[int, int]] = {}
        if self.settings.use_mmap:
            pinned = {share.buffer_type for share in shares if share.pinned}
            shares = memory_breakdown.mapped_weights_in_ram(shares)
            mapped = self._mapped_bytes(shares, pinned)
        found: list[Buffer] = []
        for share in shares:
            if share.buffer_type in mapped:
                size, span = mapped[share.buffer_type]
                name = f"{share.name}_Mapped"
                found.append(Buffer(share.device, name, BufferKind.WEIGHTS, size, mapped=True, span_bytes=span))
            else:
                found.append(Buffer(share.device, share.name, BufferKind.WEIGHTS, share.model_bytes))
            state = recurrent.get(share.name, 0)
            found += [
                Buffer(share.device, share.name, BufferKind.KV, share.context_bytes - state),
                Buffer(share.device, share.name, BufferKind.RECURRENT, state),
                Buffer(share.device, share.name, BufferKind.COMPUTE, share.compute_bytes),
            ]
        return [buffer for buffer in found if buffer.size_bytes]

    def _mapped_bytes(
        self, shares: Sequence[memory_breakdown.Share], pinned: Collection[int]
    ) -> dict[int, tuple[int, int]]:
        """Buffer type -> bytes of the pages that its tensors lie in, and of the buffer that a mapped load makes: from the
        first to the last of its tensors in each part, whatever lies between (llama-model-loader.cpp, get_mapping_range).
        What is in ``pinned`` buffer types here is in the CPU's there."""
        if self._mapped is None:
            placed = memory_breakdown.tensor_buffer_types(self.ptr)
            can_map = {share.buffer_type for share in shares if share.can_map and share.model_bytes}
            if placed is None:
                return {s.buffer_type: (s.model_bytes, s.model_bytes) for s in shares if s.buffer_type in can_map}
            spans: dict[tuple[int, int, bool], list[Range]] = defaultdict(list)
            places: dict[tuple[int, int], list[Range]] = defaultdict(list)
            for name, in_dry_run in placed:
                buffer_type = library.cpu_buffer_type() if in_dry_run in pinned else in_dry_run
                tensor = self._tensors.get(name)
                if tensor and buffer_type in can_map:
                    lazy = name == LAZY_TENSOR and tensor.size_bytes > LAZY_LEAST_BYTES
                    place = tensor.offset, tensor.offset + tensor.size_bytes
                    spans[buffer_type, tensor.part, lazy].append(place)
                    places[buffer_type, tensor.part].append(place)
            self._mapped = {}
            for buffer_type in can_map:
                size = sum(page_bytes(ranges) for (of, _), ranges in places.items() if of == buffer_type)
                span = sum(_span(ranges) for (of, _, _), ranges in spans.items() if of == buffer_type)
                self._mapped[buffer_type] = size, span
        return self._mapped

    def _recurrent_bytes(
        self, settings: ContextSettings, lines: list[str], caches: Sequence[CacheBlock]
    ) -> dict[str, int]:
        """Buffer type name -> bytes of recurrent state, which the breakdown counts together with KV.

        The log gives it with two decimals; exact is the part of the context that stays when all caches double.
        """
        state = [b for b in log_parser.buffers(lines) if b.kind is BufferKind.RECURRENT]
        if not state:
            states: dict[str, int] = defaultdict(int)
            for match in filter(None, map(_COMPRESSOR_STATE.search, lines)):
                states[match[1]] += round(float(match[2]) * MIB)
            return states
        if settings.n_seq_max not in self._recurrent:
            one = self._context_bytes(settings, 256 * settings.n_seq_max)
            two = self._context_bytes(settings, 512 * settings.n_seq_max) if caches else one
            self._recurrent[settings.n_seq_max] = {
                name: 2 * one[name] - two[name] if caches else one[name] for name in {b.name for b in state}
            }
        return self._recurrent[settings.n_seq_max]

    def _context_bytes(self, settings: ContextSettings, n_ctx: int) -> dict[str, int]:
        shares, _, _, _ = self._plan(dataclasses.replace(settings, n_ctx=n_ctx, swa_full=True))
        return {share.name: share.context_bytes for share in shares or ()}

    def _exact_output(self, output: Sequence[Buffer], settings: ContextSettings) -> list[Buffer]:
        """The output buffers of the log to the byte where they are logits alone (llama-context.cpp, output_reserve)."""
        logits = self.n_vocab * 4 * settings.n_seq_max
        rounding = MIB // 100
        return [
            dataclasses.replace(b, size_bytes=logits) if abs(b.size_bytes - logits) < rounding else b for b in output
        ]


def _span(ranges: Sequence[Range]) -> int:
    """From the first byte to the last."""
    return max(end for _, end in ranges) - min(begin for begin, _ in ranges)


def _exact_caches(caches: tuple[CacheBlock, ...], kv_bytes: int) -> tuple[CacheBlock, ...]:
    """``caches`` with the rounding of the log's two decimals put right, so that they add up to ``kv_bytes``.

    What is left over goes to the largest; where llama.cpp caches more than it logs, the caches stay as logged.
    """
    logged = sum(cache.size_bytes for cache in caches)
    if not caches or abs(kv_bytes - logged) > MIB // 100 * 2 * len(caches):
        return caches
    if len(caches) == 1:
        return (dataclasses.replace(caches[0], size_bytes=kv_bytes),)
    exact = [dataclasses.replace(c, size_bytes=c.size_bytes // c.cells * c.cells) for c in caches]
    last = max(range(len(exact)), key=lambda index: exact[index].size_bytes)
    rest = kv_bytes - sum(c.size_bytes for i, c in enumerate(exact) if i != last)
    exact[last] = dataclasses.replace(exact[last], size_bytes=rest)
    return tuple(exact)


def _flash_attention(lines: list[str], settings: ContextSettings) -> bool:
    if any("forcing off" in line and "flash" in line.lower() for line in lines):
        return False
    return log_parser.flash_attention(lines, settings.flash_attn)


def _reason(lines: list[str]) -> str:
    errors = [line.split(": ", 1)[-1] for line in lines if "error" in line.lower() or "fail" in line.lower()]
    return errors[0].rstrip(".") if errors else "it gave no reason"


def _refusal(lines: list[str]) -> str:
    text = "\n".join(lines)
    for pattern, sentence in _REFUSALS:
        found = re.search(pattern, text)
        if found:
            return sentence.format(*found.groups())
    return f"llama.cpp refuses these settings: {_reason(lines)}."
