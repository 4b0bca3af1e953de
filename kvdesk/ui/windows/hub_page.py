"""The page that finds models on the hub: search, a repository's quantizations with their badges, download. UI thread.

What is shown was written by strangers: all labels are plain text.
"""

from __future__ import annotations

from collections.abc import Sequence

from PySide6.QtCore import Qt, Signal
from PySide6.QtGui import QColor
from PySide6.QtWidgets import (
    QComboBox,
    QHBoxLayout,
    QHeaderView,
    QLineEdit,
    QPushButton,
    QSplitter,
    QTreeWidget,
    QTreeWidgetItem,
    QVBoxLayout,
    QWidget,
)

from kvdesk.backend.library.hub.repository import RemoteModel, Repository
from kvdesk.backend.planning.fit import Fit
from kvdesk.ui.widgets.numbers import format_file_size
from kvdesk.ui.widgets.plain_text import PlainLabel
from kvdesk.ui.widgets.theme import Theme, set_role
from kvdesk.ui.widgets.tree_items import top_level_items
from kvdesk.ui.windows.model_table import fit_color

VALUE_ROLE = Qt.ItemDataRole.UserRole
_FIT_COLUMN = 2


class HubPage(QWidget):
    """Emits what is searched for, which repository is looked into, and which of its models is wanted."""

    search_requested = Signal(str, str)
    """Words, a link or owner/name, and the order."""
    repository_chosen = Signal(str)
    download_requested = Signal(RemoteModel)
    """A RemoteModel."""

    def __init__(self, theme: Theme, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._theme = theme
        self._repository: Repository | None = None
        self.field = QLineEdit()
        self.field.setPlaceholderText(self.tr("Search the Hugging Face hub, or paste a link"))
        self.field.setAccessibleName(self.tr("Search the hub"))
        self.field.setClearButtonEnabled(True)
        self.field.returnPressed.connect(self._search)
        self.order = QComboBox()
        self.order.setAccessibleName(self.tr("Order"))
        for name, words in (
            ("downloads", self.tr("Most downloaded")),
            ("likes", self.tr("Most liked")),
            ("last_modified", self.tr("Newest")),
            ("trending_score", self.tr("Trending")),
        ):
            self.order.addItem(words, name)
        self.order.currentIndexChanged.connect(lambda _: self._search())
        self.search_button = QPushButton(self.tr("Search"))
        self.search_button.setAutoDefault(False)
        self.search_button.clicked.connect(self._search)
        titles = (self.tr("Repository"), self.tr("Downloads"), self.tr("Updated"))
        self.repositories = self._tree(self.tr("Repositories"), titles)
        self.repositories.currentItemChanged.connect(self._on_repository_chosen)
        columns = (self.tr("Quantization"), self.tr("Size"), self.tr("On this computer"), self.tr("File"))
        self.models = self._tree(self.tr("Models"), columns)
        self.models.currentItemChanged.connect(lambda *_: self._enable())
        self.models.itemActivated.connect(lambda *_: self.download_button.click())
        self.words = self._label("muted")
        self.title = self._label("heading")
        self.facts = self._label("muted")
        self.download_button = QPushButton(self.tr("Download"))
        self.download_button.setAutoDefault(False)
        set_role(self.download_button, "primary")
        self.download_button.clicked.connect(lambda: self.download_requested.emit(self.chosen))
        self._build()
        self.words.setText(self.tr("Nothing is asked of the network until you search."))
        self._enable()

    # --- what it is told -------------------------------------------------------------------------------------------

    def show_found(self, repositories: Sequence[Repository]) -> None:
        """The answer to a search."""
        self.repositories.clear()
        for repository in repositories:
            name = repository.repo_id + (self.tr(" (gated)") if repository.is_gated else "")
            item = QTreeWidgetItem([name, f"{repository.downloads:,}", repository.updated])
            item.setTextAlignment(1, Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
            item.setData(0, VALUE_ROLE, repository.repo_id)
            self.repositories.addTopLevelItem(item)
        self.words.setText(
            "" if repositories else self.tr("The hub has no GGUF repository of that name. Fewer words find more.")
        )

    def show_repository(self, repository: Repository, chosen: str) -> None:
        """A repository's models; their badges follow. ``chosen`` is the name of the one to choose."""
        self._repository = repository
        self.words.setText("")
        self.title.setText(repository.repo_id)
        gated = self.tr("gated: accept its terms on its page first") if repository.is_gated else ""
        licence = self.tr("licence {0}").format(repository.license) if repository.license else ""
        self.facts.setText("  ·  ".join(fact for fact in (licence, gated) if fact))
        self.models.clear()
        for model in repository.models:
            parts = self.tr(" ({0} parts)").format(len(model.files)) if len(model.files) > 1 else ""
            row = [
                model.quantization,
                format_file_size(model.size_bytes),
                self.tr("reading its header…"),
                model.name + parts,
            ]
            item = QTreeWidgetItem(row)
            item.setTextAlignment(1, Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
            item.setData(0, VALUE_ROLE, model)
            self.models.addTopLevelItem(item)
            if model.name == chosen:
                self.models.setCurrentItem(item)
        self._enable()

    def show_fit(self, repo_id: str, name: str, fit: Fit) -> None:
        """The badge of one of the models."""
        item = self._item(repo_id, name)
        if item:
            item.setText(_FIT_COLUMN, fit.sentence)
            item.setForeground(_FIT_COLUMN, QColor(fit_color(self._theme, fit)))

    def show_best(self, repo_id: str, name: str, why: str) -> None:
        """Which is the best for this machine, and why; "" when none is known to fit."""
        item = self._item(repo_id, name)
        if item:
            item.setText(_FIT_COLUMN, f"★ {item.text(_FIT_COLUMN)}")
            self.words.setText(f"★ {why}")
            if self.models.currentItem() is None:
                self.models.setCurrentItem(item)
        elif self._repository and self._repository.repo_id == repo_id:
            self.words.setText(self.tr("None of these is known to fit this computer."))

    def show_problem(self, sentence: str) -> None:
        """Why the hub did not answer."""
        self.words.setText(sentence)

    def set_theme(self, theme: Theme) -> None:
        """Colours of badges that come from now on."""
        self._theme = theme

    @property
    def chosen(self) -> RemoteModel | None:
        """The model that is chosen."""
        item = self.models.currentItem()
        return item.data(0, VALUE_ROLE) if item else None

    # --- inside ------------------------------------------------------------------------------------------------------

    def _build(self) -> None:
        top = QHBoxLayout()
        top.addWidget(self.field, 1)
        top.addWidget(self.order)
        top.addWidget(self.search_button)
        right = QWidget()
        column = QVBoxLayout(right)
        column.setContentsMargins(8, 0, 0, 0)
        column.addWidget(self.title)
        column.addWidget(self.facts)
        column.addWidget(self.models, 1)
        parts = QSplitter(Qt.Orientation.Horizontal)
        parts.addWidget(self.repositories)
        parts.addWidget(right)
        parts.setStretchFactor(1, 1)
        parts.setSizes([400, 700])
        parts.setChildrenCollapsible(False)
        under = QHBoxLayout()
        under.addWidget(self.words, 1)
        under.addWidget(self.download_button)
        layout = QVBoxLayout(self)
        layout.addLayout(top)
        layout.addWidget(parts, 1)
        layout.addLayout(under)

    def _tree(self, name: str, titles: Sequence[str]) -> QTreeWidget:
        tree = QTreeWidget()
        tree.setAccessibleName(name)
        tree.setRootIsDecorated(False)
        tree.setUniformRowHeights(True)
        tree.setHeaderLabels(list(titles))
        tree.header().setSectionResizeMode(QHeaderView.ResizeMode.ResizeToContents)
        tree.header().setStretchLastSection(True)
        return tree

    def _label(self, role: str) -> PlainLabel:
        label = PlainLabel()
        label.setWordWrap(True)
        set_role(label, role)
        return label

    def _search(self) -> None:
        words = self.field.text().strip()
        if words:
            self.words.setText(self.tr("Asking the hub…"))
            self.search_requested.emit(words, self.order.currentData())

    def _on_repository_chosen(self, item: QTreeWidgetItem | None) -> None:
        if item:
            self.words.setText(self.tr("Reading the headers of its models: a few MB each, nothing else is downloaded."))
            self.repository_chosen.emit(item.data(0, VALUE_ROLE))

    def _item(self, repo_id: str, name: str) -> QTreeWidgetItem | None:
        if self._repository is None or self._repository.repo_id != repo_id:
            return None
        return next((item for item in top_level_items(self.models) if item.data(0, VALUE_ROLE).name == name), None)

    def _enable(self) -> None:
        self.download_button.setEnabled(self.chosen is not None)
