"""llama.cpp's shared libraries: loading them, their log, their devices. Engine and helper processes only.

ggml is reached through the handle that llama.cpp itself uses: the wheel holds each library several times, and
opening ``libggml`` by path would load a second copy with a device registry of its own.
"""

from __future__ import annotations

import ctypes
import importlib.metadata
import os
from collections import deque
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import Any

import llama_cpp.llama_cpp as bindings

from kvdesk.backend.llama import backends as backend_files
from kvdesk.backend.protocol.facts import Backend, Device
from kvdesk.backend.settings import ContextSettings
from kvdesk.backend.system.rpc_probe import check_worker
from kvdesk.errors import EngineError

lib: Any = bindings
"""llama.cpp's functions and structures; the bindings' own type hints are narrower than what ctypes takes."""

ggml: Any = lib._lib
"""ctypes handle that also finds ggml's symbols (dlsym looks into llama's dependencies)."""

_libc = ctypes.CDLL("msvcrt" if os.name == "nt" else None)
_M_MMAP_THRESHOLD = -3
"""malloc.h of glibc."""
LARGE_BLOCK_BYTES = 1024 * 1024

FLASH_ATTN_TYPES: dict[str, int] = {"auto": -1, "off": 0, "on": 1}
"""Flash attention setting -> enum llama_flash_attn_type (llama.h)."""

_DEVICE_KINDS = {0: "cpu", 1: "gpu", 2: "igpu", 3: "accel"}


def _declare(name: str, restype: Any, *argtypes: Any) -> Any:
    function = getattr(ggml, name)
    function.restype = restype
    function.argtypes = list(argtypes)
    return function


class DeviceCaps(ctypes.Structure):
    """struct ggml_backend_dev_caps (ggml-backend.h)."""

    _fields_ = [
        (name, ctypes.c_bool) for name in ("async_", "host_buffer", "buffer_from_host_ptr", "events", "mmap_support")
    ]


class DeviceProps(ctypes.Structure):
    """struct ggml_backend_dev_props (ggml-backend.h)."""

    _fields_ = [
        ("name", ctypes.c_char_p),
        ("description", ctypes.c_char_p),
        ("memory_free", ctypes.c_size_t),
        ("memory_total", ctypes.c_size_t),
        ("type", ctypes.c_int),
        ("device_id", ctypes.c_char_p),
        ("caps", DeviceCaps),
    ]


_pointer = ctypes.c_void_p
_dev_count = _declare("ggml_backend_dev_count", ctypes.c_size_t)
_dev_get = _declare("ggml_backend_dev_get", _pointer, ctypes.c_size_t)
_dev_name = _declare("ggml_backend_dev_name", ctypes.c_char_p, _pointer)
_dev_type = _declare("ggml_backend_dev_type", ctypes.c_int, _pointer)
_dev_props = _declare("ggml_backend_dev_get_props", None, _pointer, ctypes.POINTER(DeviceProps))
_dev_reg = _declare("ggml_backend_dev_backend_reg", _pointer, _pointer)
_reg_count = _declare("ggml_backend_reg_count", ctypes.c_size_t)
_reg_get = _declare("ggml_backend_reg_get", _pointer, ctypes.c_size_t)
_reg_name = _declare("ggml_backend_reg_name", ctypes.c_char_p, _pointer)
_reg_by_name = _declare("ggml_backend_reg_by_name", _pointer, ctypes.c_char_p)
_reg_proc = _declare("ggml_backend_reg_get_proc_address", _pointer, _pointer, ctypes.c_char_p)
_buft_name = _declare("ggml_backend_buft_name", ctypes.c_char_p, _pointer)
_register = _declare("ggml_backend_register", None, _pointer)
cpu_buffer_type = _declare("ggml_backend_cpu_buffer_type", _pointer)
"""() -> ggml's buffer type of plain RAM."""


class Log:
    """llama.cpp's log: every line kept (bounded) for parsing, and written to standard error, which is a file."""

    def __init__(self) -> None:
        self._lines: deque[str] = deque(maxlen=4000)
        self._part = ""
        self._level = 0
        self._captures: list[list[str]] = []
        self._callback = lib.llama_log_callback(self._on_text)
        lib.llama_log_set(self._callback, ctypes.c_void_p(0))

    def _on_text(self, level: int, text: bytes, _user_data: object) -> None:
        """Called by llama.cpp from any of its threads; ``level`` 5 continues the line before."""
        self._level = level if level != 5 else self._level
        if self._level >= 2 or os.environ.get("KVDESK_LLAMA_DEBUG"):  # GGML_LOG_LEVEL_INFO and up
            os.write(2, text)
        self._part += text.decode("utf-8", "replace")
        while "\n" in self._part:
            line, self._part = self._part.split("\n", 1)
            self._lines.append(line)
            for capture in self._captures:
                capture.append(line)

    @contextmanager
    def captured(self) -> Generator[list[str], None, None]:
        """The lines logged inside the block."""
        lines: list[str] = []
        self._captures.append(lines)
        try:
            yield lines
        finally:
            self._captures.remove(lines)

    def tail(self, n: int = 20) -> str:
        """The last ``n`` lines that llama.cpp logged."""
        return "\n".join(list(self._lines)[-n:])


_log: Log | None = None
_loading_told: list[str] = []


def start() -> Log:
    """Load backends and route the log; once per process, later calls give the same Log."""
    global _log, _loading_told
    if _log is None:
        _log = Log()
        keep_large_blocks_apart()
        with _log.captured() as _loading_told:
            backend_files.load(ggml)
        lib.llama_backend_init()
    return _log


def backends() -> tuple[Backend, ...]:
    """ggml's backends: those in use, and those that are in our folder and are not."""
    registered = [_reg_name(_reg_get(index)).decode("utf-8", "replace") for index in range(_reg_count())]
    return backend_files.found(registered, backend_files.folder_of(ggml), _loading_told)


def keep_large_blocks_apart() -> None:
    """Have the C library map every block of more than LARGE_BLOCK_BYTES by itself, so that freeing it gives it back.

    glibc raises that size by itself to the largest block that was freed (32 MiB at most); from then on caches, compute
    buffers and checkpoints lie in its heap, which can only shrink from its end (84 MiB more after 100 contexts).
    """
    if hasattr(_libc, "mallopt"):
        _libc.mallopt(_M_MMAP_THRESHOLD, LARGE_BLOCK_BYTES)


def give_back_free_memory() -> None:
    """Have the C library return what was freed to the system, so that it is not counted as the engine's (glibc keeps a
    model's vocabulary, 40 MiB with 262,144 tokens, and scatters the next one over it)."""
    if hasattr(_libc, "malloc_trim"):
        _libc.malloc_trim(0)


def lib_version() -> str:
    """Version of llama-cpp-python, which pins that of llama.cpp."""
    return importlib.metadata.version("llama-cpp-python")


def state_layout(settings: ContextSettings) -> str:
    """What else than cache types and flash attention decides whether saved cells fit a context."""
    rotated = os.environ.get("LLAMA_ATTN_ROT_DISABLE", "0")
    return f"swa_full={int(settings.swa_full)} rot={rotated}"


def system_info() -> str:
    """CPU features and backends, as llama.cpp prints them."""
    return lib.llama_print_system_info().decode("utf-8", "replace")


def device_name(dev: int) -> str:
    """ggml's name of a device pointer, e.g. "CPU" or "CUDA0"."""
    return _dev_name(dev).decode("utf-8", "replace")


def buffer_type_name(buffer_type: int) -> str:
    """ggml's name of a buffer type pointer, e.g. "CPU_Mapped"; "" for none."""
    return _buft_name(buffer_type).decode("utf-8", "replace") if buffer_type else ""


def device_kind(dev: int) -> str:
    """ "cpu", "gpu", "igpu", "accel" or "rpc"."""
    if _reg_name(_dev_reg(dev)) == b"RPC":
        return "rpc"
    return _DEVICE_KINDS.get(_dev_type(dev), "gpu")


def device_props(dev: int) -> DeviceProps:
    """What ggml says of a device pointer."""
    props = DeviceProps()
    _dev_props(dev, ctypes.byref(props))
    return props


def device_pointers() -> list[int]:
    """Every ggml device, in the order of ``devices``; a card that two backends offer (CUDA0 and Vulkan0) once."""
    pointers = [_dev_get(index) for index in range(_dev_count())]
    return [pointers[index] for index in backend_files.first_of_each_card([_card_of(dev) for dev in pointers])]


def _card_of(dev: int) -> str:
    """The PCI address of a card of this machine, "" for any other device (a worker is not asked)."""
    is_card = device_kind(dev) in ("gpu", "igpu")
    return (device_props(dev).device_id or b"").decode("utf-8", "replace") if is_card else ""


def devices() -> tuple[Device, ...]:
    """Every ggml device. Memory of the CPU device is None: ggml reports the total as free on Linux.

    Asks network workers for their memory, and aborts the process if one is gone.
    """
    return tuple(_device(dev) for dev in device_pointers())


def _device(dev: int) -> Device:
    kind, props = device_kind(dev), device_props(dev)
    known = kind not in ("cpu", "accel") and props.memory_total > 0
    return Device(
        props.name.decode("utf-8", "replace"),
        props.description.decode("utf-8", "replace"),
        kind,
        props.memory_free if known else None,
        props.memory_total if known else None,
        (props.device_id or b"").decode("utf-8", "replace"),
    )


def has_rpc() -> bool:
    """Whether these libraries were built with the RPC backend."""
    return bool(_reg_by_name(b"RPC"))


def rpc_function(name: str) -> int:
    """The address of a function of the RPC backend (ggml-rpc.h). Raises EngineError when the build has no RPC."""
    reg = _reg_by_name(b"RPC")
    address = _reg_proc(reg, name.encode()) if reg else None
    if not address:
        raise EngineError(
            "This build of llama.cpp has no RPC backend, so network workers cannot be used; `make setup` builds one "
            "that has."
        )
    return address


_rpc_servers: set[str] = set()


def add_new_rpc_servers(endpoints: Sequence[str]) -> None:
    """``add_rpc_server`` for those that are not there yet: a worker that serves this process already would seem busy."""
    for endpoint in endpoints:
        if endpoint not in _rpc_servers:
            add_rpc_server(endpoint)


def add_rpc_server(endpoint: str) -> None:
    """Make the devices of the worker at ``endpoint`` (host:port) this process's (ggml_backend_rpc_add_server).

    They stay for the life of the process. Raises UsageError for no address, and EngineError with a sentence when the
    build has no RPC or no worker answers there: llama.cpp itself would abort.
    """
    add = ctypes.CFUNCTYPE(_pointer, ctypes.c_char_p)(rpc_function("ggml_backend_rpc_add_server"))
    check_worker(endpoint)
    if endpoint in _rpc_servers:
        return
    server = add(endpoint.encode())
    if not server:
        raise EngineError(f"The network worker at {endpoint} lends no device.")
    _register(server)
    _rpc_servers.add(endpoint)
