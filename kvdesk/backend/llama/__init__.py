"""The only package that imports llama_cpp. Only the engine, dry-run and network-worker processes enter it.

Of llama_cpp only the bindings (``llama_cpp.llama_cpp``) are used: entering this package lets their import skip the rest.
"""

import importlib.util
import sys
import types


def _import_bindings_alone() -> None:
    """Let ``import llama_cpp.llama_cpp`` skip llama_cpp's own module, which brings numpy, Jinja, a disk cache and the
    classes of a server: 0.2 s instead of 0.9, and 40 MiB less."""
    spec = importlib.util.find_spec("llama_cpp")
    if spec and spec.submodule_search_locations and "llama_cpp" not in sys.modules:
        package = types.ModuleType("llama_cpp")
        package.__path__ = list(spec.submodule_search_locations)
        sys.modules["llama_cpp"] = package


_import_bindings_alone()
