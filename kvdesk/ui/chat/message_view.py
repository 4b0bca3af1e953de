"""One message on screen: a column of parts, of which only those near the viewport have widgets. UI thread.

The transcript tells it its width and what is in view; it tells the transcript its height.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Protocol

from PySide6.QtCore import QEvent, QRectF, Signal
from PySide6.QtGui import QColor, QEnterEvent, QPainter, QPaintEvent
from PySide6.QtWidgets import QWidget

from kvdesk.ui.chat.code_view import CodeView, code_height
from kvdesk.ui.chat.message_editor import MessageEditor
from kvdesk.ui.chat.message_footer import FOOTER_HEIGHT, MessageFooter
from kvdesk.ui.chat.message_row import MessageState
from kvdesk.ui.chat.notice_view import NoticeView
from kvdesk.ui.chat.prose_view import ProseView
from kvdesk.ui.chat.render_step import RenderStep
from kvdesk.ui.chat.reply_progress import PROGRESS_HEIGHT, ReplyProgress
from kvdesk.ui.chat.segments import Segment, SegmentKind
from kvdesk.ui.chat.thinking_button import ThinkingButton
from kvdesk.ui.widgets.theme import Theme, set_role

GAP = 8
PADDING_X, PADDING_Y = 14, 9
"""Around what a user said, inside its card."""
INSET = 56
"""How much narrower than the column the card of a user is."""
THINKING_INDENT = 16
FAR = 2500
"""Pixels outside the view from which a part's widget is deleted."""


class _PartWidget(Protocol):
    def height_for(self, width: int) -> int: ...


@dataclass(eq=False)
class _Part:
    """A piece of the message. ``height`` is measured once there was a widget, estimated before."""

    key: Hashable
    segment: Segment | None = None
    indent: int = 0
    y: int = 0
    height: int = 0
    stale: bool = True
    widget: QWidget | None = None


class MessageView(QWidget):
    """Shows a MessageState. Every signal but ``height_changed`` and ``link_activated`` carries what it is about."""

    height_changed = Signal()
    link_activated = Signal(str)
    copy_requested = Signal(str)
    regenerate_requested = Signal(str)
    continue_requested = Signal(str)
    edit_submitted = Signal(str, str)
    version_requested = Signal(str, int)

    def __init__(self, state: MessageState, theme: Theme, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._state = state
        self._theme = theme
        self._width = 0
        self._card = QRectF()
        self._is_busy = False
        self._is_last = False
        self._is_editing = False
        self._parts: list[_Part] = []
        self.setAccessibleName(self.tr("Reply") if state.is_reply else self.tr("Your message"))
        self.refresh()

    # --- what the transcript asks -----------------------------------------------------------------------------

    @property
    def is_in_use(self) -> bool:
        """Whether the view must stay although it is out of sight: it is being edited, or has the focus."""
        focus = self.focusWidget()
        return self._is_editing or (focus is not None and focus.hasFocus())

    def arrange(self, width: int) -> int:
        """Lay the parts out at ``width`` pixels. Returns the height of it all."""
        if width != self._width:
            self._width = width
            for part in self._parts:
                part.stale = True
        body = [part for part in self._parts if part.key != "footer"]
        room = self._shrunk(body, self._room)
        left = 0 if self._state.is_reply else width - room - PADDING_X
        y = 0 if self._state.is_reply else PADDING_Y
        for part in body:
            self._place(part, left + part.indent, y, room - part.indent)
            y += part.height + GAP
        y = max(0, y - GAP)
        if not self._state.is_reply:
            y += PADDING_Y
            self._card = QRectF(left - PADDING_X, 0, room + 2 * PADDING_X, y)
        footer = self._parts[-1]
        self._place(footer, 0, y + 2, width)
        return footer.y + footer.height

    def realise(self, top: int, bottom: int, step: RenderStep) -> bool:
        """Make widgets for the parts between ``top`` and ``bottom``, as many as ``step`` takes. Returns whether heights may
        have changed."""
        made = False
        for part in self._parts:
            is_near = part.y <= bottom and part.y + part.height >= top
            if is_near and part.widget is None:
                if not step.takes(part.segment.text if part.segment else ""):
                    continue
                part.widget = self._build(part)
                part.widget.show()
                part.stale = made = True
            elif part.widget is not None and (part.y > bottom + FAR or part.y + part.height < top - FAR):
                focus = self.focusWidget()
                if focus is None or not part.widget.isAncestorOf(focus):
                    _drop(part)
        return made

    def part_at(self, y: int) -> tuple[Hashable, int] | None:
        """The key and top of the first part that reaches below ``y``: what must not move when others change."""
        return next(((part.key, part.y) for part in self._parts if part.y + part.height > y), None)

    def part_top(self, key: Hashable) -> int | None:
        """Where the part with ``key`` begins; None when it is gone."""
        return next((part.y for part in self._parts if part.key == key), None)

    def refresh(self) -> None:
        """Show what the state says now; parts that did not change are left alone."""
        known = {part.key: part for part in self._parts}
        parts: list[_Part] = []
        for wanted in self._wanted():
            part = known.pop(wanted.key, None)
            if part is None:
                part = wanted
            elif part.segment is not wanted.segment:
                if part.segment != wanted.segment:
                    self._update(part, wanted)
                part.segment = wanted.segment
            parts.append(part)
        for part in known.values():
            _drop(part)
        self._parts = parts
        for part in parts:
            if part.widget is None or part.segment is not None:
                continue
            if isinstance(part.widget, MessageFooter | ReplyProgress):
                part.widget.refresh()
                part.widget.setVisible(not self._is_editing)
            elif isinstance(part.widget, ThinkingButton):
                part.widget.show_state(self._state.is_thinking, self._thinking_open, self._state.thinking_tokens)

    def refresh_progress(self) -> None:
        """Show how much of the prompt is read."""
        for part in self._parts:
            if isinstance(part.widget, ReplyProgress):
                part.widget.refresh()

    def set_busy(self, busy: bool) -> None:
        """While some reply is written, nothing else can be asked for."""
        self._is_busy = busy
        footer = self._parts[-1].widget
        if isinstance(footer, MessageFooter):
            footer.set_busy(busy)

    def set_last(self, is_last: bool) -> None:
        """Whether this is the conversation's last message."""
        self._is_last = is_last
        footer = self._parts[-1].widget
        if isinstance(footer, MessageFooter):
            footer.set_last(is_last)

    def set_theme(self, theme: Theme) -> None:
        """Take the colours of ``theme``."""
        self._theme = theme
        for part in self._parts:
            if isinstance(part.widget, ProseView | CodeView | MessageFooter | NoticeView | ThinkingButton):
                part.widget.set_theme(theme)
            part.stale = True
        self.update()

    # --- parts ------------------------------------------------------------------------------------------------

    @property
    def _thinking_open(self) -> bool:
        chosen = self._state.thinking_open
        return self._state.is_thinking if chosen is None else chosen

    def _wanted(self) -> list[_Part]:
        state = self._state
        if self._is_editing:
            return [_Part("editor"), _Part("footer")]
        parts: list[_Part] = []
        was_thinking = False
        segments = state.segments
        for n, segment in enumerate(segments):
            if segment.thinking and not was_thinking:
                parts.append(_Part(("thinking", n)))
            was_thinking = segment.thinking
            if not segment.thinking or self._thinking_open:
                parts.append(_Part(("segment", n), segment, THINKING_INDENT if segment.thinking else 0))
        if state.is_thinking and not was_thinking:
            parts.append(_Part(("thinking", len(segments))))
        if state.is_streaming and not state.has_text:
            parts.append(_Part("progress"))
        if state.failure:
            parts.append(_Part("failure"))
        return [*parts, _Part("footer")]

    def _update(self, part: _Part, wanted: _Part) -> None:
        """Bring ``part`` to what is wanted under its key now."""
        before, segment = part.segment, wanted.segment
        part.segment, part.indent, part.stale = segment, wanted.indent, True
        if part.widget is None or before is None or segment is None:
            return
        if before.kind is not segment.kind or before.thinking is not segment.thinking:
            _drop(part)
            part.stale = True
        elif isinstance(part.widget, ProseView):
            part.widget.show_text(segment.text)
        elif isinstance(part.widget, CodeView):
            part.widget.show_segment(segment)

    def _build(self, part: _Part) -> QWidget:
        segment = part.segment
        if segment is not None:
            return self._build_code(segment) if segment.kind is SegmentKind.CODE else self._build_prose(segment)
        match part.key:
            case "footer":
                return self._build_footer()
            case "progress":
                return ReplyProgress(self._state, self)
            case "failure":
                return NoticeView(self._state.failure, "error", None, self._theme, self)
            case "editor":
                return self._build_editor()
            case _:
                button = ThinkingButton(self._theme, self)
                button.show_state(self._state.is_thinking, self._thinking_open, self._state.thinking_tokens)
                button.clicked.connect(self._on_thinking_clicked)
                return button

    def _build_prose(self, segment: Segment) -> ProseView:
        width = self._room - (THINKING_INDENT if segment.thinking else 0)
        view = ProseView(self._theme, self, is_markdown=self._state.is_reply, width=width)
        view.setAccessibleName(self.accessibleName())
        if segment.thinking:
            set_role(view, "muted")
        view.ensurePolished()
        view.show_text(segment.text)
        view.link_activated.connect(self.link_activated)
        return view

    def _build_code(self, segment: Segment) -> CodeView:
        view = CodeView(self._theme, self)
        view.show_segment(segment)
        view.copy_requested.connect(self.copy_requested)
        return view

    def _build_footer(self) -> MessageFooter:
        footer = MessageFooter(self._state, self._theme, self)
        footer.set_busy(self._is_busy)
        footer.set_last(self._is_last)
        footer.set_hovered(self.underMouse())
        footer.copy_clicked.connect(self._on_copy_clicked)
        footer.edit_clicked.connect(self.begin_edit)
        footer.regenerate_clicked.connect(lambda: self.regenerate_requested.emit(self._state.row.message_id))
        footer.continue_clicked.connect(lambda: self.continue_requested.emit(self._state.row.message_id))
        footer.version_clicked.connect(lambda step: self.version_requested.emit(self._state.row.message_id, step))
        return footer

    def _build_editor(self) -> MessageEditor:
        editor = MessageEditor(self._state.text, self)
        editor.submitted.connect(self._on_edit_submitted)
        editor.cancelled.connect(self._end_edit)
        editor.height_changed.connect(self._on_editor_changed)
        return editor

    @property
    def _room(self) -> int:
        """The width there is for text."""
        width = self._width
        return width if self._state.is_reply else width - min(INSET, width // 8) - 2 * PADDING_X

    # --- layout -----------------------------------------------------------------------------------------------

    def _shrunk(self, body: list[_Part], room: int) -> int:
        """The width for ``body``: less than ``room`` for a user's short message."""
        if self._state.is_reply or len(body) != 1 or not isinstance(body[0].widget, ProseView):
            return room
        if body[0].stale:
            body[0].widget.height_for(room)
            return min(room, body[0].widget.ideal_width())
        return body[0].widget.width()

    def _place(self, part: _Part, x: int, y: int, width: int) -> None:
        if part.stale:
            part.height = self._measure(part, width)
            part.stale = False
        part.y = y
        if isinstance(part.widget, ThinkingButton):
            width = min(width, part.widget.sizeHint().width())
        if part.widget is not None:
            part.widget.setGeometry(x, y, width, part.height)

    def _measure(self, part: _Part, width: int) -> int:
        if part.key == "footer":
            return FOOTER_HEIGHT
        if part.widget is not None:
            measured: _PartWidget = part.widget  # type: ignore[assignment]
            return measured.height_for(width)
        if part.segment is None:
            return PROGRESS_HEIGHT
        if part.segment.kind is SegmentKind.CODE:
            return code_height(part.segment.text, self.fontMetrics().lineSpacing())
        return estimated_height(
            part.segment.text, width, self.fontMetrics().averageCharWidth(), self.fontMetrics().lineSpacing()
        )

    # --- what the user does -----------------------------------------------------------------------------------

    def begin_edit(self) -> None:
        """Let the user change the message in its place."""
        self._is_editing = True
        self.refresh()
        editor = self._parts[0].widget = self._build(self._parts[0])
        editor.show()
        editor.setFocus()
        self.height_changed.emit()

    def _end_edit(self) -> None:
        self._is_editing = False
        self.refresh()
        self.height_changed.emit()

    def _on_editor_changed(self) -> None:
        self._parts[0].stale = True
        self.height_changed.emit()

    def _on_edit_submitted(self, text: str) -> None:
        self._end_edit()
        if text != self._state.text:
            self.edit_submitted.emit(self._state.row.message_id, text)

    def _on_thinking_clicked(self) -> None:
        self._state.thinking_open = not self._thinking_open
        self.refresh()
        self.height_changed.emit()

    def _on_copy_clicked(self) -> None:
        self.copy_requested.emit(self._state.text)
        footer = self._parts[-1].widget
        if isinstance(footer, MessageFooter):
            footer.copy_button.show_done()

    def _set_hovered(self, hovered: bool) -> None:
        footer = self._parts[-1].widget
        if isinstance(footer, MessageFooter):
            footer.set_hovered(hovered)

    def enterEvent(self, event: QEnterEvent) -> None:
        super().enterEvent(event)
        self._set_hovered(True)

    def leaveEvent(self, event: QEvent) -> None:
        super().leaveEvent(event)
        self._set_hovered(False)

    def paintEvent(self, event: QPaintEvent) -> None:
        super().paintEvent(event)
        if self._state.is_reply or self._is_editing:
            return
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        painter.setPen(QColor(0, 0, 0, 0))
        painter.setBrush(QColor(self._theme.surface_raised))
        painter.drawRoundedRect(self._card, 10, 10)


def estimated_height(text: str, width: int, char_width: int, line_height: int) -> int:
    """About how high ``text`` will be, without laying it out: all pixels."""
    columns = max(10, width // max(1, char_width))
    return (text.count("\n") + 1 + len(text) // columns) * line_height


def _drop(part: _Part) -> None:
    if part.widget is not None:
        part.widget.hide()
        part.widget.deleteLater()
        part.widget = None
