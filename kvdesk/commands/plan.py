"""``kvdesk plan``: what a model needs in every memory domain before it is loaded, without Qt.

Prints an aligned table and one sentence, or with ``--json`` one object. The plan itself is backend/planning/pricer.py's.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kvdesk.commands.flags import FLAGS, add_flags, given
from kvdesk.commands.table import aligned
from kvdesk.errors import SettingsError, UsageError
from kvdesk.sizes import MIB, format_bytes, format_bytes_delta
from kvdesk.terminal import say, say_json

if TYPE_CHECKING:
    from kvdesk.backend.gguf.model_file import ModelFile
    from kvdesk.backend.planning.described_machine import DescribedMachine
    from kvdesk.backend.planning.plan import Curve, MemoryPlan, Option
    from kvdesk.backend.planning.pricer import Pricer
    from kvdesk.backend.settings import EngineSettings
    from kvdesk.backend.system.samples import DomainReading

CURVE_TYPES = ("f16", "q8_0", "q4_0")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags; defaults are those of backend/settings.py."""
    parser.add_argument("model", type=Path, help="a GGUF file, or its header alone (of a split model: its first part)")
    add_flags(
        parser,
        "n_ctx",
        "type_k",
        "type_v",
        "flash_attn",
        "n_gpu_layers",
        "n_cpu_moe",
        "offload_kqv",
        "n_batch",
        "n_ubatch",
        "swa_full",
    )
    add_flags(parser, "n_seq_max", "use_mmap", "rpc_servers")
    parser.add_argument(
        "--margin",
        type=int,
        metavar="MIB",
        help="what to keep free under the ceiling (1024, or a tenth of the memory if that is less)",
    )
    parser.add_argument(
        "--as",
        dest="machine",
        metavar="MACHINE",
        help='plan for another machine, such as "24 GiB VRAM, 64 GiB RAM" or "2x 16 GiB VRAM, 32 GiB RAM"',
    )
    parser.add_argument("--curve", action="store_true", help="memory against context length, per cache type")
    parser.add_argument("--fit", action="store_true", help="plan the largest context that fits")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    """Plan. Raises KvdeskError with the sentence to print."""
    from kvdesk import paths
    from kvdesk.backend.gguf.model_file import read_model_file
    from kvdesk.backend.planning.calibration import Calibration
    from kvdesk.backend.planning.pricer import Pricer
    from kvdesk.backend.settings import AUTOMATIC_MARGIN

    settings = _settings(args)
    machine = _described(args)
    if machine:
        settings = machine.applied_to(settings)
    margin_bytes = AUTOMATIC_MARGIN if args.margin is None else args.margin * MIB
    with Pricer(read_model_file(args.model), Calibration(paths.calibration_file()), margin_bytes) as pricer:
        try:
            _plan(args, settings, pricer, machine)
        except SettingsError as error:
            raise SettingsError(str(error) + _nearest_words(settings, error.nearest)) from error
    return 0


def _plan(args: argparse.Namespace, settings: EngineSettings, pricer: Pricer, machine: DescribedMachine | None) -> None:
    readings = machine.readings if machine else _read_domains(pricer, settings)
    if args.fit:
        own_length = dataclasses.replace(settings, context=dataclasses.replace(settings.context, n_ctx=0))
        longest = pricer.longest(own_length, readings)
        if longest:
            context = dataclasses.replace(settings.context, n_ctx=longest)
            settings = dataclasses.replace(settings, context=context)
    plan = pricer.plan(settings, readings, with_options=True)
    curves = pricer.curve(settings, _curve_types(settings), readings) if args.curve else ()
    if args.json:
        say_json(_json(pricer.model, plan, curves))
    else:
        say("\n".join(_table(pricer.model, plan, curves)))


def _settings(args: argparse.Namespace) -> EngineSettings:
    from kvdesk import paths
    from kvdesk.backend.settings import ContextSettings, EngineSettings, ModelSettings
    from kvdesk.backend.system.cpu_fallback import remembered

    model = given(args, ModelSettings)
    context = given(args, ContextSettings)
    return EngineSettings(remembered(model, paths.fallback_file()), context)


def _described(args: argparse.Namespace) -> DescribedMachine | None:
    from kvdesk.backend.planning.described_machine import read_description

    if args.machine is None:
        return None
    if args.rpc_servers:
        raise UsageError("--as describes the whole machine; it goes without --rpc.")
    return read_description(args.machine)


def _read_domains(pricer: Pricer, settings: EngineSettings) -> Sequence[DomainReading]:
    """This machine's memory now, and that of every device that llama.cpp would use."""
    from kvdesk.backend.system.machine import read_domains

    return read_domains(devices=pricer.footprint(settings).devices)


def _curve_types(settings: EngineSettings) -> list[tuple[str, str]]:
    """f16, q8_0, q4_0 and the chosen pair."""
    chosen = (settings.context.type_k, settings.context.type_v)
    pairs = [(name, name) for name in CURVE_TYPES]
    return pairs if chosen in pairs else [chosen, *pairs]


def _nearest_words(settings: EngineSettings, nearest: object) -> str:
    """Which flags to change, "" when nothing near is known."""
    from kvdesk.backend.settings import EngineSettings

    if not isinstance(nearest, EngineSettings):
        return ""
    changes = [
        f"{flag} {getattr(nearest.context, name)}"
        for name, flag in FLAGS.items()
        if hasattr(settings.context, name)
        if getattr(nearest.context, name) != getattr(settings.context, name)
    ]
    return f" Nearest possible: {' '.join(changes)}." if changes else ""


def _json(model: ModelFile, plan: MemoryPlan, curves: Sequence[Curve]) -> dict[str, Any]:
    """The contract of ``kvdesk plan --json``."""

    def one(values: tuple[int, ...]) -> int | list[int]:
        """A number where all layers have the same."""
        return list(values) if len(set(values)) > 1 else values[0] if values else 0

    told: dict[str, Any] = {
        "model": {
            "path": str(model.path),
            "name": model.name,
            "architecture": model.architecture,
            "n_layer": model.n_layer,
            "n_ctx_train": model.n_ctx_train,
            "n_head": one(model.n_head),
            "n_head_kv": one(model.n_head_kv),
            "head_size_k": model.head_size_k,
            "head_size_v": model.head_size_v,
            "attention": list(model.attention),
            "is_complete": not model.lacking,
        },
        **plan.to_json_dict(),
    }
    if curves:
        told["curve"] = [
            {
                "type_k": curve.type_k,
                "type_v": curve.type_v,
                "points": [[point.n_ctx, point.total_bytes] for point in curve.points],
                "crossing_n_ctx": curve.crossing_n_ctx,
            }
            for curve in curves
        ]
    return told


# --- the table ---------------------------------------------------------------------------------------------------


def _table(model: ModelFile, plan: MemoryPlan, curves: Sequence[Curve]) -> list[str]:
    from kvdesk.backend.planning.explain import formula_words

    context = plan.settings.context
    attention = ", ".join(model.attention) or "no attention"
    conversations = f", {context.n_seq_max} conversations" if context.n_seq_max > 1 else ""
    exactness = "" if plan.source == "dry-run" else " - an estimate"
    lines = [
        f"{model.name}: {model.architecture}, {model.n_layer} layers, {attention}, {model.quantization}",
        (
            f"{plan.n_ctx:,} of {model.n_ctx_train:,} tokens, K {context.type_k}, V {context.type_v}, Flash Attention "
            f"{'on' if plan.flash_attn else 'off'}, batches of {context.n_ubatch:,}{conversations}{exactness}"
        ),
        "",
        *_device_rows(plan),
        "",
        _verdict(model, plan),
    ]
    formula = formula_words(model, plan.n_ctx, context)
    if formula and plan.kv.formula_bytes != plan.kv.total_bytes:
        lines.append(f"KV by the formula: {formula}; exact: {format_bytes(plan.kv.total_bytes)}.")
    if plan.options:
        lines += ["", *_option_rows(plan.options)]
    if curves:
        lines += ["", *_curve_rows(curves)]
    return lines + [f"Note: {warning}" for warning in plan.warnings]


def _verdict(model: ModelFile, plan: MemoryPlan) -> str:
    sentence = f"{plan.verdict.sentence}."
    return f"Once the file is whole: {sentence[0].lower()}{sentence[1:]}" if model.lacking else sentence


def _device_rows(plan: MemoryPlan) -> list[str]:
    heads = ["", *(device.name for device in plan.devices)]
    parts = [
        ("weights", "weights_bytes"),
        ("  of these mapped", "weights_mapped_bytes"),
        ("KV cache", "kv_bytes"),
        ("recurrent state", "recurrent_bytes"),
        ("compute", "compute_bytes"),
        ("output", "output_bytes"),
        ("overhead", "overhead_bytes"),
        ("checkpoints", "checkpoints_bytes"),
        ("total", "total_bytes"),
        ("  must be held", "must_hold_bytes"),
        ("  working set", "working_set_bytes"),
        ("after the first batch", "resident_bytes"),
        ("capacity", "capacity_bytes"),
        ("held by others", "others_bytes"),
        ("ceiling", "ceiling_bytes"),
        ("OOM line", "oom_line_bytes"),
    ]
    rows = [[label, *(format_bytes(getattr(device, name)) for device in plan.devices)] for label, name in parts]
    return aligned([heads, *rows])


def _option_rows(options: Sequence[Option]) -> list[str]:
    rows = [["to make it fit", "change", "total", "fits", "longest context"]]
    for option in options:
        fits = {True: "yes", False: "no", None: "unknown"}[option.fits]
        longest = f"{option.max_n_ctx:,}" if option.max_n_ctx else "-"
        rows.append(
            [option.label, format_bytes_delta(option.difference_bytes), format_bytes(option.total_bytes), fits, longest]
        )
    return aligned(rows)


def _curve_rows(curves: Sequence[Curve]) -> list[str]:
    """Every doubling of the context length, one column for each pair of types."""
    points = curves[0].points
    shown = [p for p in points if p is points[-1] or p.n_ctx & (p.n_ctx - 1) == 0]
    rows = [["tokens", *(f"{c.type_k}/{c.type_v}" for c in curves)]]
    by_length = [{p.n_ctx: p.total_bytes for p in curve.points} for curve in curves]
    rows += [[f"{p.n_ctx:,}", *(format_bytes(sizes.get(p.n_ctx)) for sizes in by_length)] for p in shown]
    rows.append(["fits up to", *(f"{c.crossing_n_ctx:,}" if c.crossing_n_ctx else "-" for c in curves)])
    return aligned(rows)
