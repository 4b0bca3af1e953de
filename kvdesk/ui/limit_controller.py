"""Warns at the composer, before sending, when draft and conversation come to the context's end, with priced ways out.

Tokens are the engine's count, prices the planner's curve; nothing is computed from characters. UI thread.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from PySide6.QtCore import QObject

from kvdesk.backend import messages as m
from kvdesk.backend.plan import Curve
from kvdesk.backend.planner import CurveReady, PlanEvent
from kvdesk.backend.settings import pad256
from kvdesk.ui.chat.composer import Composer
from kvdesk.ui.chat_controller import ChatController
from kvdesk.ui.engine_controller import EngineController
from kvdesk.ui.numbers import format_tokens
from kvdesk.ui.options_card import PricedChoice

REPLY_RESERVE = 256
"""Tokens that a reply should find room for; fewer when its own limit is smaller."""
FORGET = "forget"


class LimitController(QObject):
    """Watches the counts that the chat controller tells."""

    def __init__(
        self, composer: Composer, chat: ChatController, models: EngineController, parent: QObject | None = None
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

    def _on_tokens_counted(self, history: int, draft: int) -> None:
        self._total = history + draft if draft else 0
        self._refresh()

    def _refresh(self) -> None:
        context = self._models.context
        conversation = self._chat.conversation
        reserve = min(conversation.sampling.max_tokens or REPLY_RESERVE, REPLY_RESERVE)
        if not context or not self._total or self._total + reserve <= context.n_ctx_limit:
            self._dismissed_at = 0
            self._composer.clear_warning()
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

    def _choices(self, context: m.ContextFacts, reserve: int) -> Sequence[PricedChoice]:
        longest = self._models.file.n_ctx_train if self._models.file else 0
        wanted = pad256(self._total + reserve)
        lengths = sorted({min(longest, max(wanted, 2 * context.n_ctx_limit)), longest})
        choices = [self._longer(context, n) for n in lengths if n > context.n_ctx_limit and n >= wanted]
        forget = self.tr("Forget the oldest turns, keep the system prompt")
        return (*choices[:2], PricedChoice(FORGET, forget, None, 0))

    def _longer(self, context: m.ContextFacts, n_ctx: int) -> PricedChoice:
        curve = next((c for c in self._curves if (c.type_k, c.type_v) == _types(context)), None)
        now, then = (curve.at(n) if curve else None for n in (context.n_ctx_limit, n_ctx))
        line = curve.oom_line_bytes if curve else None
        return PricedChoice(
            f"n_ctx {n_ctx}",
            self.tr("Context Length {0}").format(format_tokens(n_ctx)),
            then.total_bytes if then else None,
            then.total_bytes - now.total_bytes if then and now else None,
            then.device_bytes <= line if then and line is not None else None,
        )

    def _on_option_chosen(self, key: str) -> None:
        if key == FORGET:
            self._chat.set_overflow("truncate-middle")
        elif key.startswith("n_ctx "):
            settings = self._models.settings
            context = replace(settings.context, n_ctx=int(key.removeprefix("n_ctx ")))
            self._models.apply(replace(settings, context=context))
        self._refresh()

    def _on_dismissed(self) -> None:
        self._dismissed_at = self._total


def _types(context: m.ContextFacts) -> tuple[str, str]:
    return context.settings.type_k, context.settings.type_v
