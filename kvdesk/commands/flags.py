"""The flags of settings, made from the metadata that the window's form is made from: type, bounds, choices, help.

One table names them for every command. A sampling setting out of bounds is a usage error (exit 2) with the allowed range;
those of the context are checked together later (settings.context_problems), which names the nearest that is possible.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from kvdesk.backend.settings import Values

    V = TypeVar("V", bound=Values)

FLAGS: Mapping[str, str] = {
    "n_ctx": "--n-ctx",
    "type_k": "--cache-type-k",
    "type_v": "--cache-type-v",
    "flash_attn": "--flash-attn",
    "n_gpu_layers": "--gpu-layers",
    "n_cpu_moe": "--n-cpu-moe",
    "offload_kqv": "--no-kv-offload",
    "n_threads": "--threads",
    "n_batch": "--batch",
    "n_ubatch": "--ubatch",
    "n_seq_max": "--parallel",
    "swa_full": "--swa-full",
    "use_mmap": "--no-mmap",
    "allocation": "--allocation",
    "initial_ctx": "--initial-ctx",
    "rpc_servers": "--rpc",
    "thinking": "--thinking",
    "thinking_budget": "--thinking-budget",
    "max_tokens": "--max-tokens",
    "temperature": "--temperature",
    "top_k": "--top-k",
    "top_p": "--top-p",
    "min_p": "--min-p",
    "repeat_penalty": "--repeat-penalty",
    "repeat_last_n": "--repeat-last-n",
    "presence_penalty": "--presence-penalty",
    "frequency_penalty": "--frequency-penalty",
    "dry_multiplier": "--dry-multiplier",
    "dry_base": "--dry-base",
    "dry_allowed_length": "--dry-allowed-length",
    "dry_penalty_last_n": "--dry-penalty-last-n",
    "dry_sequence_breakers": "--dry-sequence-breaker",
    "top_n_sigma": "--top-nsigma",
    "typical_p": "--typical",
    "xtc_probability": "--xtc-probability",
    "xtc_threshold": "--xtc-threshold",
    "dynatemp_range": "--dynatemp-range",
    "dynatemp_exponent": "--dynatemp-exp",
    "mirostat": "--mirostat",
    "mirostat_tau": "--mirostat-ent",
    "mirostat_eta": "--mirostat-lr",
    "logit_bias": "--logit-bias",
    "grammar": "--grammar",
    "seed": "--seed",
    "stop": "--stop",
}
"""Setting -> its flag."""


def add_flags(parser: argparse.ArgumentParser, *names: str) -> None:
    """A flag for each of these settings; one that is not given leaves None in the namespace, under the setting's name."""
    from kvdesk.backend.sampling import SamplingSettings
    from kvdesk.backend.settings import ContextSettings, ModelSettings

    fields = {
        f.name: f for kind in (ModelSettings, ContextSettings, SamplingSettings) for f in dataclasses.fields(kind)
    }
    for name in names:
        field, words = fields[name], fields[name].metadata["help"]
        if isinstance(field.default, bool):
            words = f"turn off: {field.metadata['label']}" if field.default else words
            parser.add_argument(
                FLAGS[name], dest=name, action="store_const", const=not field.default, help=words.replace("%", "%%")
            )
        elif isinstance(field.default, tuple):
            parser.add_argument(
                FLAGS[name],
                dest=name,
                action="append",
                metavar=field.metadata["metavar"],
                help=field.metadata["flag_help"],
            )
        elif "choices" in field.metadata:
            parser.add_argument(FLAGS[name], dest=name, choices=field.metadata["choices"], help=words)
        elif isinstance(field.default, str):
            parser.add_argument(FLAGS[name], dest=name, metavar=field.metadata["metavar"], help=words)
        else:
            is_checked_later = name in {f.name for f in dataclasses.fields(ContextSettings)}
            read = _number(isinstance(field.default, int), {} if is_checked_later else field.metadata)
            parser.add_argument(FLAGS[name], dest=name, type=read, metavar="N", help=words.replace("%", "%%"))


def given(args: argparse.Namespace, kind: type[V]) -> V:
    """``kind`` with what was given in ``args``, the rest at its defaults."""
    names = [field.name for field in dataclasses.fields(kind)]  # type: ignore[arg-type]
    values = {name: getattr(args, name, None) for name in names}
    return kind(**{name: tuple(v) if isinstance(v, list) else v for name, v in values.items() if v is not None})


def _number(is_whole: bool, metadata: Mapping[str, Any]) -> Callable[[str], float]:
    """Reads a number within the metadata's bounds; argparse puts the flag before the sentence."""
    least, most = metadata.get("minimum"), metadata.get("maximum")
    what = "a whole number" if is_whole else "a number"
    if least is not None and most is not None:
        what += f" from {least} to {most}"
    elif least is not None:
        what += f" of at least {least}"

    def read(text: str) -> float:
        try:
            value = int(text) if is_whole else float(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text} is not {what}") from None
        if not math.isfinite(value) or (least is not None and value < least) or (most is not None and value > most):
            raise argparse.ArgumentTypeError(f"{text} is not {what}")
        return value

    return read
