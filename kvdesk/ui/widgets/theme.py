"""Colours and fonts of the app, light and dark, and the palette made of them. UI thread. The style sheet: style_sheet.py."""

from __future__ import annotations

from dataclasses import dataclass

from PySide6.QtGui import QColor, QFont, QFontDatabase, QPalette
from PySide6.QtWidgets import QWidget


@dataclass(frozen=True)
class ChartColors:
    """One colour per thing that memory charts draw.

    The six areas (``weights`` to ``others``) hold at least 3:1 against the surface and stay apart from one another
    for protanopes, deuteranopes and tritanopes (tests/ui/test_theme.py computes both).
    """

    weights: str
    kv_used: str
    kv_free: str
    compute: str
    overhead: str
    others: str
    oom_line: str
    predicted: str
    grid: str
    axis: str
    event: str


@dataclass(frozen=True)
class Theme:
    """One look. Colours are ``#rrggbb``.

    ``window`` lies behind panels, ``surface`` is a panel, ``surface_raised`` what stands out on it (hovered rows,
    user messages). ``amber``, ``red`` and ``green`` are readable as text on all three.
    """

    name: str
    is_dark: bool
    window: str
    surface: str
    surface_raised: str
    border: str
    text: str
    text_muted: str
    accent: str
    accent_text: str
    amber: str
    red: str
    green: str
    code_background: str
    selection: str
    chart: ChartColors


LIGHT = Theme(
    name="light",
    is_dark=False,
    window="#f4f5f7",
    surface="#ffffff",
    surface_raised="#eceef2",
    border="#d3d8df",
    text="#1c2128",
    text_muted="#59636e",
    accent="#0a5fa5",
    accent_text="#ffffff",
    amber="#8a5700",
    red="#b42318",
    green="#1a7440",
    code_background="#f6f7f9",
    selection="#b9d9f7",
    chart=ChartColors(
        weights="#0072b2",
        kv_used="#c04a00",
        kv_free="#cc8430",
        compute="#1a9e78",
        overhead="#4a5563",
        others="#c274a6",
        oom_line="#b3001b",
        predicted="#3d4450",
        grid="#e3e6eb",
        axis="#59636e",
        event="#6b3fa0",
    ),
)

DARK = Theme(
    name="dark",
    is_dark=True,
    window="#16191d",
    surface="#1f2329",
    surface_raised="#2a2f37",
    border="#3a414b",
    text="#e4e8ee",
    text_muted="#9aa5b1",
    accent="#5aa9e6",
    accent_text="#0b1520",
    amber="#e3a63a",
    red="#f2776b",
    green="#5fc487",
    code_background="#191c21",
    selection="#2f5478",
    chart=ChartColors(
        weights="#3f9fdc",
        kv_used="#f0772b",
        kv_free="#a8622f",
        compute="#3cc49c",
        overhead="#7d8997",
        others="#e3a3cd",
        oom_line="#ff5c5c",
        predicted="#d5dbe3",
        grid="#2d333b",
        axis="#9aa5b1",
        event="#b79bea",
    ),
)

LEAST_BODY_POINTS = 10.0
"""Body text is as large as the desktop's own, and no smaller than this."""


def theme_named(name: str, is_system_dark: bool = False) -> Theme:
    """The theme for ``name`` "light" or "dark"; any other name ("system") follows ``is_system_dark``."""
    return {"light": LIGHT, "dark": DARK}.get(name, DARK if is_system_dark else LIGHT)


def body_font(zoom_percent: int = 100) -> QFont:
    """The desktop's font at the size of body text, ``zoom_percent`` of it."""
    font = QFontDatabase.systemFont(QFontDatabase.SystemFont.GeneralFont)
    font.setPointSizeF(max(LEAST_BODY_POINTS, font.pointSizeF()) * zoom_percent / 100)
    return font


def smaller(font: QFont) -> QFont:
    """``font`` a step smaller: for ticks and for what stands under something else."""
    result = QFont(font)
    result.setPointSizeF(max(7.0, font.pointSizeF() - 1.5))
    return result


def mono_font(body: QFont) -> QFont:
    """The system's fixed-width font, a touch smaller than ``body`` because it looks larger."""
    font = QFontDatabase.systemFont(QFontDatabase.SystemFont.FixedFont)
    font.setPointSizeF(max(8.0, body.pointSizeF() - 0.5))
    return font


def set_role(widget: QWidget, role: str) -> None:
    """Give ``widget`` a role that the style sheet knows, also when it has been shown already."""
    if widget.property("role") == role:
        return
    widget.setProperty("role", role)
    widget.style().unpolish(widget)
    widget.style().polish(widget)


def set_small(widget: QWidget) -> None:
    """Let the style sheet write ``widget`` a point smaller than body text, at every zoom."""
    widget.setProperty("small", True)


def palette(theme: Theme) -> QPalette:
    """The palette behind the style sheet: what it does not reach (item views, native dialogs) takes these."""
    roles = {
        QPalette.ColorRole.Window: theme.window,
        QPalette.ColorRole.WindowText: theme.text,
        QPalette.ColorRole.Base: theme.surface,
        QPalette.ColorRole.AlternateBase: theme.surface_raised,
        QPalette.ColorRole.Text: theme.text,
        QPalette.ColorRole.PlaceholderText: theme.text_muted,
        QPalette.ColorRole.Button: theme.surface,
        QPalette.ColorRole.ButtonText: theme.text,
        QPalette.ColorRole.BrightText: theme.red,
        QPalette.ColorRole.ToolTipBase: theme.surface_raised,
        QPalette.ColorRole.ToolTipText: theme.text,
        QPalette.ColorRole.Highlight: theme.selection,
        QPalette.ColorRole.HighlightedText: theme.text,
        QPalette.ColorRole.Accent: theme.accent,
        QPalette.ColorRole.Link: theme.accent,
        QPalette.ColorRole.LinkVisited: theme.accent,
        QPalette.ColorRole.Light: theme.surface_raised,
        QPalette.ColorRole.Midlight: theme.surface_raised,
        QPalette.ColorRole.Mid: theme.border,
        QPalette.ColorRole.Dark: theme.border,
        QPalette.ColorRole.Shadow: "#000000",
    }
    result = QPalette()
    for role, color in roles.items():
        result.setColor(role, QColor(color))
    for role in (QPalette.ColorRole.Text, QPalette.ColorRole.WindowText, QPalette.ColorRole.ButtonText):
        result.setColor(QPalette.ColorGroup.Disabled, role, QColor(mix(theme.text_muted, theme.surface, 0.35)))
    return result


def mix(color: str, other: str, share: float) -> str:
    """``color`` with ``share`` (0 to 1) of ``other`` in it."""
    a, b = QColor(color), QColor(other)
    pairs = ((a.red(), b.red()), (a.green(), b.green()), (a.blue(), b.blue()))
    parts = (x * (1 - share) + y * share for x, y in pairs)
    return "#{:02x}{:02x}{:02x}".format(*(round(part) for part in parts))
