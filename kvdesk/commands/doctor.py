"""``kvdesk doctor``: what is well and what is not with kvdesk on this machine, and what to do about it.

Looks at folders, disk, display, fonts, and at what llama.cpp finds, in an engine process of its own. Changes nothing.
"""

from __future__ import annotations

import argparse
import dataclasses
from typing import TYPE_CHECKING

from kvdesk import __version__, paths
from kvdesk.terminal import say, say_json

if TYPE_CHECKING:
    from kvdesk.backend.protocol.messages import Started
    from kvdesk.backend.system.diagnosis.finding import Finding

START_S = 60.0
"""How long the engine may take to say what it runs on."""
END_S = 5.0
"""How long it may take to leave."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags."""
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument(
        "--retry-repacking",
        action="store_true",
        help="forget that repacked weights crashed the engine on this machine, and try them at the next load",
    )


def run(args: argparse.Namespace) -> int:
    """Print the facts and the findings; 1 when there is a problem, else 0."""
    import importlib.metadata

    from kvdesk.backend.settings import ModelSettings
    from kvdesk.backend.system import cpu_fallback
    from kvdesk.backend.system.diagnosis.finding import Verdict
    from kvdesk.errors import KvdeskError

    if args.retry_repacking:
        try:
            cpu_fallback.forget(paths.fallback_file())
        except OSError as error:
            raise KvdeskError(f"{paths.fallback_file()} cannot be written: {error.strerror}.") from error
    answer = _ask_engine()
    fails_here = not cpu_fallback.remembered(ModelSettings(), paths.fallback_file()).use_extra_bufts
    findings = _findings(answer, fails_here=fails_here)
    facts = {
        "kvdesk": __version__,
        "build": _build(),
        "llama_cpp_python": importlib.metadata.version("llama-cpp-python"),
        "config_dir": str(paths.config_dir()),
        "data_dir": str(paths.data_dir()),
        "cache_dir": str(paths.cache_dir()),
        "log_dir": str(paths.log_dir()),
        "repacking_fails_here": fails_here,
        **_engine_facts(answer),
        "findings": [dataclasses.asdict(finding) for finding in findings],
    }
    if args.json:
        say_json(facts, indent=2)
    else:
        _print(facts, findings)
    return int(any(finding.verdict is Verdict.PROBLEM for finding in findings))


def _ask_engine() -> Started | str:
    """What an engine process says that starts here, or how it ended instead."""
    from kvdesk.backend.processes.engine_process import worker_main
    from kvdesk.backend.protocol.messages import Started
    from kvdesk.backend.system.child_process import ChildProcess

    log_path = paths.log_dir() / "doctor.log"
    process = ChildProcess(worker_main, "kvdesk engine", str(log_path), {})
    try:
        answer = process.connection.recv() if process.connection.poll(START_S) else None
    except EOFError:
        process.wait(END_S)
        return f"its process ended with code {process.exit_code}; its log is {log_path}"
    finally:
        process.end(END_S)  # with its pipe
    return answer if isinstance(answer, Started) else f"it said nothing for {START_S:.0f} s; its log is {log_path}"


def _findings(answer: Started | str, *, fails_here: bool) -> list[Finding]:
    from kvdesk.backend.system.diagnosis import acceleration, desktop, storage
    from kvdesk.backend.system.diagnosis.finding import problem
    from kvdesk.backend.system.graphics_cards import graphics_cards

    folders = {
        "settings": paths.config_dir(),
        "conversations": paths.data_dir(),
        "cache": paths.cache_dir(),
        "logs": paths.log_dir(),
    }
    found = [storage.check_folder(subject, folder) for subject, folder in folders.items()]
    if sentence := paths.problem():
        said = sentence.removesuffix(paths.FOLDER_ADVICE).rstrip(" .")
        found.append(problem("folders", said, paths.FOLDER_ADVICE.rstrip(".")))
    found += [storage.check_disk("disk", paths.data_dir())]
    found += [desktop.check_display(), desktop.check_libraries(), desktop.check_fonts()]
    if isinstance(answer, str):
        advice = "look into that log; if a file is missing, install kvdesk again"
        return [*found, problem("engine", f"it does not start: {answer}", advice)]
    found += acceleration.check_backends(answer.backends)
    found += acceleration.check_devices(answer.devices)
    found += acceleration.check_cards(graphics_cards(), answer.backends, answer.devices)
    return [*found, acceleration.check_repacking(fails_here)]


def _engine_facts(answer: Started | str) -> dict[str, object]:
    if isinstance(answer, str):
        return {"system_info": None, "cpu_variant": None, "backends": [], "devices": []}
    return {
        "system_info": answer.system_info.strip(),
        "cpu_variant": next((b.variant for b in answer.backends if b.name == "CPU"), "") or None,
        "backends": [dataclasses.asdict(backend) for backend in answer.backends],
        "devices": [dataclasses.asdict(device) for device in answer.devices],
    }


def _build() -> str:
    """How this kvdesk came here, and for which system."""
    import platform

    kind = "package" if paths.is_frozen() else "Python"
    return f"{kind} {platform.python_version()}, {platform.system()} {platform.release()}, {platform.machine()}"


def _print(facts: dict[str, object], findings: list[Finding]) -> None:
    signs = {"fine": "  ", "note": "! ", "problem": "X "}
    say(f"kvdesk {facts['kvdesk']} ({facts['build']}), llama-cpp-python {facts['llama_cpp_python']}")
    if facts["system_info"]:
        say(f"{facts['system_info']}")
    say()
    width = max(len(finding.subject) for finding in findings)
    for finding in findings:
        say(f"{signs[finding.verdict]}{finding.subject:{width}}  {finding.text}")
        if finding.advice:
            say(f"  {'':{width}}  -> {finding.advice}")
    counts = [sum(finding.verdict == verdict for finding in findings) for verdict in ("problem", "note")]
    say(f"\n{counts[0]} problems (X), {counts[1]} notes (!)" if any(counts) else "\nAll is well.")
