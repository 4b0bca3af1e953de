"""A loaded model: weights and vocabulary. Engine and helper processes only.

Loading, its progress and its failures in words; tokens to text and back. Contexts are context.py's.
"""

from __future__ import annotations

import ctypes
import os
import re
from collections import defaultdict
from collections.abc import Callable, Sequence

from kvdesk.backend.gguf.header import Tensor
from kvdesk.backend.gguf.positions import ALL_ALIKE, Positions
from kvdesk.backend.llama import library, mapped_pages, shim, text_pieces
from kvdesk.backend.llama.abort_flag import AbortFlag
from kvdesk.backend.llama.library import lib
from kvdesk.backend.llama.params import LOAD_MODE_NONE, model_params
from kvdesk.backend.llama.vocabulary_gaps import CONTROL, UNKNOWN, USER_DEFINED, find_gaps
from kvdesk.backend.protocol.facts import ModelFacts
from kvdesk.backend.sampling import recommended
from kvdesk.backend.settings import ModelSettings
from kvdesk.errors import LoadCancelled, ModelFileError
from kvdesk.shown_text import shown_line

_KNOWN_FAILURES = (
    (r"unknown model architecture: '([^']*)'", "llama.cpp {version} does not know the architecture '{0}'; a newer build may."),
    (r"missing tensor '([^']*)'", "The file lacks the tensor '{0}'; it is incomplete or made for another program."),
    (r"tensor '([^']*)' data is not within the file bounds", "The file is cut short (tensor '{0}' is not whole); download it again."),
    (r"key not found in model: (\S+)", "The file's header lacks '{0}'; it is no complete model."),
    (r"unknown pre-tokenizer type: '([^']*)'", "llama.cpp {version} does not know this model's tokenizer '{0}'."),
    (r"(?:failed to allocate|unable to allocate|cannot allocate) (\S+) buffer", "There was not enough memory for the weights ({0})."),
)  # fmt: skip


def _words(log_lines: list[str]) -> str:
    """The sentence for a person out of llama.cpp's error lines; those lines themselves where none is known."""
    text = "\n".join(log_lines)
    for pattern, sentence in _KNOWN_FAILURES:
        found = re.search(pattern, text)
        if found:
            return sentence.format(*found.groups(), version=library.lib_version())
    errors = [line for line in log_lines if "error" in line.lower() or "fail" in line.lower()]
    return "llama.cpp could not load it: " + (errors[0].split(": ", 1)[-1] if errors else "it gave no reason.")


NO_POOLING = ("", "0", "-1", "4294967295")
"""Values of pooling_type that pool nothing: absent, none, and unspecified as llama.cpp saves it (llama.h, enum
llama_pooling_type; llama-model-saver.cpp writes it unsigned)."""
MAPPED = "_Mapped"
"""How ggml's names of buffer types end whose buffers are the file's own pages."""
PIECE_BYTES = 64
"""Room for one token's text; longer ones are asked for again."""


class Model:
    """Weights in memory. ``ptr`` is llama.cpp's model, ``vocab`` its vocabulary; ``log_lines`` what loading said."""

    def __init__(
        self,
        path: str,
        settings: ModelSettings,
        on_progress: Callable[[float], None] | None = None,
        abort: AbortFlag | None = None,
        positions: Positions = ALL_ALIKE,
        *,
        vocabulary_only: bool = False,
    ) -> None:
        """Load ``path``, or its vocabulary alone. Raises ModelFileError with a sentence, LoadCancelled when ``abort`` was set meanwhile."""
        log = library.start()
        for endpoint in settings.rpc_servers:
            library.add_rpc_server(endpoint)
        params = model_params(settings)
        params.vocab_only = vocabulary_only

        def report(fraction: float, _user_data: object) -> bool:
            if on_progress:
                on_progress(fraction)
            return not (abort and abort.is_set())

        params.progress_callback = callback = lib.llama_progress_callback(report)
        with log.captured() as self.log_lines:
            ptr = lib.llama_model_load_from_file(os.fsencode(path), params)
        del callback
        if not ptr:
            if abort and abort.is_set():
                raise LoadCancelled("The load was cancelled.")
            raise ModelFileError(_words(self.log_lines))
        self.ptr = ptr
        self.path = path
        self.positions = positions
        self.vocab = lib.llama_model_get_vocab(ptr)
        self.n_vocab: int = lib.llama_vocab_n_tokens(self.vocab)
        self._gaps = find_gaps(self.vocab, self.n_vocab)
        self.n_swa: int = lib.llama_model_n_swa(ptr)
        self.is_recurrent: bool = lib.llama_model_is_recurrent(ptr)
        self.is_hybrid: bool = lib.llama_model_is_hybrid(ptr)

    def require_chat(self) -> None:
        """Raise ModelFileError, in words, for a model that cannot answer: no decoder, no vocabulary, embeddings only."""
        if not lib.llama_model_has_decoder(self.ptr) or lib.llama_model_has_encoder(self.ptr):
            raise ModelFileError("This model has an encoder and is not made for chat; choose a text generation model.")
        self.require_vocabulary()
        if self.meta(f"{self.architecture}.pooling_type") not in NO_POOLING or (
            self.meta(f"{self.architecture}.attention.causal") == "false"
        ):
            raise ModelFileError("This is an embedding model; it turns text into vectors and cannot chat.")

    def require_vocabulary(self) -> None:
        """Raise ModelFileError, in words, for a file without one."""
        if lib.llama_vocab_type(self.vocab) == 0 or self.n_vocab == 0:  # LLAMA_VOCAB_TYPE_NONE
            raise ModelFileError("This file has no vocabulary; its memory can be planned, but it cannot chat.")

    @property
    def architecture(self) -> str:
        """The model's architecture as its file names it (``general.architecture``)."""
        return self.meta("general.architecture")

    def meta(self, key: str) -> str:
        """A scalar of the GGUF header as text; "" when absent."""
        size = lib.llama_model_meta_val_str(self.ptr, key.encode(), self._buffer(1), 1)
        if size < 0:
            return ""
        buffer = self._buffer(size + 1)
        lib.llama_model_meta_val_str(self.ptr, key.encode(), buffer, size + 1)
        return buffer.value.decode("utf-8", "replace")

    @property
    def joins_cleanly(self) -> bool:
        """Whether a text's second half, tokenized alone, gets no space put before it (llama-vocab.cpp, add_space_prefix)."""
        is_spm = lib.llama_vocab_type(self.vocab) == 1  # LLAMA_VOCAB_TYPE_SPM
        return not is_spm or self.meta("tokenizer.ggml.add_space_prefix") == "false"

    @staticmethod
    def _buffer(size: int) -> ctypes.Array[ctypes.c_char]:
        return ctypes.create_string_buffer(size)

    def facts(self, template_problem: str = "") -> ModelFacts:
        """What the window shows of the model."""
        description = self._buffer(256)
        lib.llama_model_desc(self.ptr, description, 256)
        return ModelFacts(
            path=self.path,
            name=shown_line(self.meta("general.name"), 200),
            architecture=self.architecture,
            description=shown_line(description.value.decode("utf-8", "replace")),
            size_bytes=lib.llama_model_size(self.ptr),
            n_params=lib.llama_model_n_params(self.ptr),
            n_layer=lib.llama_model_n_layer(self.ptr),
            n_ctx_train=lib.llama_model_n_ctx_train(self.ptr),
            n_vocab=self.n_vocab,
            has_chat_template=bool(self.chat_template()),
            is_recurrent=self.is_recurrent,
            is_hybrid=self.is_hybrid,
            template_problem=template_problem,
            recommended_sampling=tuple(recommended(self.meta).items()),
        )

    def chat_template(self) -> str:
        """The Jinja source in the GGUF; "" for a base model."""
        source = lib.llama_model_chat_template(self.ptr, None)
        return source.decode("utf-8", "replace") if source else ""

    def tokenize(self, text: str, *, parse_special: bool) -> list[int]:
        """``text`` as tokens, no start or end token among them. With ``parse_special`` off, special tokens in it stay
        plain text. Any thread."""
        if self._gaps is None:
            return self._spelled(text, parse_special)
        unknown = [] if self._gaps.unknown is None else [self._gaps.unknown]
        parts = self._gaps.parts(text, parse_special)
        return [token for part in parts for token in (self._spelled(part, parse_special) if part else unknown)]

    def _spelled(self, text: str, parse_special: bool) -> list[int]:
        parts = (
            text_pieces.pieces(text, takes_blank=not self.joins_cleanly) if len(text) > text_pieces.WHOLE else (text,)
        )
        return [token for part in parts for token in self._spelled_whole(part, parse_special)]

    def _spelled_whole(self, text: str, parse_special: bool) -> list[int]:
        raw = text.encode("utf-8", "replace")  # halves of characters: a byte of the command line that is no UTF-8
        room = len(raw) + 8
        while True:
            tokens = (lib.llama_token * room)()
            n = lib.llama_tokenize(self.vocab, raw, len(raw), tokens, room, False, parse_special)
            if n >= 0:
                return tokens[:n]
            room = -n

    def piece(self, token: int, *, special: bool = False) -> bytes:
        """The bytes of one token (part of a character, perhaps); control tokens are empty unless ``special``. Any
        thread."""
        buffer = ctypes.create_string_buffer(PIECE_BYTES)  # of this call alone: two threads ask
        n = lib.llama_token_to_piece(self.vocab, token, buffer, PIECE_BYTES, 0, special)
        if n < 0:
            buffer = ctypes.create_string_buffer(-n)
            n = lib.llama_token_to_piece(self.vocab, token, buffer, -n, 0, special)
        return buffer.raw[:n]

    def text(self, tokens: Sequence[int]) -> str:
        """``tokens`` as text, special tokens included."""
        return b"".join(self.piece(t, special=True) for t in tokens).decode("utf-8", "replace")

    def is_end(self, token: int) -> bool:
        """Whether ``token`` ends a reply (llama_vocab_is_eog)."""
        return lib.llama_vocab_is_eog(self.vocab, token)

    def is_control(self, token: int) -> bool:
        """Whether ``token`` is one of the template's marks and no text (llama_vocab_is_control)."""
        return lib.llama_vocab_is_control(self.vocab, token)

    def is_special(self, token: int) -> bool:
        """Whether ``token`` is found in a text only where special tokens are parsed (llama-vocab.cpp, tokenizer_st_partition:
        control and unknown ones)."""
        return bool(lib.llama_vocab_get_attr(self.vocab, token) & (CONTROL | UNKNOWN))

    def is_user_defined(self, token: int) -> bool:
        """Whether ``token`` is found in every text, special tokens parsed or not (llama-vocab.cpp, tokenizer_st_partition)."""
        return bool(lib.llama_vocab_get_attr(self.vocab, token) & USER_DEFINED)

    def mapped_bytes(self) -> dict[str, int]:
        """Buffer type's name -> bytes of the pages of the file that its weights lie in; empty where that cannot be told."""
        ranges: dict[str, list[mapped_pages.Range]] = defaultdict(list)
        for weight in shim.weights(self.ptr) or ():
            name = library.buffer_type_name(weight.buffer_type)
            if name.endswith(MAPPED) and weight.address:
                ranges[name].append((weight.address, weight.address + weight.size_bytes))
        return {name: mapped_pages.page_bytes(found) for name, found in ranges.items()}

    def give_back_pages(self, tensors: Sequence[Tensor]) -> int:
        """Give the system back the file's pages that no weight is read from any more; how many bytes that were.
        ``tensors`` is the file's tensor table."""
        weights = shim.weights(self.ptr) or ()
        types = {weight.buffer_type for weight in weights if weight.buffer_type}
        is_mapped = {one for one in types if library.buffer_type_name(one).endswith(MAPPED)}
        return mapped_pages.give_back(weights, is_mapped, tensors)

    def close(self) -> None:
        """Free the weights; contexts must be closed before."""
        if self.ptr:
            lib.llama_model_free(self.ptr)
            self.ptr = None
            library.give_back_free_memory()


def check_accepted(path: str, settings: ModelSettings) -> None:
    """Raise ModelFileError if llama.cpp would refuse ``path``, EngineError if a new network worker does not answer.

    Reads the header only (no_alloc needs LOAD_MODE_NONE).
    """
    log = library.start()
    library.add_new_rpc_servers(settings.rpc_servers)
    params = model_params(settings)
    params.no_alloc, params.load_mode = True, LOAD_MODE_NONE
    with log.captured() as lines:
        ptr = lib.llama_model_load_from_file(os.fsencode(path), params)
    if not ptr:
        raise ModelFileError(_words(lines))
    lib.llama_model_free(ptr)
