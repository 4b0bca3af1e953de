"""One line of facts that drops the least important ones when the window is narrow. UI thread."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from PySide6.QtCore import QSize, Qt
from PySide6.QtGui import QColor, QPainter, QPaintEvent, QResizeEvent
from PySide6.QtWidgets import QSizePolicy, QWidget

from kvdesk.ui.widgets.plain_text import plain_tip
from kvdesk.ui.widgets.theme import Theme

GAP = "  ·  "
STEP_PX = 40


@dataclass(frozen=True)
class Fact:
    """``text`` on the line, ``tip`` in the tool tip; the smallest ``rank`` stays longest. ``tone``: "", "amber", "red"."""

    text: str
    tip: str
    rank: int
    tone: str = ""


class StatusLine(QWidget):
    """Facts from left to right, aligned to the right edge; all of them are in the tool tip and for screen readers."""

    def __init__(self, theme: Theme, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._theme = theme
        self._facts: tuple[Fact, ...] = ()
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Preferred)
        self.setMinimumWidth(40)

    def show_facts(self, facts: Sequence[Fact]) -> None:
        """Show these, as many as there is room for."""
        facts = tuple(facts)
        if facts == self._facts:
            return
        before = self.sizeHint()
        self._facts = facts
        self.setToolTip(plain_tip("\n".join(fact.tip for fact in facts)))
        self.setAccessibleDescription(GAP.join(fact.text for fact in facts))
        if self.sizeHint() != before:
            self.updateGeometry()
        self.update()

    def set_theme(self, theme: Theme) -> None:
        """Take the theme's colours."""
        self._theme = theme
        self.update()

    def visible_texts(self) -> list[str]:
        """The facts that there is room for, from left to right."""
        return [fact.text for fact in self._shown()]

    def sizeHint(self) -> QSize:
        """Room for all, in steps, so that not every digit lays the window out again."""
        width = -(-self._width_of(self._facts) // STEP_PX) * STEP_PX
        return QSize(width, self.fontMetrics().height() + 4)

    def resizeEvent(self, event: QResizeEvent) -> None:
        """Show as many facts as the new width has room for."""
        super().resizeEvent(event)
        self.update()

    def paintEvent(self, event: QPaintEvent) -> None:  # noqa: ARG002
        """Facts in their tone, gaps muted."""
        painter = QPainter(self)
        metrics = self.fontMetrics()
        shown = self._shown()
        x = self.width() - self._width_of(shown)
        baseline = (self.height() + metrics.ascent() - metrics.descent()) // 2
        tones = {"": self._theme.text, "amber": self._theme.amber, "red": self._theme.red}
        for index, fact in enumerate(shown):
            for text, color in ((GAP if index else "", self._theme.text_muted), (fact.text, tones[fact.tone])):
                painter.setPen(QColor(color))
                painter.drawText(x, baseline, text)
                x += metrics.horizontalAdvance(text, -1)

    def _shown(self) -> list[Fact]:
        shown: list[Fact] = []
        for fact in sorted(self._facts, key=lambda fact: fact.rank):
            if self._width_of([*shown, fact]) > self.width():
                break
            shown.append(fact)
        return [fact for fact in self._facts if fact in shown]

    def _width_of(self, facts: Sequence[Fact]) -> int:
        metrics = self.fontMetrics()
        gaps = max(0, len(facts) - 1) * metrics.horizontalAdvance(GAP)
        return gaps + sum(metrics.horizontalAdvance(fact.text) for fact in facts)


def elided(widget: QWidget, text: str, width_px: int) -> str:
    """``text`` cut in its middle to ``width_px`` in the widget's font."""
    return widget.fontMetrics().elidedText(text, Qt.TextElideMode.ElideMiddle, width_px)
