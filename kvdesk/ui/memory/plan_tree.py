"""The tree view under plan_table.py: groups of aligned rows, with what to say about each; copied with Ctrl+C. UI thread."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from PySide6.QtCore import Qt
from PySide6.QtGui import QColor, QGuiApplication, QKeyEvent, QKeySequence
from PySide6.QtWidgets import QHeaderView, QTreeWidget, QTreeWidgetItem

from kvdesk.ui.widgets.plain_text import plain_tip
from kvdesk.ui.widgets.tree_items import top_level_items


@dataclass(frozen=True)
class Row:
    """One line: its name, the cells beside it, a tool tip, and why the figure is what it is.

    ``is_sum`` is set in bold, ``is_line`` (what sums are held against) muted.
    """

    words: str
    cells: list[str]
    tip: str
    why: str = ""
    is_sum: bool = False
    is_line: bool = False


@dataclass(frozen=True)
class Group:
    """A heading and the rows under it."""

    words: str
    rows: list[Row]


class PlanTree(QTreeWidget):
    """The table; Ctrl+C copies it all."""

    def __init__(self) -> None:
        super().__init__()
        self.setRootIsDecorated(False)
        self.setIndentation(0)
        self.setUniformRowHeights(True)
        self.setSelectionMode(QTreeWidget.SelectionMode.SingleSelection)
        self.setStyleSheet("QTreeView::item { padding: 2px 3px; } QHeaderView::section { padding: 4px 3px; }")
        self.setExpandsOnDoubleClick(False)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.header().setSectionsMovable(False)
        self.header().setStretchLastSection(False)

    def fill(self, titles: Sequence[str], groups: Sequence[Group], muted: QColor) -> None:
        """Show ``groups`` under column ``titles``; the scroll position stays."""
        at = self.verticalScrollBar().value()
        self.clear()
        self.setColumnCount(max(1, len(titles)))
        self.setHeaderLabels(list(titles) or [""])
        self.setHeaderHidden(not titles)
        right = Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter
        for column in range(1, len(titles)):
            self.headerItem().setTextAlignment(column, right)
        for group in groups:
            head = QTreeWidgetItem([group.words])
            _embolden(head, 0)
            self.addTopLevelItem(head)
            head.setFirstColumnSpanned(True)
            for row in group.rows:
                item = QTreeWidgetItem([row.words, *row.cells])
                item.setData(0, Qt.ItemDataRole.UserRole, row.why)
                for column in range(len(titles)):
                    item.setToolTip(column, plain_tip("\n".join(text for text in (row.tip, row.why) if text)))
                    if column:
                        item.setTextAlignment(column, right)
                    if row.is_sum:
                        _embolden(item, column)
                    if row.is_line:
                        item.setForeground(column, muted)
                head.addChild(item)
            head.setExpanded(True)
        header = self.header()
        header.setSectionResizeMode(0, QHeaderView.ResizeMode.Stretch)
        for column in range(1, len(titles)):
            header.setSectionResizeMode(column, QHeaderView.ResizeMode.ResizeToContents)
        self.verticalScrollBar().setValue(at)

    def as_text(self) -> str:
        """All of it as tab-separated lines."""
        columns = range(self.columnCount())
        header = self.headerItem()
        lines = ["\t".join(header.text(column) for column in columns)] if header is not None else []
        for head in top_level_items(self):
            lines.append(head.text(0))
            rows = (head.child(row) for row in range(head.childCount()))
            lines += ["\t".join(row.text(column) for column in columns).rstrip() for row in rows if row is not None]
        return "\n".join(lines)

    def keyPressEvent(self, event: QKeyEvent) -> None:
        """Ctrl+C puts the table on the clipboard."""
        if event.matches(QKeySequence.StandardKey.Copy):
            QGuiApplication.clipboard().setText(self.as_text())
        else:
            super().keyPressEvent(event)


def _embolden(item: QTreeWidgetItem, column: int) -> None:
    font = item.font(column)
    font.setBold(True)
    item.setFont(column, font)
