"""Exports of recorded sessions, read back the way their readers do."""

from __future__ import annotations

import csv
import io
import json
import math
import time
from pathlib import Path

import pytest

from kvdesk.backend.protocol.facts import KvState
from kvdesk.backend.session_log.export import CSV_COLUMNS, CSV_DOMAIN_COLUMNS, FORMATS, export, write_csv
from kvdesk.backend.session_log.reader import Session, open_session
from kvdesk.backend.session_log.report import report
from kvdesk.backend.settings import AUTOMATIC_MARGIN
from kvdesk.backend.system.samples import DomainReading, MachineReading, Sample
from kvdesk.errors import StoreError, UsageError
from tests.fakes.made_up_session import recorded, recording, sample

GIB = 1024**3
EVIL = [
    "=1+1",
    "+1",
    "-1",
    "@SUM(A1)",
    "\t=1",
    "\r=1",
    "\n=1",
    "  =1",
    "＝1",
    '"=1',
    "a;=1",
    'x",=1',
    "\x00=1",
    "\u2028=1",
]


@pytest.fixture
def session(tmp_path: Path) -> Session:
    return open_session(recorded(tmp_path / "sessions", 20))


def exported(session: Session, kind: str, folder: Path) -> str:
    path = folder / f"log.{kind}"
    export(session, kind, path)
    return path.read_bytes().decode()


def csv_rows(session: Session, folder: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(exported(session, "csv", folder), newline="")))


def with_event(folder: Path, text: str, values: dict[str, object] | None = None) -> Session:
    with recording(folder) as recorder:
        recorder.event("warning", text, values)
        recorder.sample(sample(0))
    return open_session(recorder.path)


def test_csv_has_the_documented_columns_and_a_row_for_every_sample_and_event(session: Session, tmp_path: Path) -> None:
    rows = csv_rows(session, tmp_path)
    assert list(rows[0]) == [
        *CSV_COLUMNS,
        *(f"{domain}_{column}" for domain in ("ram", "cuda0") for column in CSV_DOMAIN_COLUMNS),
    ]
    documented = (Path(__file__).parents[3] / "docs/MEMORY_LOG.md").read_text()
    assert [column for column in (*CSV_COLUMNS, *CSV_DOMAIN_COLUMNS) if f"`{column}`" not in documented] == []
    samples = [row for row in rows if not row["event"]]
    assert len(samples) == 20
    assert [row["event"] for row in rows if row["event"]] == ["start", "load", "grow", "exit"]
    assert None not in rows[0]  # no cell without a column


def test_csv_figures_are_the_samples_own(session: Session, tmp_path: Path) -> None:
    row, one = [row for row in csv_rows(session, tmp_path) if not row["event"]][7], sample(7)
    ram = one.domain("RAM")
    assert ram is not None
    assert row["time_utc"] == "2023-11-14 22:13:23.500"
    assert float(row["time_s"]) == one.time_s
    assert int(row["kv_cells_used"]) == 7
    assert row["tokens_per_second"] == "20.5"
    for column in ("capacity_bytes", "available_bytes", "engine_bytes", "others_bytes", "ceiling_bytes", "used_bytes"):
        assert int(row[f"ram_{column}"]) == getattr(ram, column)
    assert int(row["ram_oom_line_bytes"]) == ram.oom_line(GIB)
    assert int(row["ram_predicted_bytes"]) == 2 * GIB
    assert row["ram_engine_source"] == "kernel counters"
    assert row["cuda0_engine_file_bytes"] == ""


def test_unknown_is_an_empty_cell_and_zero_is_a_zero(tmp_path: Path) -> None:
    ram = DomainReading("RAM", "ram", None, 0, None)
    with recording(tmp_path) as recorder:
        recorder.sample(Sample(1.0, 2.0, MachineReading((ram,)), kv=KvState(0, 256, 0, 100)))
        recorder.sample(Sample(1.5, 2.5))
    first, second = [row for row in csv_rows(open_session(recorder.path), tmp_path) if not row["event"]]
    assert (first["ram_capacity_bytes"], first["ram_available_bytes"], first["kv_cells_used"]) == ("", "0", "0")
    assert (second["ram_available_bytes"], second["kv_cells_used"], second["state"]) == ("", "", "")


@pytest.mark.parametrize("text", EVIL)
def test_no_text_becomes_a_formula_or_leaves_its_cell(tmp_path: Path, text: str) -> None:
    rows = csv_rows(with_event(tmp_path, text, {"path": text}), tmp_path)
    row = next(row for row in rows if row["event"] == "warning")
    for column in ("event_text", "event_values"):
        assert row[column].lstrip()[0] not in "=+-@＝＋－＠\t\r\n"
    assert json.loads(row["event_values"]) == {"path": text}
    lines = exported(open_session(next(tmp_path.glob("*.sqlite3"))), "csv", tmp_path).split("\r\n")
    assert len(lines) == len(rows) + 2  # the head, and nothing after the last line end
    assert all(line.count('"') % 2 == 0 for line in lines)


def test_csv_is_plain_ascii_unless_a_text_is_not_and_then_says_so_to_spreadsheets(tmp_path: Path) -> None:
    plain = exported(with_event(tmp_path / "a", "gemma"), "csv", tmp_path)
    assert plain.startswith("time_utc,")
    other = exported(with_event(tmp_path / "b", "模型 ☃"), "csv", tmp_path)
    assert other.startswith("\ufefftime_utc,")
    assert "模型 ☃" in other


def test_domains_whose_names_look_alike_as_columns_keep_their_own(tmp_path: Path) -> None:
    names = ["RPC0[127.0.0.1:50052]", "RPC0[127.0.0.1.50052]", "=cmd|'/c calc'!A1"]
    domains = tuple(DomainReading(name, "rpc", index, 0) for index, name in enumerate(names))
    with recording(tmp_path) as recorder:
        recorder.sample(Sample(1.0, 2.0, MachineReading(domains)))
    row = next(row for row in csv_rows(open_session(recorder.path), tmp_path) if not row["event"])
    assert row["rpc0_127_0_0_1_50052_capacity_bytes"] == "0"
    assert row["rpc0_127_0_0_1_50052_2_capacity_bytes"] == "1"
    assert row["cmd_c_calc_a1_capacity_bytes"] == "2"


def test_jsonl_loses_nothing(session: Session, tmp_path: Path) -> None:
    head, *rows = [json.loads(line) for line in exported(session, "jsonl", tmp_path).splitlines()]
    assert head["type"] == "session"
    assert head["details"] == {"llama-cpp-python": "0.3.36"}
    assert [row["event"] for row in rows if row["type"] == "event"] == ["start", "load", "grow", "exit"]
    rebuilt = [
        Sample(
            row["time_s"],
            row["monotonic_s"],
            MachineReading(
                tuple(
                    DomainReading(
                        one["name"],
                        one["kind"],
                        one["capacity_bytes"],
                        one["available_bytes"],
                        one["engine_bytes"],
                        one["engine_anonymous_bytes"],
                        one["engine_file_bytes"],
                        one["engine_source"],
                    )
                    for one in row["domains"]
                ),
                row["swap_total_bytes"],
                row["swap_used_bytes"],
                row["engine_swap_bytes"],
                row["engine_peak_bytes"],
                row["cgroup_peak_bytes"],
            ),
            row["engine_pid"],
            KvState(**row["kv"]),
            row["tokens_per_second"],
            row["state"],
            tuple(row["predicted_bytes"].items()),
            AUTOMATIC_MARGIN if row["margin_bytes"] is None else row["margin_bytes"],
        )
        for row in rows
        if row["type"] == "sample"
    ]
    assert rebuilt == list(session.samples())


@pytest.mark.parametrize("text", EVIL)
def test_jsonl_keeps_every_text_as_it_was_on_one_line(tmp_path: Path, text: str) -> None:
    lines = exported(with_event(tmp_path, text, {"not": math.nan, "much": [math.inf]}), "jsonl", tmp_path).split("\n")
    assert lines[-1] == ""

    def refuse(word: str) -> object:
        raise AssertionError(f"{word} is not JSON")

    rows = [json.loads(line, parse_constant=refuse) for line in lines[:-1]]
    event = next(row for row in rows if row.get("event") == "warning")
    assert event["text"] == text
    assert event["values"] == {"not": "NaN", "much": ["Infinity"]}


def test_samples_and_events_come_in_order_of_time(tmp_path: Path) -> None:
    with recording(tmp_path) as recorder:
        for name in ("a", "b"):
            recorder.event("settings", name)
            recorder.sample(Sample(0.0, time.monotonic()))
    rows = csv_rows(open_session(recorder.path), tmp_path)
    assert [row["event"] for row in rows] == ["start", "settings", "", "settings", "", "exit"]
    elapsed = [float(row["elapsed_s"]) for row in rows]
    assert elapsed == sorted(elapsed)
    assert elapsed[0] >= 0


def test_the_report_has_what_a_bug_tracker_needs(tmp_path: Path) -> None:
    with recording(tmp_path, details={"llama-cpp-python": "0.3.36"}) as recorder:
        recorder.event("load", "Loading", {"model": "gemma", "settings": {"context": {"n_ctx": 8192, "type_k": "f16"}}})
        recorder.event(
            "settings", "K is q8_0 now", {"from": {"context": {"type_k": "f16"}}, "to": {"context": {"type_k": "q8_0"}}}
        )
        component = {"domain": "RAM", "name": "kv", "predicted_bytes": 512 * 1024**2, "actual_bytes": 514 * 1024**2}
        recorder.event("predicted", "After the load", {"components": [component]})
        for i in range(300):
            recorder.sample(sample(i))
    text = report(open_session(recorder.path))
    assert "- kvdesk: `0.1.0 (window)`" in text
    assert "- llama-cpp-python: `0.3.36`" in text
    assert "- RAM: `16.0 GiB`" in text
    assert "- model: `gemma`" in text
    assert "- settings.context.n_ctx: `8192`" in text
    assert "- settings.context.type_k: `q8_0`" in text
    assert "| `RAM` | `kv` | 512 MiB | 514 MiB | +2 MiB |" in text
    last_minute = text.partition("## The last minute")[2].strip().splitlines()
    assert len(last_minute) == 2 + 13  # head, and every five seconds of the last sixty
    assert last_minute[-1].startswith("| 2023-11-14 22:15:49Z | `ready` | 299 / 8192 |")
    assert "1.0 GiB" in last_minute[-1]


def test_without_a_comparison_the_report_sets_the_prediction_beside_the_largest_use(session: Session) -> None:
    assert "| `RAM` | 2.0 GiB | 1.0 GiB |" in report(session)
    assert "| `CUDA0` | 4.0 GiB | 3.0 GiB |" in report(session)


def test_nothing_in_a_report_is_markup_that_came_from_outside(tmp_path: Path) -> None:
    evil = "`<img src=x>` | @maintainer [a](b)\n# head"
    session = with_event(tmp_path, evil, {"x": evil})
    line = next(line for line in report(session).splitlines() if "maintainer" in line)
    assert line.count(" | ") == 2
    assert line.endswith("| `'<img src=x>' ¦ @maintainer [a](b) # head` |")


def test_a_report_does_not_tell_where_the_user_lives(tmp_path: Path) -> None:
    with recording(tmp_path) as recorder:
        recorder.event("load", "Loading", {"model": "m", "path": str(Path.home() / "models" / "m.gguf")})
    text = report(open_session(recorder.path))
    assert str(Path.home()) not in text
    assert "m.gguf" in text


def test_an_empty_session_exports_too(tmp_path: Path) -> None:
    with recording(tmp_path) as recorder:
        pass
    session = open_session(recorder.path)
    for kind in FORMATS:
        assert exported(session, kind, tmp_path)
    assert len(csv_rows(session, tmp_path)) == 2


def test_a_place_that_cannot_be_written_and_a_format_that_is_none_give_a_sentence(
    session: Session, tmp_path: Path
) -> None:
    with pytest.raises(StoreError, match="cannot be written"):
        export(session, "csv", tmp_path / "missing" / "log.csv")
    with pytest.raises(UsageError, match="csv, jsonl, md"):
        export(session, "xlsx", tmp_path / "log.xlsx")


def test_a_damaged_session_says_so_in_its_report(tmp_path: Path) -> None:
    path = recorded(tmp_path, 500)
    path.write_bytes(path.read_bytes()[:40_000])
    session = open_session(path)
    assert "damaged" in report(session)
    file = io.StringIO(newline="")
    write_csv(session, file)
    assert file.getvalue().count("\r\n") == 1 + session.n_samples + len(session.events)
