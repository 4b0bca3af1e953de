"""The command line: ``kvdesk [MODEL]`` opens the window; the commands work without Qt.

Imports a package only when asked for it. Exit codes: 0 done, 1 failed (engine, model), 2 usage.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import signal
from collections.abc import Generator, Sequence
from typing import Any

from kvdesk import __version__, paths
from kvdesk.errors import KvdeskError, UsageError
from kvdesk.terminal import say_beside

COMMANDS = {
    "plan": ("kvdesk.commands.plan", "what a model needs, before it is loaded"),
    "chat": ("kvdesk.commands.chat", "chat in the terminal"),
    "template": (
        "kvdesk.commands.template",
        "the prompt that a model's chat template makes, and what was learned of it",
    ),
    "models": (
        "kvdesk.commands.models",
        "the models on this machine and on the Hugging Face hub, and whether they fit",
    ),
    "profile": ("kvdesk.commands.profile", "memory and speed against context length, measured here"),
    "log": ("kvdesk.commands.log", "the recorded memory of past sessions"),
    "doctor": ("kvdesk.commands.doctor", "where things are kept, and what this machine cannot do"),
    "worker": ("kvdesk.commands.worker", "lend this machine's memory to another one (llama.cpp RPC)"),
}
"""Command -> the module with its ``add_arguments(parser)`` and ``run(args) -> int``, and its help."""


class Ended(KeyboardInterrupt):
    """The system asks the command to end: it does so as after Ctrl+C."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


@contextlib.contextmanager
def _ended_by_signals() -> Generator[None]:
    before: dict[int, Any] = {}
    with contextlib.suppress(AttributeError, ValueError):  # Windows has no SIGHUP; ValueError: not the main thread
        for number in (signal.SIGTERM, signal.SIGHUP):
            before[number] = signal.signal(number, _end)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _end(number: int, _frame: object) -> None:
    signal.signal(number, signal.SIG_DFL)  # a second one ends it at once
    raise Ended(number)


def main(argv: Sequence[str]) -> int:
    """Run the command in ``argv``; returns the exit code."""
    arguments = list(argv)
    if arguments and arguments[0] in COMMANDS:
        return _run_command(arguments[0], arguments[1:])
    parser = argparse.ArgumentParser(
        prog="kvdesk",
        description="Desktop chat over llama.cpp that shows, live, where the memory goes.",
        epilog="Commands: " + "; ".join(f"{name} - {text}" for name, (_, text) in COMMANDS.items()),
    )
    parser.add_argument("model", nargs="?", help="a GGUF file to open (of a split model: its first part)")
    parser.add_argument("--version", action="version", version=f"kvdesk {__version__}")
    parser.add_argument("--rpc", action="append", default=[], metavar="HOST:PORT", help="use a network worker")
    parser.add_argument("--demo", metavar="QUESTION", help="ask this, print the answer, save a screenshot, and leave")
    parser.add_argument("--screenshot", metavar="FILE", help="where --demo saves it")
    args = parser.parse_args(arguments)
    from kvdesk.ui.shell import start

    return start.run(args.model, rpc_servers=tuple(args.rpc), question=args.demo, screenshot=args.screenshot)


def _run_command(name: str, arguments: Sequence[str]) -> int:
    module = importlib.import_module(COMMANDS[name][0])
    parser = argparse.ArgumentParser(prog=f"kvdesk {name}", description=COMMANDS[name][1])
    module.add_arguments(parser)
    args = parser.parse_args(arguments)
    if problem := paths.problem():
        say_beside(f"kvdesk {name}: {problem}")
    try:
        with _ended_by_signals():
            return int(module.run(args))
    except UsageError as error:
        say_beside(f"kvdesk {name}: {error}")
        return 2
    except KvdeskError as error:
        say_beside(f"kvdesk {name}: {error}")
        return 1
    except Ended as ended:
        return 128 + ended.number
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        return 1
