"""Where code blocks ask for their colours and hear of them; who answers is the composition root's to join. UI thread."""

from __future__ import annotations

from PySide6.QtCore import QObject, Signal

from kvdesk.backend.code_spans import CodeAnswer, CodeQuestion


class CodeQuestions(QObject):
    """One for all blocks of the app."""

    asked = Signal(CodeQuestion)
    answered = Signal(CodeAnswer)

    def __init__(self) -> None:
        super().__init__()
        self._n_asked = 0

    def ask(self, language: str, text: str) -> int:
        """Ask about ``text``; the number that its answer will have."""
        self._n_asked += 1
        self.asked.emit(CodeQuestion(self._n_asked, language, text))
        return self._n_asked


_shared: CodeQuestions | None = None


def code_questions() -> CodeQuestions:
    """The one of this app."""
    global _shared
    if _shared is None:
        _shared = CodeQuestions()
    return _shared
