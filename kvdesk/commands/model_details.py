"""``kvdesk models info FILE``: what a model's header says in words, and what each context length and cache type takes.

The figures are the plan's (backend/planning), of this machine or the one described.
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kvdesk.commands.table import aligned
from kvdesk.shown_text import shown_line
from kvdesk.sizes import format_bytes, format_file_size
from kvdesk.terminal import say, say_json

if TYPE_CHECKING:
    from kvdesk.backend.gguf.model_file import ModelFile
    from kvdesk.backend.planning.pricer import Pricer


def show(args: argparse.Namespace) -> int:
    """Print the details of the model in the file ``args.model``. Raises ModelFileError for what is no model."""
    from kvdesk import paths
    from kvdesk.backend.gguf.model_file import read_model_file
    from kvdesk.backend.planning.calibration import Calibration
    from kvdesk.backend.planning.pricer import Pricer

    model = read_model_file(Path(args.model))
    with Pricer(model, Calibration(paths.calibration_file())) as pricer:
        prices = [] if args.no_fit else _prices(pricer, args.machine)
    if args.json:
        say_json({"path": str(model.path), **_facts(model), "prices": prices})
        return 0
    say(
        "\n".join(
            aligned([[label.replace("_", " "), str(value)] for label, value in _facts(model).items()], left=(0, 1))
        )
    )
    if prices:
        say("\n" + "\n".join(_table(prices)))
    return 0


def _facts(model: ModelFile) -> dict[str, Any]:
    """The header, key by key."""
    experts = f"{model.expert_used_count} of {model.expert_count} experts" if model.expert_count else "none"
    return {
        "name": model.name,
        "architecture": model.architecture,
        "quantization": model.quantization,
        "size": format_file_size(model.size_bytes),
        "parameters": f"{model.n_params:,}",
        "active_parameters": f"{model.n_params_active:,}",
        "layers": model.n_layer,
        "attention": ", ".join(model.attention) or "none",
        "sliding_window": model.sliding_window or "none",
        "experts": experts,
        "trained_context": f"{model.n_ctx_train:,} tokens",
        "vocabulary": f"{model.n_vocab:,} tokens" if model.has_vocab else "none",
        "chat_template": "its own" if model.has_chat_template else "none: a plain dialogue is used",
        "license": shown_line(str(model.metadata.get("general.license", "unknown")), 80),
    }


def _prices(pricer: Pricer, described: str | None) -> list[dict[str, Any]]:
    """Every context length with every cache type: bytes of the cache and in all, and whether it fits."""
    from kvdesk import paths
    from kvdesk.backend.planning.described_machine import read_description
    from kvdesk.backend.planning.explain import TABLE_LENGTHS, TABLE_TYPES
    from kvdesk.backend.settings import ContextSettings, EngineSettings, ModelSettings
    from kvdesk.backend.system.cpu_fallback import remembered
    from kvdesk.backend.system.machine import read_domains
    from kvdesk.errors import SettingsError

    machine = read_description(described) if described else None
    settings = EngineSettings(remembered(ModelSettings(), paths.fallback_file()))
    settings = machine.applied_to(settings) if machine else settings
    own = pricer.model.n_ctx_train
    lengths = sorted({length for length in TABLE_LENGTHS if not own or length <= own} | ({own} if own else set()))
    readings = machine.readings if machine else read_domains(devices=pricer.footprint(settings).devices)
    rows: list[dict[str, Any]] = []
    for length in lengths:
        for cache_type in TABLE_TYPES:
            context = ContextSettings(n_ctx=length, type_k=cache_type, type_v=cache_type)
            try:
                plan = pricer.plan(dataclasses.replace(settings, context=context), readings, with_max=False)
            except SettingsError:
                continue
            rows.append(
                {
                    "n_ctx": length,
                    "cache_type": cache_type,
                    "kv_bytes": plan.kv.total_bytes,
                    "total_bytes": plan.total_bytes,
                    "fits": plan.fits,
                }
            )
    return rows


def _table(prices: list[dict[str, Any]]) -> list[str]:
    rows = [["tokens", "cache", "KV cache", "in all", "fits"]]
    for price in prices:
        fits = {True: "yes", False: "no", None: "unknown"}[price["fits"]]
        kv, total = format_bytes(price["kv_bytes"]), format_bytes(price["total_bytes"])
        rows.append([f"{price['n_ctx']:,}", price["cache_type"], kv, total, fits])
    return aligned(rows, left=(1, 4))
