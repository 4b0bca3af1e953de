"""A network worker in the window: its memory is in the chart and in the log as soon as the model is loaded; its end is said."""

from __future__ import annotations

from pathlib import Path

import pytest

from kvdesk import paths
from kvdesk.backend.session_log.reader import open_session, session_files
from tests.end2end.conftest import StartApp
from tests.end2end.test_network_worker import running_worker
from tests.tiny_models import write_tiny


@pytest.mark.logs("lost the network worker")
def test_a_worker_has_its_chart_its_log_and_its_end(start_app: StartApp, tmp_path: Path) -> None:
    model = write_tiny("llama", tmp_path)
    with running_worker() as (process, endpoint):
        person = start_app(model, rpc_servers=(endpoint,))
        chart = person.window.memory_dock.live_chart
        person.wait_until(lambda: set(chart.cards) == {"RAM", "RPC0"})
        assert person.ask("hello")
        held = [one for one in person.app.session.state.context.buffers if one.device == "RPC0"]
        assert sum(one.size_bytes for one in held) > 0
        person.wait_until(lambda: (person.app.monitor.held().get("RPC0") or 0) > 0)
        process.kill()
        process.wait()
        person.app.chat.send("and now?")
        person.wait_until(lambda: not person.window.crash_card.isHidden())
        assert "worker" in person.window.crash_card.sentence
    person.app.recorder.flush(5)
    (session,) = session_files(paths.sessions_dir())
    log = open_session(session)
    assert "RPC0" in {domain.name for sample in log.samples() for domain in sample.machine.domains}
