"""Loads models one after another with low-level llama.cpp and decodes greedily; run as a process of its own.

``python decode_models.py N_TOKENS MODEL.gguf...`` prints one JSON line per model as it goes: what was decoded and what
llama.cpp says of the model, or why not. A model that kills the process leaves its line out; the caller then knows
which one it was.
"""

import ctypes
import json
import math
import sys

import llama_cpp.llama_cpp as llama

from kvdesk.backend.llama import backends

PROMPT = b"The people said hello, w\xc3\xb6rld!"


def decode(path: str, n_tokens: int) -> dict[str, object]:
    """Load ``path``, read PROMPT (any ids without a vocabulary), then decode ``n_tokens`` greedily."""
    errors: list[str] = []
    caches: list[str] = []

    @llama.llama_log_callback
    def keep(level: int, text: bytes, _: object) -> None:
        if level >= 4:
            errors.append(text.decode(errors="replace"))
        if text.startswith(b"llama_kv_cache: size = "):
            caches.append(text.decode().strip())

    llama.llama_log_set(keep, None)
    params = llama.llama_model_default_params()
    params.n_gpu_layers, params.use_extra_bufts = 0, False
    model = llama.llama_model_load_from_file(path.encode(), params)
    if not model:
        return {"path": path, "error": "".join(errors)}
    context_params = llama.llama_context_default_params()
    context_params.n_ctx, context_params.n_batch, context_params.n_ubatch = 512, 64, 32
    context_params.n_threads = context_params.n_threads_batch = 1
    context_params.swa_full = False
    context = llama.llama_init_from_model(model, context_params)
    if not context:
        return {"path": path, "error": "".join(errors)}
    vocab = llama.llama_model_get_vocab(model)
    n_vocab = llama.llama_vocab_n_tokens(vocab)
    has_vocab = llama.llama_vocab_type(vocab) != llama.LLAMA_VOCAB_TYPE_NONE
    room = (llama.llama_token * 64)(*range(8))
    count = llama.llama_tokenize(vocab, PROMPT, len(PROMPT), room, 64, True, False) if has_vocab else 8
    prompt, reply, text = list(room[:count]), [], b""
    piece = ctypes.create_string_buffer(64)
    if llama.llama_model_has_encoder(model) and llama.llama_model_has_decoder(model):
        llama.llama_encode(context, llama.llama_batch_get_one(room, count))
        room[0], count = max(0, llama.llama_model_decoder_start_token(model)), 1
    for _ in range(n_tokens):
        status = llama.llama_decode(context, llama.llama_batch_get_one(room, count))
        if status:
            return {"path": path, "error": f"llama_decode said {status}: {''.join(errors)}"}
        logits = llama.llama_get_logits_ith(context, -1)[:n_vocab]
        if not all(map(math.isfinite, logits)):
            return {"path": path, "error": "logits are not finite"}
        best = max(range(n_vocab), key=logits.__getitem__)
        reply.append(best)
        length = llama.llama_token_to_piece(vocab, best, piece, 64, 0, False) if has_vocab else 0
        text += piece.raw[: max(0, length)]
        room[0], count = best, 1
    facts = facts_of(model)
    llama.llama_free(context)
    llama.llama_model_free(model)
    return {
        "path": path,
        "prompt": prompt,
        "reply": reply,
        "text": text.decode(errors="replace"),
        "caches": caches,
        "facts": facts,
    }


def facts_of(model: int) -> dict[str, int | bool]:
    """llama.cpp's own answers, by the names that ModelFile uses."""
    return {
        "n_layer": llama.llama_model_n_layer(model),
        "n_ctx_train": llama.llama_model_n_ctx_train(model),
        "n_embd": llama.llama_model_n_embd(model),
        "n_head": llama.llama_model_n_head(model),
        "n_head_kv": llama.llama_model_n_head_kv(model),
        "sliding_window": llama.llama_model_n_swa(model),
        "is_recurrent": llama.llama_model_is_recurrent(model),
        "is_hybrid": llama.llama_model_is_hybrid(model),
        "tensor_bytes": llama.llama_model_size(model),
        "n_params": llama.llama_model_n_params(model),
    }


if __name__ == "__main__":
    backends.load(llama._lib)
    for model_path in sys.argv[2:]:
        print(json.dumps(decode(model_path, int(sys.argv[1]))), flush=True)
