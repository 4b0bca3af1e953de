"""Asks llama.cpp which tensors models with given metadata must have; run as a process of its own.

``python tiny_tensors.py HEADER.gguf...`` prints one JSON line for each: a list of [name, [ne0, ne1, ...]] in
llama.cpp's own order, from ``llama_model_init_from_user``, which builds a model from metadata alone. Optional tensors
are among them. Its errors go to stderr. Reaches gguf through libllama's handle, as dlsym allows on Linux and macOS;
never run on Windows.
"""

import ctypes
import json
import sys

from kvdesk.backend.llama import backends  # isort: skip  entering that package spares the rest of llama_cpp's imports
import llama_cpp.llama_cpp as llama


class _GgufInitParams(ctypes.Structure):
    _fields_ = [("no_alloc", ctypes.c_bool), ("ctx", ctypes.c_void_p)]


class _GgmlTensorHead(ctypes.Structure):
    """The first fields of ggml.h's struct ggml_tensor."""

    _fields_ = [("type", ctypes.c_int), ("buffer", ctypes.c_void_p), ("ne", ctypes.c_int64 * 4)]


def main(headers: list[str]) -> None:
    """Print the tensors of each header; ends with status 1 at the first that llama.cpp refuses."""
    library = llama._lib
    backends.load(library)
    library.gguf_init_from_file.restype = ctypes.c_void_p
    library.gguf_init_from_file.argtypes = [ctypes.c_char_p, _GgufInitParams]
    library.ggml_get_name.restype = ctypes.c_char_p
    library.ggml_get_name.argtypes = [ctypes.c_void_p]
    wanted: dict[str, list[int]] = {}

    @llama.llama_log_callback
    def show_errors(level: int, text: bytes, _: object) -> None:
        if level >= 4:
            sys.stderr.write(text.decode(errors="replace"))

    @llama.llama_model_set_tensor_data_t
    def note(tensor: int, _: object) -> None:
        shape = list(ctypes.cast(tensor, ctypes.POINTER(_GgmlTensorHead)).contents.ne)
        while len(shape) > 1 and shape[-1] == 1:
            shape.pop()
        wanted[library.ggml_get_name(tensor).decode()] = shape

    llama.llama_log_set(show_errors, None)
    params = llama.llama_model_default_params()
    params.n_gpu_layers = 0
    for header in headers:
        wanted.clear()
        metadata = library.gguf_init_from_file(header.encode(), _GgufInitParams(True, None))
        model = llama.llama_model_init_from_user(metadata, note, None, params)
        if not model:
            sys.exit(1)
        llama.llama_model_free(model)
        print(json.dumps(list(wanted.items())), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
