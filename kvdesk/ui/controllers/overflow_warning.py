"""Warns at the composer, before sending, when draft and conversation come to the context's end, or when the memory does
not suffice for the growth they would need, with priced ways out.

Tokens are the engine's count, prices the planner's curve; nothing is computed from characters. UI thread.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from PySide6.QtCore import QObject

from kvdesk.backend.protocol.facts import ContextFacts
from kvdesk.backend.session.session import Session
from kvdesk.backend.session.session_event import Change
from kvdesk.backend.settings import BITS_PER_VALUE, ContextSettings, pad256
from kvdesk.ui.chat.composer import Composer
from kvdesk.ui.controllers.chat_settings import ChatSettingsController
from kvdesk.ui.controllers.model import ModelController
from kvdesk.ui.controllers.open_conversation import OpenConversation
from kvdesk.ui.controllers.token_counts import TokenCounts
from kvdesk.ui.panels.options_card import ForgetOldest, PricedChoice
from kvdesk.ui.settings.curve_prices import Cells, priced_choice
from kvdesk.ui.widgets.numbers import format_bytes, format_tokens

REPLY_RESERVE = 256
"""Tokens that a reply should find room for; fewer when its own limit is smaller."""
FORGET = "forget"
SMALLER_TYPES = ("q8_0", "q4_0")


class OverflowWarningController(QObject):
    """Watches the counts that the chat controller tells."""

    def __init__(
        self,
        session: Session,
        composer: Composer,
        opened: OpenConversation,
        token_counts: TokenCounts,
        chat_settings: ChatSettingsController,
        models: ModelController,
        parent: QObject | None = None,
    ) -> None:
        super().__init__(parent)
        self._session = session
        self._composer = composer
        self._opened = opened
        self._chat_settings = chat_settings
        self._models = models
        self._dismissed_at = 0
        self._total = 0
        token_counts.counted.connect(self._on_tokens_counted)
        composer.option_chosen.connect(self._on_option_chosen)
        composer.warning_dismissed.connect(self._on_dismissed)

    def on_change(self, change: Change) -> None:
        """Look again when there is another context, or another price for it."""
        before, now = change.before, change.now
        is_other = (before.context and before.context.n_ctx_limit, before.context and before.context.n_ctx) != (
            now.context and now.context.n_ctx_limit,
            now.context and now.context.n_ctx,
        )
        if is_other or now.in_force is not before.in_force or now.curves is not before.curves:
            self._refresh()

    def _on_tokens_counted(self, history: int, draft: int) -> None:
        self._total = history + draft if draft else 0
        self._refresh()

    def _refresh(self) -> None:
        context = self._session.state.context
        conversation = self._opened.conversation
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
        n_seq = context.settings.n_seq_max
        now = Cells(context.n_ctx * n_seq, *_types(context))
        wanted = replace(self._wished(), type_k=type_k, type_v=type_v)
        return priced_choice(
            self._session.state.curves, f"type_kv {type_k}", label, now, Cells(cells * n_seq, type_k, type_v), wanted
        )

    def _may_be(self, context: ContextFacts, kind: str) -> bool:
        present = max(BITS_PER_VALUE[one] for one in _types(context))
        return context.settings.flash_attn != "off" and BITS_PER_VALUE[kind] < present

    def _choices(self, context: ContextFacts, reserve: int) -> Sequence[PricedChoice]:
        file = self._session.state.file
        longest = file.positions.within(file.n_ctx_train) if file else 0
        wanted = pad256(self._total + reserve)
        lengths = sorted({min(longest, max(wanted, 2 * context.n_ctx_limit)), longest})
        choices = [self._longer(context, n) for n in lengths if n > context.n_ctx_limit and n >= wanted]
        forget = self.tr("Forget the oldest turns, keep the system prompt")
        return (*choices[:2], PricedChoice(FORGET, forget, None, 0, answer=ForgetOldest()))

    def _longer(self, context: ContextFacts, n_ctx: int) -> PricedChoice:
        label = self.tr("Context Length {0}").format(format_tokens(n_ctx))
        n_seq = context.settings.n_seq_max
        now, then = (Cells(n * n_seq, *_types(context)) for n in (context.n_ctx_limit, n_ctx))
        wanted = replace(self._wished(), n_ctx=n_ctx * n_seq)
        return priced_choice(self._session.state.curves, f"n_ctx {n_ctx}", label, now, then, wanted)

    def _wished(self) -> ContextSettings:
        """The context settings in force, to change one of them."""
        return self._session.state.settings.context

    def _on_option_chosen(self, choice: PricedChoice) -> None:
        match choice.answer:
            case ForgetOldest():
                self._chat_settings.set_overflow("rolling")
            case ContextSettings() as context:
                self._models.apply(replace(self._session.state.settings, context=context))
            case _:
                pass
        self._refresh()

    def _on_dismissed(self) -> None:
        self._dismissed_at = self._total


def _types(context: ContextFacts) -> tuple[str, str]:
    return context.settings.type_k, context.settings.type_v
