"""Whether a model fits this machine, for lists of models: one plan for the default context, one for the largest.

Blocking, for one thread at a time, over a Pricer; works from a header alone. The sentence is the badge of model lists.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from kvdesk.backend.planning.device_plan import Reading
from kvdesk.backend.planning.plan import MemoryPlan
from kvdesk.backend.planning.pricer import Pricer
from kvdesk.backend.protocol.facts import Device
from kvdesk.backend.settings import EngineSettings
from kvdesk.errors import PlanError, SettingsError

FITS, FITS_UP_TO, RUNS_SLOWLY, DOES_NOT_FIT, UNKNOWN = "fits", "fits-up-to", "runs-slowly", "does-not-fit", "unknown"
COMFORTABLE_N_CTX = 32_768
_UNQUANTIZED = frozenset({"F16", "BF16", "F32"})


@dataclass(frozen=True)
class DomainFit:
    """One memory domain: bytes for the default context and for the model's own, and the line both are held against."""

    name: str
    total_bytes: int
    own_total_bytes: int | None
    oom_line_bytes: int | None


@dataclass(frozen=True)
class Fit:
    """Whether a model fits. ``kind``: "fits" (with its own context), "fits-up-to" (``max_n_ctx``), "runs-slowly"
    (weights are read from disk again and again), "does-not-fit", "unknown".

    ``total_bytes`` and ``room_bytes`` (under the line; negative: over it) are for ``n_ctx`` tokens. ``source`` is the
    plan's: "dry-run" is exact, "estimate" is not; "" without a plan.
    """

    kind: str
    sentence: str
    n_ctx: int = 0
    total_bytes: int | None = None
    room_bytes: int | None = None
    max_n_ctx: int | None = None
    domains: tuple[DomainFit, ...] = ()
    source: str = ""

    def to_json_dict(self) -> dict[str, Any]:
        """The badge as JSON values, keys as in docs/COMMAND_LINE.md."""
        return asdict(self)


def fit_of(
    pricer: Pricer, settings: EngineSettings, read_domains: Callable[[Sequence[Device]], Sequence[Reading]]
) -> Fit:
    """How the pricer's model fits with ``settings`` (their context cut down to the model's own length).

    ``read_domains`` gives the machine's domains now, of these devices. A model that cannot be planned is "unknown", and
    the sentence says why.
    """
    own_length = pricer.model.n_ctx_train
    n_ctx = min(settings.context.n_ctx, own_length) if own_length else settings.context.n_ctx
    settings = replace(settings, context=replace(settings.context, n_ctx=n_ctx))
    try:
        readings = read_domains(pricer.footprint(settings).devices)
        plan = pricer.plan(settings, readings)
    except (PlanError, SettingsError) as error:
        return Fit(UNKNOWN, str(error))
    own = _own_bytes(pricer, settings, readings, own_length) if own_length > n_ctx else _bytes(plan)
    kind = _kind(plan, own_length)
    return Fit(
        kind=kind,
        sentence=_sentence(kind, plan, own_length),
        n_ctx=plan.n_ctx,
        total_bytes=plan.total_bytes,
        room_bytes=plan.verdict.room_bytes,
        max_n_ctx=plan.max_n_ctx,
        domains=tuple(
            DomainFit(device.name, device.total_bytes, own.get(device.name), device.oom_line_bytes)
            for device in plan.devices
        ),
        source=plan.source,
    )


@dataclass(frozen=True)
class Offer:
    """One quantization of a model, to be compared with the others. ``quantization`` in capitals, "" where unknown."""

    quantization: str
    size_bytes: int
    fit: Fit

    @property
    def is_comfortable(self) -> bool:
        """It fits with a context that a long conversation needs: 32k tokens, or the model's own if that is shorter."""
        return self.fit.kind == FITS or (self.fit.kind == FITS_UP_TO and (self.fit.max_n_ctx or 0) >= COMFORTABLE_N_CTX)

    @property
    def is_quantized(self) -> bool:
        """At most about 8 bits a weight."""
        return self.quantization not in _UNQUANTIZED


def best_offer(offers: Sequence[Offer]) -> tuple[int, str] | None:
    """The index of the best of ``offers`` for this machine, and why in one sentence; None when none fits.

    The largest file that fits with a comfortable context, up to 8 bits a weight: more cannot be told from Q8_0 in answers
    and is slower. Else the one with the longest context.
    """
    fitting = [index for index, offer in enumerate(offers) if offer.fit.kind in (FITS, FITS_UP_TO)]
    plain = [index for index in fitting if offers[index].is_quantized] or fitting
    if not plain:
        return None
    comfortable = [index for index in plain if offers[index].is_comfortable]
    if comfortable:
        best = max(comfortable, key=lambda index: offers[index].size_bytes)
        longest = min(offers[best].fit.max_n_ctx or COMFORTABLE_N_CTX, COMFORTABLE_N_CTX)
        return best, f"The best for this machine: the most exact weights that fit with {tokens_words(longest)} tokens."
    best = max(plain, key=lambda index: offers[index].fit.max_n_ctx or 0)
    longest = offers[best].fit.max_n_ctx or 0
    return best, f"The best for this machine: the longest context that fits, {tokens_words(longest)} tokens."


def tokens_words(n_tokens: int) -> str:
    """Context lengths in short: "41k" (1024 tokens), below that all digits."""
    return f"{n_tokens // 1024:,}k" if n_tokens >= 1024 else str(n_tokens)


def _own_bytes(
    pricer: Pricer, settings: EngineSettings, readings: Sequence[Reading], own_length: int
) -> Mapping[str, int]:
    """Bytes per domain at the model's own length; {} where llama.cpp takes no context of that length."""
    try:
        own = replace(settings, context=replace(settings.context, n_ctx=own_length))
        return _bytes(pricer.plan(own, readings, with_max=False))
    except (PlanError, SettingsError):
        return {}


def _bytes(plan: MemoryPlan) -> Mapping[str, int]:
    return {device.name: device.total_bytes for device in plan.devices}


def _kind(plan: MemoryPlan, own_length: int) -> str:
    if plan.verdict.room_bytes is None:
        return UNKNOWN
    if not plan.max_n_ctx:
        return RUNS_SLOWLY if plan.verdict.kind == RUNS_SLOWLY else DOES_NOT_FIT
    return FITS if plan.max_n_ctx >= own_length else FITS_UP_TO


def _sentence(kind: str, plan: MemoryPlan, own_length: int) -> str:
    if kind == FITS:
        return f"Fits with all of its {tokens_words(own_length or plan.n_ctx)} tokens"
    if kind == FITS_UP_TO:
        return f"Fits up to {tokens_words(plan.max_n_ctx or 0)} tokens"
    return plan.verdict.sentence
