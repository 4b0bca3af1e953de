"""What is said about a reply under it: tokens, speed, first token, why it ended, what was read. No widgets."""

from __future__ import annotations

from PySide6.QtCore import QCoreApplication

from kvdesk.backend.protocol.facts import StopReason, TurnStats
from kvdesk.ui.widgets.numbers import format_ms, format_rate, format_tokens

SEPARATOR = " · "
CAN_CONTINUE = frozenset({StopReason.LENGTH, StopReason.CANCELLED, StopReason.CONTEXT_FULL})
"""Ends after which the model had more to say."""


def _tr(text: str) -> str:
    return QCoreApplication.translate("reply", text)


def stop_words(reason: StopReason) -> str:
    """Why a reply ended, in words."""
    return {
        StopReason.EOS: _tr("finished"),
        StopReason.STOP_STRING: _tr("finished"),
        StopReason.LENGTH: _tr("stopped at Max Tokens"),
        StopReason.CANCELLED: _tr("stopped by you"),
        StopReason.CONTEXT_FULL: _tr("stopped: the context is full"),
    }[reason]


def token_words(n: int) -> str:
    """ "1 token", "1,204 tokens"."""
    return _tr("1 token") if n == 1 else _tr("{n} tokens").format(n=format_tokens(n))


def summary(stats: TurnStats) -> str:
    """One line: "41 tokens · 18.2 tok/s · first token 0.3 s · finished · 1,204 reused, 33 read"."""
    parts = [token_words(stats.completion_tokens)]
    if stats.tokens_per_second is not None:
        parts.append(format_rate(stats.tokens_per_second))
    parts.append(_tr("first token {time}").format(time=_first_token(stats.ttft_ms)))
    parts.append(stop_words(stats.stop_reason))
    if stats.reused_tokens:
        parts.append(
            _tr("{reused} reused, {read} read").format(
                reused=format_tokens(stats.reused_tokens),
                read=format_tokens(stats.prompt_tokens - stats.reused_tokens),
            )
        )
    return SEPARATOR.join(parts)


def details(stats: TurnStats) -> str:
    """Several lines for a tool tip."""
    read = stats.prompt_tokens - stats.reused_tokens
    lines = [
        _tr("Reply: {tokens}, {speed}").format(
            tokens=token_words(stats.completion_tokens), speed=format_rate(stats.tokens_per_second)
        ),
        _tr("Time to first token: {time}").format(time=format_ms(stats.ttft_ms)),
        _tr("Prompt: {tokens}").format(tokens=token_words(stats.prompt_tokens)),
        _tr("  {n} were still in the KV cache (reused)").format(n=format_tokens(stats.reused_tokens)),
        _tr("  {n} were read at {speed}").format(
            n=format_tokens(read), speed=format_rate(stats.prompt_tokens_per_second)
        ),
    ]
    if stats.reread_tokens:
        lines.append(
            _tr("  {n} of these had been read before and were read again").format(n=format_tokens(stats.reread_tokens))
        )
    lines.append(_tr("End: {why} ({reason})").format(why=stop_words(stats.stop_reason), reason=stats.stop_reason.value))
    return "\n".join(lines)


def _first_token(ms: float) -> str:
    return f"{ms / 1000:.1f} s" if 95 <= ms < 999.5 else format_ms(ms)
