"""The page of models on this machine: table, filter, facts of the chosen one, what can be done with it. UI thread."""

from __future__ import annotations

from collections.abc import Sequence

from PySide6.QtCore import QItemSelectionModel, Qt, Signal
from PySide6.QtWidgets import (
    QAbstractItemView,
    QHBoxLayout,
    QLineEdit,
    QMessageBox,
    QPushButton,
    QTableView,
    QVBoxLayout,
    QWidget,
)

from kvdesk.backend.library.models import ModelListEntry
from kvdesk.backend.planning.fit import Fit
from kvdesk.ui.widgets.numbers import format_bytes, format_file_size, format_tokens
from kvdesk.ui.widgets.plain_text import PlainLabel, message_box
from kvdesk.ui.widgets.theme import Theme, set_role
from kvdesk.ui.windows.model_table import PATH_ROLE, ModelFilter, ModelTable, params_words, source_words

_WIDTHS_PX = (230, 215, 75, 130, 100, 100, 105, 75, 80, 70)


class LocalModelsPage(QWidget):
    """Emits what the person wants with a model's path; the owner does it."""

    open_requested = Signal(str)
    reveal_requested = Signal(str)
    delete_requested = Signal(str)
    """The person has confirmed."""
    folder_requested = Signal()
    refresh_requested = Signal()

    def __init__(self, theme: Theme, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.table = ModelTable(theme, self)
        self._filter = ModelFilter(self)
        self._filter.setSourceModel(self.table)
        self.filter_field = QLineEdit()
        self.filter_field.setPlaceholderText(self.tr("Filter by name, architecture, quantization, folder…"))
        self.filter_field.setAccessibleName(self.tr("Filter models"))
        self.filter_field.setClearButtonEnabled(True)
        self.filter_field.textChanged.connect(self._filter.set_words)
        self.view = self._make_view()
        self.words = PlainLabel()
        set_role(self.words, "muted")
        self.facts = PlainLabel()
        self.facts.setWordWrap(True)
        self.facts.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self.open_button = self._button(self.tr("Open"), self.tr("Load it and chat"), "primary")
        self.open_button.clicked.connect(lambda: self.open_requested.emit(self.path))
        self.reveal_button = self._button(self.tr("Show in folder"), self.tr("Open the folder that it lies in"))
        self.reveal_button.clicked.connect(lambda: self.reveal_requested.emit(self.path))
        self.delete_button = self._button(self.tr("Delete…"), "", "danger")
        self.delete_button.clicked.connect(self._ask_delete)
        self.folder_button = self._button(self.tr("Add folder…"), self.tr("Look for models in a folder of yours too"))
        self.folder_button.clicked.connect(self.folder_requested)
        self.refresh_button = self._button(self.tr("Refresh"), self.tr("Read and price all models anew (F5)"))
        self.refresh_button.setShortcut("F5")
        self.refresh_button.clicked.connect(self.refresh_requested)
        self._build()
        self._show_chosen()

    # --- what it is told -------------------------------------------------------------------------------------------

    def add(self, entries: Sequence[ModelListEntry], *, is_first: bool) -> None:
        """More models; with ``is_first`` in place of those that are there. What was chosen stays chosen."""
        chosen = self.path
        self.table.add(entries, is_first=is_first)
        if is_first:
            self.words.setText(self.tr("Looking for models…"))
        if chosen and self.path != chosen:
            self.choose(chosen)

    def show_count(self, count: int) -> None:
        """Show how many models were found; the scan has ended."""
        self.words.setText(
            self.tr("{0} models on this computer. Those of other programs are read where they are.").format(count)
            if count
            else self.tr("There are no models on this computer yet. Find one, or add a folder that has some.")
        )

    def show_fit(self, path: str, fit: Fit) -> None:
        """The badge of a model."""
        self.table.show_fit(path, fit)
        if path == self.path:
            self._show_chosen()

    def choose(self, path: str) -> None:
        """Choose the model in that file, if it is shown."""
        for row in range(self._filter.rowCount()):
            index = self._filter.index(row, 0)
            if index.data(PATH_ROLE) == path:
                flags = QItemSelectionModel.SelectionFlag.ClearAndSelect | QItemSelectionModel.SelectionFlag.Rows
                self.view.selectionModel().setCurrentIndex(index, flags)
                return

    @property
    def path(self) -> str:
        """Of the chosen model; "" when none is."""
        rows = self.view.selectionModel().selectedRows()
        return str(rows[0].data(PATH_ROLE)) if rows else ""

    # --- inside ------------------------------------------------------------------------------------------------------

    def _make_view(self) -> QTableView:
        view = QTableView()
        view.setAccessibleName(self.tr("Models on this computer"))
        view.setModel(self._filter)
        view.setSortingEnabled(True)
        view.sortByColumn(0, Qt.SortOrder.AscendingOrder)
        view.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        view.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        view.setTabKeyNavigation(False)
        view.verticalHeader().hide()
        view.setShowGrid(False)
        view.setWordWrap(False)
        for column, width in enumerate(_WIDTHS_PX):
            view.setColumnWidth(column, width)
        view.horizontalHeader().setStretchLastSection(True)
        view.selectionModel().selectionChanged.connect(lambda *_: self._show_chosen())
        view.activated.connect(lambda _: self.open_button.click())
        return view

    def _build(self) -> None:
        top = QHBoxLayout()
        top.addWidget(self.filter_field, 1)
        top.addWidget(self.folder_button)
        top.addWidget(self.refresh_button)
        under = QHBoxLayout()
        under.addWidget(self.words, 1)
        for button in (self.delete_button, self.reveal_button, self.open_button):
            under.addWidget(button)
        column = QVBoxLayout(self)
        column.addLayout(top)
        column.addWidget(self.view, 1)
        column.addWidget(self.facts)
        column.addLayout(under)

    def _button(self, text: str, tip: str, role: str = "") -> QPushButton:
        button = QPushButton(text)
        button.setToolTip(tip)
        button.setAutoDefault(False)
        if role:
            set_role(button, role)
        return button

    def _show_chosen(self) -> None:
        path = self.path
        entry = self.table.entry(path) if path else None
        self.open_button.setEnabled(entry is not None and not entry.error)
        self.reveal_button.setEnabled(entry is not None)
        self.delete_button.setEnabled(entry is not None and entry.source == "kvdesk")
        self.delete_button.setToolTip(
            self.tr("Remove it from the disk")
            if self.delete_button.isEnabled()
            else self.tr("Only models that kvdesk downloaded are deleted here")
        )
        self.facts.setText("\n".join(self._fact_lines(entry)) if entry else "")

    def _fact_lines(self, entry: ModelListEntry) -> list[str]:
        parts = self.tr("{0} parts").format(entry.n_parts) if entry.n_parts > 1 else ""
        experts = entry.n_params_active != entry.n_params
        facts = [
            self.tr("{0} layers").format(entry.n_layer) if entry.n_layer else "",
            self.tr("{0} of {1} parameters at a time").format(
                params_words(entry.n_params_active), params_words(entry.n_params)
            )
            if experts
            else "",
            self.tr("trained for {0} tokens").format(format_tokens(entry.n_ctx_train)) if entry.n_ctx_train else "",
            self.tr("licence {0}").format(entry.license) if entry.license else "",
            self.tr("reads images") if entry.projector else "",
            parts,
            source_words(entry.source, self),
        ]
        lines = [entry.path, "  ·  ".join(fact for fact in facts if fact)]
        if entry.error:
            lines.append(entry.error)
        fit = self.table.fit(entry.path)
        if fit and fit.domains:
            lines += [
                self.tr("{0}: {1} for {2} tokens, {3} for all, under a line of {4}").format(
                    domain.name,
                    format_bytes(domain.total_bytes),
                    format_tokens(fit.n_ctx),
                    format_bytes(domain.own_total_bytes),
                    format_bytes(domain.oom_line_bytes),
                )
                for domain in fit.domains
            ]
        return lines

    def _ask_delete(self) -> None:
        entry = self.table.entry(self.path)
        if entry is None:
            return
        path = entry.path
        question = self.tr("Delete {0} ({1})?").format(entry.name, format_file_size(entry.size_bytes))
        more = self.tr("It is removed from the disk for good; it can be downloaded again.")
        box = message_box(self, question, more)
        box.setStandardButtons(QMessageBox.StandardButton.Yes | QMessageBox.StandardButton.No)
        box.setDefaultButton(QMessageBox.StandardButton.No)
        box.accepted.connect(lambda: self.delete_requested.emit(path))
        box.open()
