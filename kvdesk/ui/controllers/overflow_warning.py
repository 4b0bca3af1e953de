"""Warns at the composer, before sending, when draft and conversation come to the context's end, or when the memory does
not suffice for the growth they would need, with priced ways out.

Tokens are the engine's count, prices the planner's curve; nothing is computed from characters. UI thread.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from PySide6.QtCore import QObject

from kvdesk.backend.planning.plan import Curve
from kvdesk.backend.planning.plan_event import CurveReady, PlanEvent
from kvdesk.backend.protocol.facts import ContextFacts
from kvdesk.backend.settings import BITS_PER_VALUE, pad256
from kvdesk.ui.chat.composer import Composer
from kvdesk.ui.controllers.chat import ChatController
from kvdesk.ui.controllers.model import ModelController
from kvdesk.ui.panels.options_card import PricedChoice
from kvdesk.ui.settings.curve_prices import Cells, priced_choice
from kvdesk.ui.widgets.numbers import format_bytes, format_tokens

REPLY_RESERVE = 256
"""Tokens that a reply should find room for; fewer when its own limit is smaller."""
FORGET = "forget"
SMALLER_TYPES = ("q8_0", "q4_0")


class OverflowWarningController(QObject):
    """Watches the counts that the chat controller tells."""

    def __init__(
        self, composer: Composer, chat: ChatController, models: ModelController, parent: QObject | None = None
    ) -> None:
        super().__init__(parent)
        self._composer = composer
        self._chat = chat
        self._models = models
        self._curves: tuple[Curve, ...] = ()
        self._dismissed_at = 0
        self._total = 0
        chat.tokens_counted.connect(self._on_tokens_counted)
        models.context_changed.connect(lambda _: self._refresh())
        composer.option_chosen.connect(self._on_option_chosen)
        composer.warning_dismissed.connect(self._on_dismissed)

    def on_plan_event(self, event: PlanEvent) -> None:
        """Keep the newest curves: prices of other context lengths."""
        if isinstance(event, CurveReady):
            self._curves = event.curves
            self._refresh()

    def _on_tokens_counted(self, history: int, draft: int) -> None:
        self._total = history + draft if draft else 0
        self._refresh()

    def _refresh(self) -> None:
        context = self._models.context
        conversation = self._chat.conversation
        reserve = min(conversation.sampling.max_tokens or REPLY_RESERVE, REPLY_RESERVE)
        if not context or not self._total:
            self._end_warning()
            return
        if self._total + reserve <= context.n_ctx_limit:
            self._refresh_memory(context, self._total + reserve)
            return
        limit, over = context.n_ctx_limit, self._total >= context.n_ctx_limit
        if conversation.overflow in ("truncate-middle", "rolling"):
            self._composer.show_warning(
                self.tr(
                    "With this message the conversation has {0} of {1} tokens: the oldest turns will be forgotten."
                ).format(format_tokens(self._total), format_tokens(limit))
            )
        elif over or self._total != self._dismissed_at:
            words = (
                self.tr(
                    "With this message the conversation has {0} tokens, the context {1}: it cannot be sent as it is."
                )
                if over
                else self.tr("With this message {0} of {1} tokens are taken: the reply may be cut short.")
            )
            sentence = words.format(format_tokens(self._total), format_tokens(limit))
            self._composer.show_warning(sentence, self._choices(context, reserve), over, "red" if over else "amber")

    def _end_warning(self) -> None:
        self._dismissed_at = 0
        self._composer.clear_warning()

    def _refresh_memory(self, context: ContextFacts, needed: int) -> None:
        """Within the context's limit: whether the memory suffices to grow to where ``needed`` tokens have room."""
        cells = min(context.n_ctx_limit, max(2 * context.n_ctx, pad256(needed)))  # as Session grows
        grown = self._grown(context, cells, *_types(context))
        if needed <= context.n_ctx or grown.fits is not False:
            self._end_warning()
        elif self._total != self._dismissed_at:
            words = self.tr("With this message the context has to grow to {0} tokens: {1}, over the OOM line.")
            sentence = words.format(format_tokens(cells), format_bytes(grown.total_bytes or 0))
            smaller = [self._grown(context, cells, kind, kind) for kind in SMALLER_TYPES if self._may_be(context, kind)]
            self._composer.show_warning(sentence, [choice for choice in smaller if choice.total_bytes is not None])

    def _grown(self, context: ContextFacts, cells: int, type_k: str, type_v: str) -> PricedChoice:
        """``cells`` of these types, against what there is now."""
        label = self.tr("K and V cache as {0}").format(type_k)
        now = Cells(context.n_ctx, *_types(context))
        return priced_choice(self._curves, f"type_kv {type_k}", label, now, Cells(cells, type_k, type_v))

    def _may_be(self, context: ContextFacts, kind: str) -> bool:
        present = max(BITS_PER_VALUE[one] for one in _types(context))
        return context.settings.flash_attn != "off" and BITS_PER_VALUE[kind] < present

    def _choices(self, context: ContextFacts, reserve: int) -> Sequence[PricedChoice]:
        longest = self._models.file.n_ctx_train if self._models.file else 0
        wanted = pad256(self._total + reserve)
        lengths = sorted({min(longest, max(wanted, 2 * context.n_ctx_limit)), longest})
        choices = [self._longer(context, n) for n in lengths if n > context.n_ctx_limit and n >= wanted]
        forget = self.tr("Forget the oldest turns, keep the system prompt")
        return (*choices[:2], PricedChoice(FORGET, forget, None, 0))

    def _longer(self, context: ContextFacts, n_ctx: int) -> PricedChoice:
        label = self.tr("Context Length {0}").format(format_tokens(n_ctx))
        now, then = (Cells(n, *_types(context)) for n in (context.n_ctx_limit, n_ctx))
        return priced_choice(self._curves, f"n_ctx {n_ctx}", label, now, then)

    def _on_option_chosen(self, key: str) -> None:
        if key == FORGET:
            self._chat.set_overflow("truncate-middle")
        else:
            setting, _, value = key.partition(" ")
            changes = {"n_ctx": int(value)} if setting == "n_ctx" else {"type_k": value, "type_v": value}
            settings = self._models.settings
            self._models.apply(replace(settings, context=replace(settings.context, **changes)))
        self._refresh()

    def _on_dismissed(self) -> None:
        self._dismissed_at = self._total


def _types(context: ContextFacts) -> tuple[str, str]:
    return context.settings.type_k, context.settings.type_v
