"""What applying edited settings will do, in a sentence: the rule of which change moves, converts or reads cells again."""

from __future__ import annotations

from PySide6.QtCore import QCoreApplication

from kvdesk.backend.settings import BITS_PER_VALUE, ContextSettings, EngineSettings
from kvdesk.ui.widgets.numbers import format_ms, format_tokens


def effect_words(
    applied: EngineSettings,
    edited: EngineSettings,
    is_loaded: bool,
    tokens_in_use: int,
    prompt_tokens_per_second: float | None,
) -> str:
    """``tokens_in_use`` are the conversation's; the speed, if it was measured, says how long reading again takes."""
    tr = QCoreApplication.translate
    if applied == edited:
        return tr("SettingsEffect", "This is what is applied.")
    if not is_loaded:
        return tr("SettingsEffect", "Will be used by the next load.")
    tokens = format_tokens(tokens_in_use)
    about = ""
    if prompt_tokens_per_second:
        seconds = format_ms(tokens_in_use / prompt_tokens_per_second * 1000)
        about = tr("SettingsEffect", " (about {0})").format(seconds)
    if applied.model != edited.model:
        words = tr("SettingsEffect", "Reloads the model, keeps the conversation")
        then = tr("SettingsEffect", ": its {0} tokens are read again{1}.").format(tokens, about)
    elif _cells(applied.context) == _cells(edited.context):
        words = tr("SettingsEffect", "Recreates the context, keeps the conversation")
        then = tr("SettingsEffect", ": its {0} tokens are moved, nothing is read again.").format(tokens)
    else:
        words = tr("SettingsEffect", "Recreates the context, keeps the conversation")
        then = tr(
            "SettingsEffect", ": its {0} tokens are converted, or read again where that is not exact enough{1}."
        ).format(tokens, about)
        if any(BITS_PER_VALUE[after] > BITS_PER_VALUE[before] for before, after in _types(applied, edited)):
            then += tr("SettingsEffect", " Precision that the smaller type lost comes back only for tokens read anew.")
    return words + (then if tokens_in_use else ".")


def _types(applied: EngineSettings, edited: EngineSettings) -> tuple[tuple[str, str], tuple[str, str]]:
    """Cache types before and after, of K and of V."""
    before, after = applied.context, edited.context
    return (before.type_k, after.type_k), (before.type_v, after.type_v)


def _cells(context: ContextSettings) -> tuple[str, str, str]:
    """What the stored cells look like: types, and with Flash Attention V is laid out the other way round."""
    return context.type_k, context.type_v, context.flash_attn
