"""The table of models on this machine: rows that fill in as they are read, sorted and filtered. UI thread."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from PySide6.QtCore import QAbstractTableModel, QModelIndex, QObject, QPersistentModelIndex, QSortFilterProxyModel, Qt
from PySide6.QtGui import QColor

from kvdesk.backend.library.models import ModelListEntry
from kvdesk.backend.planning.fit import DOES_NOT_FIT, FITS, FITS_UP_TO, RUNS_SLOWLY, UNKNOWN, Fit
from kvdesk.ui.widgets.numbers import format_file_size, short_tokens
from kvdesk.ui.widgets.theme import Theme

Index = QModelIndex | QPersistentModelIndex
PATH_ROLE = Qt.ItemDataRole.UserRole
SORT_ROLE = Qt.ItemDataRole.UserRole + 1
_NO_PARENT = QModelIndex()
_RANKS = {FITS: 0, FITS_UP_TO: 1, RUNS_SLOWLY: 2, UNKNOWN: 3, DOES_NOT_FIT: 4}


@dataclass
class _Row:
    entry: ModelListEntry
    fit: Fit | None = None
    is_copy: bool = False


@dataclass(frozen=True)
class _Column:
    title: str
    text: Callable[[_Row], str]
    key: Callable[[_Row], Any]
    is_number: bool = False


class ModelTable(QAbstractTableModel):
    """A row for each model. PATH_ROLE gives its path, SORT_ROLE what its column is sorted by."""

    def __init__(self, theme: Theme, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._theme = theme
        self._rows: list[_Row] = []
        self._row_of: dict[str, int] = {}
        self._columns = self._make_columns()

    # --- what it is told -------------------------------------------------------------------------------------------

    def add(self, entries: Iterable[ModelListEntry], *, is_first: bool) -> None:
        """More rows; with ``is_first`` in place of all that are there. What was priced stays priced."""
        known = {row.entry.path: row.fit for row in self._rows if row.entry.fingerprint} if is_first else {}
        if is_first:
            self.beginResetModel()
            self._rows, self._row_of = [], {}
            self.endResetModel()
        new = [_Row(entry, known.get(entry.path)) for entry in entries]
        if not new:
            return
        first = len(self._rows)
        self.beginInsertRows(_NO_PARENT, first, first + len(new) - 1)
        seen = {row.entry.fingerprint for row in self._rows if row.entry.fingerprint}
        for row in new:
            row.is_copy = row.entry.fingerprint in seen
            seen.update({row.entry.fingerprint} - {""})
            self._row_of[row.entry.path] = len(self._rows)
            self._rows.append(row)
        self.endInsertRows()

    def show_fit(self, path: str, fit: Fit) -> None:
        """The badge of a model in the list."""
        number = self._row_of.get(path)
        if number is not None:
            self._rows[number].fit = fit
            self.dataChanged.emit(self.index(number, 0), self.index(number, len(self._columns) - 1))

    def set_theme(self, theme: Theme) -> None:
        """Take the theme's colours."""
        self._theme = theme
        if self._rows:
            self.dataChanged.emit(self.index(0, 0), self.index(len(self._rows) - 1, len(self._columns) - 1))

    # --- what it tells -----------------------------------------------------------------------------------------------

    def entry(self, path: str) -> ModelListEntry | None:
        """The model in that file."""
        number = self._row_of.get(path)
        return None if number is None else self._rows[number].entry

    def fit(self, path: str) -> Fit | None:
        """Its badge, once it is known."""
        number = self._row_of.get(path)
        return None if number is None else self._rows[number].fit

    def rowCount(self, parent: Index = _NO_PARENT) -> int:
        """How many models are listed."""
        return 0 if parent.isValid() else len(self._rows)

    def columnCount(self, parent: Index = _NO_PARENT) -> int:
        """How many facts of each."""
        return 0 if parent.isValid() else len(self._columns)

    def headerData(self, section: int, orientation: Qt.Orientation, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        """The columns' titles."""
        if orientation is Qt.Orientation.Horizontal and role == Qt.ItemDataRole.DisplayRole:
            return self._columns[section].title
        return None

    def data(self, index: Index, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        """Text, colour, alignment, path and sort key of a cell."""
        row, column = self._rows[index.row()], self._columns[index.column()]
        if role == Qt.ItemDataRole.DisplayRole:
            return column.text(row)
        if role == SORT_ROLE:
            return column.key(row)
        if role == PATH_ROLE:
            return row.entry.path
        if role == Qt.ItemDataRole.TextAlignmentRole and column.is_number:
            return int(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
        if role == Qt.ItemDataRole.ForegroundRole:
            return self._color(row, index.column())
        return None

    def _color(self, row: _Row, column: int) -> QColor | None:
        if row.entry.error:
            return QColor(self._theme.text_muted)
        if column == 1 and row.fit:
            return QColor(fit_color(self._theme, row.fit))
        return None

    def _make_columns(self) -> tuple[_Column, ...]:
        return (
            _Column(self.tr("Model"), self._name, lambda row: row.entry.name.lower()),
            _Column(self.tr("Fits"), self._fit_words, _fit_key),
            _Column(
                self.tr("Size"),
                lambda row: format_file_size(row.entry.size_bytes),
                lambda row: row.entry.size_bytes,
                True,
            ),
            _Column(self.tr("From"), lambda row: source_words(row.entry.source, self), lambda row: row.entry.source),
            _Column(self.tr("Quantization"), lambda row: row.entry.quantization, lambda row: row.entry.quantization),
            _Column(self.tr("Parameters"), _params_words, lambda row: row.entry.n_params, True),
            _Column(self.tr("Architecture"), lambda row: row.entry.architecture, lambda row: row.entry.architecture),
            _Column(
                self.tr("Context"),
                lambda row: short_tokens(row.entry.n_ctx_train) if row.entry.n_ctx_train else "",
                lambda row: row.entry.n_ctx_train,
                True,
            ),
            _Column(
                self.tr("Attention"),
                lambda row: ", ".join(row.entry.attention),
                lambda row: ", ".join(row.entry.attention),
            ),
            _Column(self.tr("Template"), self._template_words, lambda row: not row.entry.has_chat_template),
        )

    def _name(self, row: _Row) -> str:
        return self.tr("{0} (copy)").format(row.entry.name) if row.is_copy else row.entry.name

    def _fit_words(self, row: _Row) -> str:
        if row.entry.error:
            return self.tr("Cannot chat")
        return row.fit.sentence if row.fit else self.tr("asking llama.cpp…")

    def _template_words(self, row: _Row) -> str:
        return "" if not row.entry.n_layer else self.tr("yes") if row.entry.has_chat_template else self.tr("no")


class ModelFilter(QSortFilterProxyModel):
    """Sorts by what a column means, and keeps the rows in which every word is found."""

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._words: list[str] = []
        self.setSortRole(SORT_ROLE)

    def set_words(self, text: str) -> None:
        """Show the rows that hold each word of ``text`` in any column or in the path."""
        self._words = text.lower().split()
        self.invalidate()

    def filterAcceptsRow(self, source_row: int, source_parent: Index) -> bool:
        """Whether the row has all words."""
        if not self._words:
            return True
        model = self.sourceModel()
        cells = [model.index(source_row, column, source_parent) for column in range(model.columnCount())]
        text = " ".join([*(str(model.data(cell)) for cell in cells), str(model.data(cells[0], PATH_ROLE))]).lower()
        return all(word in text for word in self._words)


def fit_color(theme: Theme, fit: Fit) -> str:
    """The colour in which a fits badge is written."""
    return {FITS: theme.green, FITS_UP_TO: theme.amber, RUNS_SLOWLY: theme.amber, DOES_NOT_FIT: theme.red}.get(
        fit.kind, theme.text_muted
    )


def source_words(source: str, speaker: QObject) -> str:
    """Where a model is from, as it is shown."""
    return {
        "kvdesk": speaker.tr("kvdesk"),
        "starter": speaker.tr("comes with kvdesk"),
        "folder": speaker.tr("your folder"),
    }.get(source, source)


def params_words(n_params: int) -> str:
    """Parameters in short: "270M", "7.6B"."""
    return f"{n_params / 1e9:.1f}B" if n_params >= 1e9 else f"{n_params / 1e6:.0f}M"


def _params_words(row: _Row) -> str:
    entry = row.entry
    if not entry.n_params:
        return ""
    if entry.n_params_active == entry.n_params:
        return params_words(entry.n_params)
    return f"{params_words(entry.n_params)} ({params_words(entry.n_params_active)})"


def _fit_key(row: _Row) -> float:
    """Those that fit come first, the longest context first."""
    if row.entry.error or row.fit is None:
        return 9e12 if row.entry.error else 5e12
    return 1e12 * _RANKS[row.fit.kind] - (row.fit.max_n_ctx or 0)
