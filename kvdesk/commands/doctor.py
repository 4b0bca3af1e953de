"""``kvdesk doctor``: where kvdesk keeps its things, and what it has learned that this machine cannot do."""

from __future__ import annotations

import argparse
import json

from kvdesk import __version__, paths


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags."""
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument(
        "--retry-repacking",
        action="store_true",
        help="forget that repacked weights crashed the engine on this machine, and try them at the next load",
    )


def run(args: argparse.Namespace) -> int:
    """Print the facts; 0."""
    import importlib.metadata

    from kvdesk.backend.settings import ModelSettings
    from kvdesk.backend.system import cpu_fallback
    from kvdesk.errors import KvdeskError

    if args.retry_repacking:
        try:
            cpu_fallback.forget(paths.fallback_file())
        except OSError as error:
            raise KvdeskError(f"{paths.fallback_file()} cannot be written: {error.strerror}.") from error
    facts = {
        "kvdesk": __version__,
        "llama_cpp_python": importlib.metadata.version("llama-cpp-python"),
        "config_dir": str(paths.config_dir()),
        "data_dir": str(paths.data_dir()),
        "cache_dir": str(paths.cache_dir()),
        "log_dir": str(paths.log_dir()),
        "repacking_fails_here": not cpu_fallback.remembered(ModelSettings(), paths.fallback_file()).use_extra_bufts,
    }
    if args.json:
        print(json.dumps(facts, indent=2))
        return 0
    repacking = facts.pop("repacking_fails_here")
    width = max(map(len, facts))
    for name, value in facts.items():
        print(f"{name:{width}}  {value}")
    print(
        "\nRepacked weights crashed the engine on this machine and are left off; try again with "
        "`kvdesk doctor --retry-repacking`."
        if repacking
        else "\nNothing is known that this machine cannot do."
    )
    return 0
