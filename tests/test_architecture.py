"""Who may know whom: one table of walls, checked by parsing every import of the package. docs/ARCHITECTURE.md explains them.

Each wall carries a module that would break it, so that a wall which cannot fail is noticed too.
"""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = "kvdesk"

QT = "PySide6|shiboken6|pyqtgraph"
FACES = r"kvdesk\.(cli|__main__|commands)"
LLAMA = r"kvdesk\.backend\.llama"
PROCESSES = r"kvdesk\.backend\.processes"
"""Modules that a process of its own starts in: the engine, the dry run's helper, the server behind ``kvdesk worker``."""
VALUES = {
    "errors",
    "shown_text",
    "sizes",
    "backend.ggml_log",
    "backend.ggml_types",
    "backend.sampling",
    "backend.settings",
    "backend.protocol",
}
"""What every package of the backend may know: the values that cross packages, what ggml calls its types and
says of memory, how sizes are written, and the errors a person may see."""
MAY_KNOW = {
    "backend.ggml_types": set(),
    "backend.ggml_log": {"sizes"},
    "backend.settings": {"errors", "sizes", "backend.ggml_types"},
    "backend.sampling": {"backend.settings"},
    "backend.protocol": {"errors", "backend.sampling", "backend.settings"},
    "backend.preferences": {"errors", "sizes", "backend.atomic_file", "backend.sampling", "backend.settings"},
    "backend.text_file": {"errors", "sizes"},
    "backend.atomic_file": set(),
    "backend.code_spans": set(),
    "backend.code_lexer": {"errors", "backend.code_spans", "backend.processes", "backend.system"},
    "backend.gguf": {"errors", "shown_text", "sizes", "backend.ggml_types"},
    "backend.chat_format": {"errors", "sizes", "backend.processes", "backend.protocol", "backend.system"},
    "backend.library.hub": {"errors", "shown_text", "sizes", "backend.atomic_file", "backend.gguf"},
    "backend.library": {
        *VALUES,
        "paths",
        "backend.atomic_file",
        "backend.gguf",
        "backend.planning",
        "backend.system",
    },
    "backend.system": {*VALUES, "backend.atomic_file"},
    "backend.conversations": {*VALUES, "backend.chat_format", "backend.atomic_file"},
    "backend.session": {*VALUES, "backend.engine", "backend.gguf", "backend.planning"},
    "backend.session_log": {
        *VALUES,
        "backend.atomic_file",
        "backend.engine",
        "backend.planning",
        "backend.session",
        "backend.system",
    },
    "backend.engine": {*VALUES, "backend.processes", "backend.system"},
    "backend.planning": {
        *VALUES,
        "paths",
        "backend.atomic_file",
        "backend.engine",
        "backend.gguf",
        "backend.processes",
        "backend.system",
    },
    "backend.processes": {
        *VALUES,
        "backend.code_spans",
        "backend.chat_format",
        "backend.gguf",
        "backend.llama",
        "backend.system",
    },
    "backend.llama": {*VALUES, "backend.chat_format", "backend.conversations", "backend.gguf", "backend.system"},
    "ui.widgets": {"paths", "shown_text", "sizes"},
    "ui.memory": {*VALUES, "backend.gguf", "backend.planning", "backend.session_log", "backend.system", "ui.widgets"},
    "ui.panels": {*VALUES, "backend.planning", "backend.system", "ui.memory", "ui.widgets"},
    "ui.settings": {*VALUES, "backend.gguf", "backend.planning", "ui.panels", "ui.widgets"},
    "ui.chat": {
        *VALUES,
        "backend.chat_format",
        "backend.code_spans",
        "backend.conversations",
        "ui.memory",
        "ui.panels",
        "ui.settings",
        "ui.widgets",
    },
    "ui.windows": {
        *VALUES,
        "backend.atomic_file",
        "backend.library",
        "backend.planning",
        "backend.session_log",
        "ui.memory",
        "ui.widgets",
    },
}
"""Package (or module beside the packages) -> all that it may import of kvdesk, in functions too. Where a package is not
a key (commands, ui.controllers, ui.shell: they join the others), only the walls below bind it."""
SERVICES = frozenset(
    f"kvdesk.backend.{name}"
    for name in (
        "code_lexer", "engine.engine", "planning.dry_run", "planning.planner", "planning.pricer", "system.machine", "system.monitor",
        "session.session", "session_log.recorder", "session_log.recording", "conversations.snapshots", "conversations.store", "conversations.store_thread",
        "library.library", "library.hub.downloads",
    )
)  # fmt: skip
"""Modules of ``backend`` with threads, processes, files or readings of their own."""
BUILT_ON = {
    "kvdesk.backend.planning.planner": {"kvdesk.backend.planning.pricer"},
    "kvdesk.backend.planning.pricer": {"kvdesk.backend.planning.dry_run", "kvdesk.backend.system.machine"},
    "kvdesk.backend.library.library": {"kvdesk.backend.library.hub.downloads"},
    "kvdesk.backend.session.session": {"kvdesk.backend.engine.engine", "kvdesk.backend.planning.planner"},
    "kvdesk.backend.session_log.recording": {"kvdesk.backend.session_log.recorder", "kvdesk.backend.system.monitor"},
    "kvdesk.backend.conversations.store_thread": {"kvdesk.backend.conversations.store"},
}
"""The few services that are built on another; the rest are joined by ``ui/shell``, the controllers or a command."""
PURE = (
    r"kvdesk\.(errors|shown_text|sizes)"
    r"|kvdesk\.backend\.(code_spans|ggml_log|ggml_types|settings|protocol\..+|chat_format\.(chat_format|reply_reader|template|thinking)|gguf\.(architectures|layers)|system\.samples|session_log\.rows"
    r"|system\.diagnosis\.(acceleration|finding)|engine\.(crash_report|engine_event)|session\.(state|session_event|reduce)|conversations\.(conversation|file_format|read_values)"
    r"|planning\.(checkpoints|cost_curve|described_machine|estimate|explain|headroom_watch|options|plan|plan_event|device_plan|verdict))"
)
LONGEST_FILE = 400
"""Lines."""
SQL = r"kvdesk\.backend\.(conversations\.(schema|search|store)|session_log\.(reader|recorder))"


def any_of(modules: set[str] | frozenset[str]) -> str:
    """A regular expression that matches any of these dotted names."""
    return "|".join(re.escape(name) for name in sorted(modules))


@dataclass(frozen=True)
class Import:
    """One import of ``module``. ``target`` is dotted, with the imported name at the end where there is one."""

    module: str
    line: int
    target: str
    in_function: bool
    for_types_only: bool

    def hits(self, pattern: str) -> bool:
        """Whether the target, or a package above it, is one of ``pattern``."""
        return re.match(rf"(?:{pattern})(?:\.|$)", self.target) is not None


@dataclass(frozen=True)
class Wall:
    """``who`` never imports ``never`` (regular expressions of module names).

    ``but`` are modules that the wall does not bind; with ``top_level_only`` an import inside a function is allowed.
    Imports for type checkers count unless ``types_allowed``. ``broken_by`` is a module (name, source) that breaks it.
    """

    says: str
    who: str
    never: str
    broken_by: tuple[str, str]
    but: str = r"(?!)"
    top_level_only: bool = False
    types_allowed: bool = False

    def breaches(self, imports: list[Import]) -> list[str]:
        """The imports that go through the wall, as sentences."""
        return [
            f"{one.module}:{one.line} imports {one.target}: {self.says}"
            for one in imports
            if re.fullmatch(self.who, one.module)
            and not re.fullmatch(self.but, one.module)
            and one.hits(self.never)
            and not (self.top_level_only and one.in_function)
            and not (self.types_allowed and one.for_types_only)
        ]


WALLS = [
    Wall(
        "the backend works without Qt, window and command line",
        who=r"kvdesk\.backend(\..+)?",
        never=rf"{QT}|kvdesk\.ui|{FACES}",
        broken_by=("kvdesk.backend.planning.plan", "def f():\n    from PySide6.QtCore import QTimer\n"),
    ),
    Wall(
        "only backend/llama imports llama_cpp",
        who=r"kvdesk(\..+)?",
        but=rf"{LLAMA}(\..+)?",
        never="llama_cpp",
        broken_by=("kvdesk.backend.processes.engine_process", "def f():\n    import llama_cpp\n"),
    ),
    Wall(
        "only the entries of processes of their own use backend/llama",
        who=r"kvdesk(\..+)?",
        but=rf"{PROCESSES}(\..+)?|{LLAMA}(\..+)?",
        never=LLAMA,
        broken_by=("kvdesk.backend.engine.engine", "from kvdesk.backend.llama import library\n"),
    ),
    Wall(
        "a process entry imports backend/llama inside a function only: the app imports the entry to start the process",
        who=rf"{PROCESSES}\..+",
        never=LLAMA,
        top_level_only=True,
        types_allowed=True,
        broken_by=("kvdesk.backend.processes.engine_process", "from kvdesk.backend.llama.model import Model\n"),
    ),
    Wall(
        "backend/llama starts no process and knows no service of the app's process; snapshots are the engine's own",
        who=rf"{LLAMA}(\..+)?",
        never=(
            rf"sqlite3|multiprocessing|subprocess|{PROCESSES}"
            rf"|{any_of(SERVICES - {'kvdesk.backend.conversations.snapshots'})}"
        ),
        broken_by=("kvdesk.backend.llama.turn", "from kvdesk.backend.conversations.store import Store\n"),
    ),
    Wall(
        "the window shows and asks: reading the machine, databases and llama.cpp are the backend's",
        who=r"kvdesk\.ui(\..+)?",
        never=rf"llama_cpp|sqlite3|psutil|pynvml|{PROCESSES}|{LLAMA}",
        broken_by=(
            "kvdesk.ui.panels.model_bar",
            "def f():\n    import importlib\n    importlib.import_module('psutil')\n",
        ),
    ),
    Wall(
        "widgets get what they need; only the composition root and the controllers know services",
        who=r"kvdesk\.ui\..+",
        but=r"kvdesk\.ui\.(shell\.application|controllers\..+)",
        never=any_of(SERVICES),
        broken_by=("kvdesk.ui.memory.live_chart", "from kvdesk.backend.system.monitor import Monitor\n"),
    ),
    Wall(
        "nobody imports the command line but its own modules",
        who=r"kvdesk(\..+)?",
        but=rf"{FACES}(\..+)?",
        never=FACES,
        broken_by=("kvdesk.ui.shell.application", "from kvdesk.commands.plan import run\n"),
    ),
    Wall(
        "entry and commands import Qt, numpy and the packages inside functions only: `kvdesk plan` starts without Qt",
        who=r"kvdesk(\.\w+|\.commands\.\w+)?",
        but=r"kvdesk\.(backend|ui)",
        never=rf"{QT}|numpy|psutil|platformdirs|llama_cpp|kvdesk\.ui|kvdesk\.backend",
        top_level_only=True,
        types_allowed=True,
        broken_by=("kvdesk.commands.plan", "from kvdesk.backend.planning.plan import MemoryPlan\n"),
    ),
    Wall(
        "pure modules turn values into values: no process, thread, database or reading of the machine",
        who=PURE,
        never=(
            "os|io|subprocess|multiprocessing|threading|socket|sqlite3|psutil|pynvml"
            rf"|kvdesk\.paths|{any_of(SERVICES)}"
        ),
        broken_by=("kvdesk.backend.planning.plan", "from kvdesk.backend.planning import dry_run\n"),
    ),
    Wall(
        "SQL lives with the conversations' store and the session log",
        who=r"kvdesk(\..+)?",
        but=SQL,
        never="sqlite3",
        broken_by=("kvdesk.commands.log", "def f():\n    import sqlite3\n"),
    ),
    Wall(
        "a label shows any text letter by letter: every label is a PlainLabel",
        who=r"kvdesk\.ui(\..+)?",
        but=r"kvdesk\.ui\.widgets\.plain_text",
        never=r"PySide6\.QtWidgets\.QLabel",
        broken_by=("kvdesk.ui.panels.model_bar", "from PySide6.QtWidgets import QLabel\n"),
    ),
    Wall(
        "NVML is read in one place",
        who=r"kvdesk(\..+)?",
        but=r"kvdesk\.backend\.system\.nvml",
        never="pynvml",
        broken_by=("kvdesk.backend.system.machine", "import pynvml\n"),
    ),
    *(
        Wall(
            "services do not know each other; ui/shell, the controllers and the commands join them",
            who=re.escape(service),
            never=any_of(SERVICES - {service} - BUILT_ON.get(service, set())),
            broken_by=(service, f"import {min(SERVICES - {service} - BUILT_ON.get(service, set()))}\n"),
        )
        for service in sorted(SERVICES)
    ),
    *(
        Wall(
            f"{package} may know {', '.join(sorted(known)) or 'nothing of kvdesk'} (MAY_KNOW)",
            who=rf"kvdesk\.{re.escape(package)}(\..+)?",
            never=rf"kvdesk\.(?!(?:{any_of({*known, package})})(?:\.|$)).*",
            broken_by=(f"kvdesk.{package}.x", "def f():\n    from kvdesk.ui.shell import start\n"),
        )
        for package, known in MAY_KNOW.items()
    ),
]

FORBIDDEN_NAMES = {"utils", "util", "misc", "common", "helpers", "helper", "manager", "data", "info"}


def module_name(path: Path) -> str:
    """The dotted name of a file under the repository's root."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports_of(module: str, source: str, *, is_package: bool = False) -> list[Import]:
    """Every import in ``source``: statements anywhere, and ``import_module``/``__import__`` of a literal name."""
    found: list[Import] = []

    def absolute(node: ast.ImportFrom) -> str:
        if not node.level:
            return node.module or ""
        parts = module.split(".")
        above = parts[: len(parts) - node.level + (1 if is_package else 0)]
        return ".".join([*above, *([node.module] if node.module else [])])

    def visit(node: ast.AST, in_function: bool, for_types_only: bool) -> None:
        if isinstance(node, ast.Import):
            targets = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            targets = [f"{absolute(node)}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Call) and _is_import_call(node.func) and node.args:
            name = node.args[0]
            targets = [name.value] if isinstance(name, ast.Constant) and isinstance(name.value, str) else []
        else:
            targets = []
        found.extend(Import(module, node.lineno, target, in_function, for_types_only) for target in targets)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            for child in node.body:
                visit(child, in_function, True)
            for child in node.orelse:
                visit(child, in_function, for_types_only)
            return
        inside = in_function or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for child in ast.iter_child_nodes(node):
            visit(child, inside, for_types_only)

    visit(ast.parse(source), False, False)
    return found


def _is_import_call(function: ast.expr) -> bool:
    return (isinstance(function, ast.Attribute) and function.attr == "import_module") or (
        isinstance(function, ast.Name) and function.id in ("import_module", "__import__")
    )


def edges(imports: list[Import], modules: frozenset[str], *, lazy: bool) -> dict[str, set[str]]:
    """Module -> the modules of ours that it imports at run time; ``lazy`` counts those inside functions too."""
    known: dict[str, set[str]] = {}
    for one in imports:
        if one.for_types_only or (one.in_function and not lazy):
            continue
        target = one.target
        while target and target not in modules:
            target = target.rpartition(".")[0]
        if target and target != one.module:
            known.setdefault(one.module, set()).add(target)
    return known


def cycle_in(graph: Mapping[str, set[str]]) -> list[str]:
    """The modules of a cycle in order, empty when there is none."""
    done: set[str] = set()

    def search(node: str, path: list[str]) -> list[str]:
        if node in path:
            return [*path[path.index(node) :], node]
        if node in done:
            return []
        for following in sorted(graph.get(node, ())):
            if found := search(following, [*path, node]):
                return found
        done.add(node)
        return []

    return next((found for node in sorted(graph) if (found := search(node, []))), [])


def _files() -> Iterator[Path]:
    return (path for path in sorted((ROOT / PACKAGE).rglob("*.py")) if "__pycache__" not in path.parts)


@pytest.fixture(scope="module")
def imports() -> list[Import]:
    """Of the whole package."""
    return [
        one
        for path in _files()
        for one in imports_of(module_name(path), path.read_text("utf-8"), is_package=path.name == "__init__.py")
    ]


@pytest.mark.parametrize("wall", WALLS, ids=lambda wall: f"{wall.who} -/-> {wall.never}"[:80])
def test_nothing_goes_through_a_wall(wall: Wall, imports: list[Import]) -> None:
    assert wall.breaches(imports) == []


@pytest.mark.parametrize("wall", WALLS, ids=lambda wall: wall.broken_by[0])
def test_every_wall_notices_its_breach(wall: Wall) -> None:
    assert wall.breaches(imports_of(*wall.broken_by))


@pytest.mark.parametrize("wall", WALLS, ids=lambda wall: wall.who)
def test_every_wall_binds_a_module_that_exists(wall: Wall) -> None:
    assert any(re.fullmatch(wall.who, module_name(path)) for path in _files())


def test_imports_are_seen_wherever_they_are_written() -> None:
    source = (
        "from __future__ import annotations\n"
        "from typing import TYPE_CHECKING\n"
        "if TYPE_CHECKING:\n    from kvdesk.errors import EngineError\n"
        "else:\n    import numpy as np\n"
        "from . import plan\n"
        "try:\n    import a.b\nexcept ImportError:\n    pass\n"
        "class C:\n    async def f(self):\n        from kvdesk.backend import engine\n"
        "        return __import__('pynvml')\n"
    )
    seen = {(one.target, one.in_function, one.for_types_only) for one in imports_of("kvdesk.backend.x", source)}
    assert seen == {
        ("__future__.annotations", False, False),
        ("typing.TYPE_CHECKING", False, False),
        ("kvdesk.errors.EngineError", False, True),
        ("numpy", False, False),
        ("kvdesk.backend.plan", False, False),
        ("a.b", False, False),
        ("kvdesk.backend.engine", True, False),
        ("pynvml", True, False),
    }


def test_modules_are_imported_in_one_direction(imports: list[Import]) -> None:
    modules = frozenset(map(module_name, _files()))
    assert cycle_in(edges(imports, modules, lazy=False)) == []


def test_no_lazy_import_closes_a_cycle(imports: list[Import]) -> None:
    modules = frozenset(map(module_name, _files()))
    graph = edges(imports, modules, lazy=True)
    assert cycle_in(graph) == []


def test_a_cycle_would_be_noticed() -> None:
    modules = frozenset({"kvdesk.a", "kvdesk.b", "kvdesk.c"})
    ring = imports_of("kvdesk.a", "from kvdesk import b\n") + imports_of("kvdesk.b", "import kvdesk.c\n")
    assert cycle_in(edges(ring, modules, lazy=False)) == []
    ring += imports_of("kvdesk.c", "def f():\n    from kvdesk.a import name\n")
    assert cycle_in(edges(ring, modules, lazy=False)) == []
    assert cycle_in(edges(ring, modules, lazy=True)) == ["kvdesk.a", "kvdesk.b", "kvdesk.c", "kvdesk.a"]


def test_the_house_has_few_packages() -> None:
    """At most 12 in backend and 8 in ui, so that a newcomer sees the whole at a glance."""
    packages = {
        name: [p for p in (ROOT / PACKAGE / name).iterdir() if (p / "__init__.py").exists()]
        for name in ("backend", "ui")
    }
    assert len(packages["backend"]) <= 12
    assert len(packages["ui"]) <= 8


def test_every_module_says_what_it_is_for() -> None:
    """1 to 4 lines, as docs/ARCHITECTURE.md asks; errors.py draws its tree."""
    lengths = {
        module_name(path): len((ast.get_docstring(ast.parse(path.read_text("utf-8"))) or "").splitlines())
        for path in _files()
    }
    drawn = {"kvdesk.errors"}
    assert {name: n for name, n in lengths.items() if not 1 <= n <= 6 and name not in drawn} == {}


def test_no_module_has_a_name_that_says_nothing() -> None:
    parts = {part for path in _files() for part in path.relative_to(ROOT).with_suffix("").parts}
    assert parts & FORBIDDEN_NAMES == set()


HEAVY = ("PySide6", "pyqtgraph", "numpy", "llama_cpp", "sqlite3")
HELP = "import sys\nfrom kvdesk import cli\ntry:\n    cli.main([{command!r}, '--help'])\nexcept SystemExit as end:\n    assert not end.code\n"


@pytest.mark.parametrize(
    ("what", "never"),
    [
        ("import kvdesk.cli", (*HEAVY, "psutil", "platformdirs")),
        (HELP.format(command="plan"), HEAVY),
        (HELP.format(command="chat"), HEAVY),
        (HELP.format(command="log"), HEAVY),
        (
            "import kvdesk.backend.engine.engine, kvdesk.backend.planning.pricer, kvdesk.backend.planning.planner",
            ("PySide6", "numpy", "llama_cpp"),
        ),
        ("import kvdesk.ui.shell.application", ("llama_cpp", "pyqtgraph", "numpy")),
    ],
    ids=["cli", "plan --help", "chat --help", "log --help", "engine and planner", "the window before its first paint"],
)
def test_what_really_gets_loaded(what: str, never: tuple[str, ...]) -> None:
    script = (
        f"{what}\nimport json, sys\nprint()\nprint(json.dumps([name for name in {never!r} if name in sys.modules]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == []


def test_every_controller_has_tests_of_its_own() -> None:
    modules = {path.stem for path in (ROOT / PACKAGE / "ui" / "controllers").glob("*.py")} - {"__init__"}
    tested = {path.stem.removeprefix("test_") for path in (ROOT / "tests" / "ui" / "controllers").glob("test_*.py")}
    assert modules == tested


def test_no_file_is_too_long_to_be_read_in_one_go() -> None:
    files = [path for folder in (PACKAGE, "tools", "packaging") for path in (ROOT / folder).rglob("*.py")]
    lengths = {str(path.relative_to(ROOT)): len(path.read_text("utf-8").splitlines()) for path in files}
    assert len(lengths) > 200
    assert {name: length for name, length in lengths.items() if length > LONGEST_FILE} == {}
