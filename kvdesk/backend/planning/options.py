"""What may be asked of llama.cpp at all, and what to change when a plan does not fit: ranked and priced. Pure.

The order is by what a change takes away: memory nobody needs first, then speed, then a little quality, then length.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from kvdesk.backend.gguf.model_file import ModelFile
from kvdesk.backend.planning.device_plan import RAM
from kvdesk.backend.planning.plan import MemoryPlan, Option
from kvdesk.backend.settings import QUANTIZED_CACHE_TYPES, ContextSettings, EngineSettings, context_problems
from kvdesk.errors import SettingsError

Price = Callable[[EngineSettings], MemoryPlan | None]
"""Settings -> their plan with the longest context that fits; None when llama.cpp refuses them."""

LEAST_UBATCH = 128
LEAST_N_CTX = 512
"""A shorter context than this is no offer."""
MOST_N_CTX = 2**24
"""Cells beyond any model's context; llama.cpp counts them in 32 bits."""


def check(settings: EngineSettings, model: ModelFile) -> None:
    """Raise SettingsError, naming every fault and with the nearest possible settings, for what llama.cpp would refuse."""
    problems = problems_of(settings.context, model)
    if problems:
        nearest = next((near for near in neighbours(settings) if not problems_of(near.context, model)), None)
        raise SettingsError("; ".join(problems.values()) + ".", nearest)


def problems_of(context: ContextSettings, model: ModelFile) -> dict[str, str]:
    """Field name -> why llama.cpp would refuse it for ``model``; empty when all is possible."""
    sizes_k: tuple[int, ...] = ()
    sizes_v: tuple[int, ...] = ()
    if any(model.cached_layers):
        sizes_k, sizes_v = (model.head_size_k,), (model.head_size_v,)
    if any(model.windowed_layers):
        sizes_k, sizes_v = (*sizes_k, model.head_size_k_swa), (*sizes_v, model.head_size_v_swa)
    problems = context_problems(context, sizes_k, sizes_v)
    if context.n_ctx > MOST_N_CTX:
        problems["n_ctx"] = f"Context Length is {context.n_ctx:,}; the most is {MOST_N_CTX:,}"
    if model.caches_latent and context.type_k != context.type_v:
        problems["type_v"] = "this model caches K and V as one (MLA) and needs one type for both"
    return problems


def neighbours(settings: EngineSettings) -> Iterator[EngineSettings]:
    """Settings near to refused ones, nearest first: what is out of bounds clamped, flash attention on, plainer caches."""
    clamped = _clamped(settings.context)
    for context in (
        clamped,
        replace(clamped, flash_attn="auto"),
        replace(clamped, n_seq_max=1),
        replace(clamped, type_v=clamped.type_k),
        replace(clamped, type_k=clamped.type_v),
        replace(clamped, type_v="f16"),
        replace(clamped, type_k="f16"),
        replace(clamped, type_k="f16", type_v="f16"),
        replace(clamped, type_k="f16", type_v="f16", flash_attn="auto"),
    ):
        yield replace(settings, context=context)


def ranked(plan: MemoryPlan, model: ModelFile, price: Price) -> tuple[Option, ...]:
    """Ways to make ``plan`` fit: those that do first, in the order of what they take away, then by what they save."""
    short = plan.tightest.name
    found: list[Option] = []
    for change, label, settings in _changes(plan, model):
        then = price(settings)
        if then is None:
            continue
        found.append(_option(change, label, settings, plan, then, short))
        longer = then.max_n_ctx or 0
        if not then.fits and longer >= max(LEAST_N_CTX, plan.max_n_ctx or 0):
            found += _shortened(
                change, f"{label}, Context Length {longer:,}", _with(settings, n_ctx=longer), plan, short, price
            )
    if short != RAM:
        found += _experts_in_ram(plan, model, short, price) + _fewer_layers(plan, model, short, price)
    if plan.max_n_ctx and plan.max_n_ctx >= LEAST_N_CTX:
        settings = _with(plan.settings, n_ctx=plan.max_n_ctx)
        found += _shortened("n_ctx", f"Context Length {plan.max_n_ctx:,}", settings, plan, short, price)
    useful = [option for option in found if option.difference_bytes < 0 or option.fits]
    fitting = [option for option in useful if option.fits]
    return (*fitting, *sorted((o for o in useful if not o.fits), key=lambda option: option.difference_bytes))


def _changes(plan: MemoryPlan, model: ModelFile) -> Iterator[tuple[str, str, EngineSettings]]:
    settings, context = plan.settings, plan.settings.context
    if context.swa_full and any(model.windowed_layers):
        yield "swa_full", "Without Full Sliding Window Cache", _with(settings, swa_full=False)
    ubatch = min(context.n_ubatch, context.n_batch)
    if ubatch > LEAST_UBATCH:
        yield "n_ubatch", f"Physical Batch Size {LEAST_UBATCH}", _with(settings, n_ubatch=LEAST_UBATCH)
    for cache_type in ("q8_0", "q4_0"):
        if not {context.type_k, context.type_v} & _smaller_or_equal(cache_type):
            changed = _with(settings, type_k=cache_type, type_v=cache_type)
            if context.flash_attn == "off":
                changed = _with(changed, flash_attn="auto")
            yield "type_kv", f"K and V cache as {cache_type}", changed


def _shortened(
    change: str, label: str, settings: EngineSettings, plan: MemoryPlan, short: str, price: Price
) -> list[Option]:
    then = price(settings)
    return [_option(change, label, settings, plan, then, short)] if then else []


def _experts_in_ram(plan: MemoryPlan, model: ModelFile, short: str, price: Price) -> list[Option]:
    """The fewest layers whose experts must leave the device for it to fit, by halving. Costs less speed than moving whole
    layers: attention stays on the device, and of the experts only a few are read for each token."""
    settings = plan.settings
    low, high, best = settings.model.n_cpu_moe + 1, model.n_layer if model.expert_count else 0, None
    while 0 < low <= high:
        middle = (low + high) // 2
        then = price(replace(settings, model=replace(settings.model, n_cpu_moe=middle)))
        device = then.device(short) if then else None
        if then and device and device.fits:
            best, high = then, middle - 1
        else:
            low = middle + 1
    if best is None:
        return []
    layers = best.settings.model.n_cpu_moe
    return [_option("n_cpu_moe", f"Experts of {layers} layers in RAM", best.settings, plan, best, short)]


def _fewer_layers(plan: MemoryPlan, model: ModelFile, short: str, price: Price) -> list[Option]:
    """The most GPU layers that fit, by halving; llama.cpp counts the output as one more layer."""
    settings = plan.settings
    asked = settings.model.n_gpu_layers
    high = model.n_layer + 1 if asked < 0 else min(asked, model.n_layer + 1)
    low, best = 0, None
    while low < high:
        middle = (low + high) // 2
        then = price(replace(settings, model=replace(settings.model, n_gpu_layers=middle)))
        device = then.device(short) if then else None
        if then and device and device.fits:
            low, best = middle + 1, then
        else:
            high = middle
    if best is None:
        return []
    layers = best.settings.model.n_gpu_layers
    return [_option("n_gpu_layers", f"GPU Offload: {layers} layers", best.settings, plan, best, short)]


def _option(
    change: str, label: str, settings: EngineSettings, plan: MemoryPlan, then: MemoryPlan, short: str
) -> Option:
    before, after = plan.device(short), then.device(short)
    difference = (after.total_bytes if after else 0) - (before.total_bytes if before else 0)
    return Option(change, label, settings, then.total_bytes, difference, then.fits, then.max_n_ctx)


def _with(settings: EngineSettings, **changes: object) -> EngineSettings:
    return replace(settings, context=replace(settings.context, **changes))  # type: ignore[arg-type]


def _smaller_or_equal(cache_type: str) -> frozenset[str]:
    """Types that changing to ``cache_type`` would not shrink."""
    four_bits = frozenset({"q4_0", "q4_1", "iq4_nl"})
    return four_bits if cache_type == "q4_0" else QUANTIZED_CACHE_TYPES


def _clamped(context: ContextSettings) -> ContextSettings:
    """``context`` with every number brought within its bounds."""
    changes: dict[str, int] = {}
    for name, field in context.__dataclass_fields__.items():
        value = getattr(context, name)
        if isinstance(value, int) and not isinstance(value, bool):
            least = max(value, field.metadata.get("minimum", value))
            fitting = min(least, field.metadata.get("maximum", least))
            if fitting != value:
                changes[name] = fitting
    if context.n_ctx > MOST_N_CTX:
        changes["n_ctx"] = MOST_N_CTX
    return replace(context, **changes)
