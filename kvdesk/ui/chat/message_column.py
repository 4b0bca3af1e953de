"""A scrolled column of rows of which only those near the viewport have widgets, so that a long conversation costs
what is seen of it. Stays at the end while that is where the user is; else what is in view stays in place. UI thread."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Hashable
from dataclasses import dataclass

from PySide6.QtCore import Qt, QTimer, Signal
from PySide6.QtGui import QKeyEvent, QPalette, QResizeEvent, QShowEvent, QWheelEvent
from PySide6.QtWidgets import QFrame, QScrollArea, QWidget

from kvdesk.ui.chat.message_footer import FOOTER_HEIGHT
from kvdesk.ui.chat.message_row import MessageState
from kvdesk.ui.chat.message_view import GAP, MessageView, estimated_height
from kvdesk.ui.chat.notice_view import NOTICE_KINDS, NoticeView
from kvdesk.ui.chat.render_step import RenderStep
from kvdesk.ui.widgets.wheel import zooms

COLUMN_WIDTH = 820
MARGIN = 20
ROW_GAP = 10
GAP_UNDER_USER = 2
"""Less than ROW_GAP: the line of actions, mostly empty, lies between a question and its answer already."""
STICKS_WITHIN = 12
"""Pixels from the end within which the view follows new text."""
FAR = 2500
"""Pixels outside the viewport from which a row's widgets are deleted."""
MOST_PASSES = 6
"""Rounds of laying out and making widgets; each brings estimated heights closer to measured ones."""


@dataclass(frozen=True)
class Notice:
    """A line between messages. ``kind`` is one of NOTICE_KINDS, or ValueError is raised. ``n_times`` it was said, one
    after the other."""

    notice_id: int
    text: str
    kind: str
    action_text: str | None
    n_times: int = 1

    def __post_init__(self) -> None:
        if self.kind not in NOTICE_KINDS:
            raise ValueError(self.kind)


@dataclass(eq=False)
class Row:
    """A message or a notice. ``top``, ``height`` and ``width`` are pixels; ``width`` 0: measure again."""

    content: MessageState | Notice
    view: MessageView | NoticeView | None = None
    top: int = 0
    height: int = 0
    width: int = 0

    def drop_view(self) -> None:
        """Delete the widgets, and drop what can be computed again."""
        if self.view is not None:
            self.view.hide()
            self.view.deleteLater()
            self.view = None
        if isinstance(self.content, MessageState) and not self.content.is_streaming:
            self.content.forget_segments()


@dataclass(frozen=True)
class _Anchor:
    """What stays where it is when heights above it change: a part of a row, ``offset`` pixels above the view's top."""

    row: Row
    part: Hashable
    offset: int


class MessageColumn(QScrollArea):
    """Lays out ``rows``. ``build`` makes the widget of a row that comes into view, as a child of the given one."""

    scrolled = Signal()
    """The position, the length, or whether it follows the end may have changed."""

    def __init__(
        self, build: Callable[[Row, QWidget], MessageView | NoticeView], parent: QWidget | None = None
    ) -> None:
        super().__init__(parent)
        self.rows: list[Row] = []
        self._build = build
        self._follows = True
        self._is_arranging = False
        self._content = QWidget()
        self.setWidget(self._content)
        # An opaque background lets Qt scroll by moving pixels instead of painting all rows again.
        self._content.setBackgroundRole(QPalette.ColorRole.Base)
        self._content.setAutoFillBackground(True)
        self.viewport().setBackgroundRole(QPalette.ColorRole.Base)
        self.setFrameShape(QFrame.Shape.NoFrame)
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self._next_step = QTimer(self)
        self._next_step.setSingleShot(True)
        self._next_step.timeout.connect(self.arrange)
        self._bar = self.verticalScrollBar()
        self._bar.setSingleStep(24)
        self._bar.valueChanged.connect(self._on_scrolled)

    @property
    def follows(self) -> bool:
        """Whether the view stays at the end when something is added there."""
        return self._follows

    @property
    def can_scroll(self) -> bool:
        """Whether there is more than fits."""
        return self._bar.maximum() > 0

    @property
    def content_height(self) -> int:
        """Height of all rows together, in pixels."""
        return self._content.height()

    def follow(self) -> None:
        """Go to the end and stay there."""
        self._follows = True
        self.arrange()

    def show_row(self, row: Row) -> None:
        """Bring the top of ``row`` into view."""
        self.arrange()
        self._follows = False
        self._bar.setValue(max(0, row.top - MARGIN))
        self.arrange()

    def remeasure(self, row: Row) -> None:
        """The height of ``row`` changed because of something the user did in it: what is in view stays in place."""
        row.width = 0
        self._follows = False
        self.arrange()
        self._on_scrolled(self._bar.value())

    def arrange(self) -> None:
        """Bring tops, heights, widgets and the scroll bar in line with one another."""
        if self._is_arranging or not self.isVisible():
            return
        self._is_arranging = True
        step = RenderStep()
        try:
            anchor = None if self._follows else self._anchor()
            for _ in range(MOST_PASSES):
                self._place_rows()
                self._scroll_to(anchor)
                if not self._realise(step):
                    break
        finally:
            self._is_arranging = False
        if step.is_full:
            self._next_step.start()
        self.scrolled.emit()

    def _place_rows(self) -> None:
        # Room for the scroll bar is kept also while there is none: with it coming, no line breaks anew.
        room = self.width() - self._bar.sizeHint().width()
        width = max(120, min(COLUMN_WIDTH, room - 2 * MARGIN))
        left = (room - width) // 2
        top = MARGIN
        for row in self.rows:
            if row.width != width:
                row.height = self._height_of(row, width)
                row.width = width
            row.top = top
            if row.view is not None:
                row.view.setGeometry(left, top, width, row.height)
            is_user = isinstance(row.content, MessageState) and not row.content.is_reply
            top += row.height + (GAP_UNDER_USER if is_user else ROW_GAP)
        self._content.resize(self.viewport().width(), top + MARGIN - ROW_GAP)

    def _height_of(self, row: Row, width: int) -> int:
        if isinstance(row.view, MessageView):
            return row.view.arrange(width)
        if row.view is not None:
            return row.view.height_for(width)
        metrics = self.fontMetrics()
        lines = estimated_height(row.content.text, width, metrics.averageCharWidth(), metrics.lineSpacing())
        return lines + FOOTER_HEIGHT + GAP

    def _realise(self, step: RenderStep) -> bool:
        """Make the widgets of what is in view and a little around it, as many as ``step`` takes. Returns whether heights may
        have changed."""
        page = self.viewport().height()
        top, bottom = self._bar.value() - page // 2, self._bar.value() + page + page // 2
        changed = False
        for row in self.rows:
            if row.top <= bottom and row.top + row.height >= top:
                changed |= self._realise_row(row, top, bottom, step)
            elif row.view is not None and (row.top > bottom + FAR or row.top + row.height < top - FAR):
                in_use = isinstance(row.view, MessageView) and row.view.is_in_use
                if not in_use:
                    row.drop_view()
        return changed

    def _realise_row(self, row: Row, top: int, bottom: int, step: RenderStep) -> bool:
        changed = row.view is None
        if row.view is None:
            row.view = self._build(row, self._content)
            if isinstance(row.view, MessageView):
                row.height = row.view.arrange(row.width)
                row.view.resize(row.width, row.height)
            row.view.show()
        if isinstance(row.view, MessageView):
            changed |= row.view.realise(top - row.top, bottom - row.top, step)
        if changed:
            row.width = 0
        return changed

    def _anchor(self) -> _Anchor | None:
        if not self.rows:
            return None
        at = self._bar.value()
        row = self.rows[max(0, bisect_right(self.rows, at, key=lambda row: row.top) - 1)]
        part = row.view.part_at(at - row.top) if isinstance(row.view, MessageView) else None
        if part is None:
            return _Anchor(row, None, at - row.top)
        return _Anchor(row, part[0], at - row.top - part[1])

    def _scroll_to(self, anchor: _Anchor | None) -> None:
        if anchor is None:
            self._bar.setValue(self._bar.maximum())
            return
        top = anchor.row.view.part_top(anchor.part) if isinstance(anchor.row.view, MessageView) else None
        self._bar.setValue(anchor.row.top + (top or 0) + anchor.offset)

    def _on_scrolled(self, value: int) -> None:
        if not self._is_arranging:
            self._follows = value >= self._bar.maximum() - STICKS_WITHIN
            self.arrange()

    def resizeEvent(self, event: QResizeEvent) -> None:
        super().resizeEvent(event)
        self.arrange()

    def showEvent(self, event: QShowEvent) -> None:
        super().showEvent(event)
        self.arrange()

    def wheelEvent(self, event: QWheelEvent) -> None:
        """Scroll; with Ctrl it is the window's zoom."""
        if zooms(event):
            event.ignore()
        else:
            super().wheelEvent(event)

    def keyPressEvent(self, event: QKeyEvent) -> None:
        match event.key():
            case Qt.Key.Key_Home:
                self._bar.setValue(self._bar.minimum())
            case Qt.Key.Key_End:
                self._bar.setValue(self._bar.maximum())
            case _:
                super().keyPressEvent(event)
