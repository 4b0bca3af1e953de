"""No answer changes because the context grew: rotation that depends on its length, positions that end, shared cells."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from kvdesk.backend.gguf.model_file import read_model_file
from kvdesk.backend.llama import library
from kvdesk.backend.llama.abort_flag import AbortFlag
from kvdesk.backend.llama.kv.conversation_cells import ConversationCells
from kvdesk.backend.llama.model import Model
from kvdesk.backend.planning.calibration import Calibration
from kvdesk.backend.planning.pricer import Pricer
from kvdesk.backend.protocol import messages as m
from kvdesk.backend.protocol.facts import StopReason
from kvdesk.backend.sampling import SamplingSettings
from kvdesk.backend.settings import ContextSettings, EngineSettings, ModelSettings
from tests.engine.harness import Desk
from tests.tiny_models import CHATML, write_tiny

LONG = SamplingSettings(temperature=0.0, max_tokens=400)
ENDLESS = SamplingSettings(temperature=0.0, max_tokens=0)
GROWING = ContextSettings(n_ctx=2048, initial_ctx=256, n_threads=1)
AT_ONCE = replace(GROWING, allocation="reserve")
ASKED = ("Once upon a time there was a king",)


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    with Desk(tmp_path) as desk:
        yield desk


@pytest.fixture
def rotated(tmp_path: Path) -> Path:
    """A model that rotates by other factors in contexts of more than 512 tokens."""
    original = {"rope__scaling__original_context_length": 512}
    return write_tiny("phi3", tmp_path, n_ctx_train=4096, long_rope=8.0, chat_template=CHATML, **original)


def test_the_factors_matter(desk: Desk, rotated: Path) -> None:
    """Or the other tests would show nothing."""
    texts = []
    for n_ctx in (512, 1024):
        desk.load(rotated, replace(AT_ONCE, n_ctx=n_ctx))
        texts.append(desk.answer(*ASKED, sampling=LONG)[0])
    assert texts[0] != texts[1]


def test_a_growing_context_begins_beyond_the_length_where_the_rotation_changes(desk: Desk, rotated: Path) -> None:
    loaded = desk.load(rotated, GROWING)
    assert loaded.context.n_ctx == 768
    grown, stats = desk.answer(*ASKED, sampling=replace(LONG, max_tokens=900))
    assert stats.completion_tokens == 900
    desk.load(rotated, AT_ONCE)
    assert desk.answer(*ASKED, sampling=replace(LONG, max_tokens=900))[0] == grown


def test_within_that_length_it_begins_as_small_as_asked(desk: Desk, rotated: Path) -> None:
    assert desk.load(rotated, replace(GROWING, n_ctx=512)).context.n_ctx == 256
    grown, _ = desk.answer(*ASKED, sampling=LONG)
    desk.load(rotated, replace(AT_ONCE, n_ctx=512))
    assert desk.answer(*ASKED, sampling=LONG)[0] == grown


@pytest.mark.parametrize("type_k", ["f16", "q8_0"])
def test_a_longer_context_across_that_length_reads_the_conversation_again(
    desk: Desk, rotated: Path, type_k: str
) -> None:
    desk.load(rotated, replace(GROWING, n_ctx=512))
    first, _ = desk.answer(*ASKED)
    after = replace(AT_ONCE, type_k=type_k, flash_attn="on")
    desk.engine.send(m.SetContext(after))
    assert desk.until(m.ContextMade).context.how == "reread"
    history = (*ASKED, first, "and then?")
    changed, stats = desk.answer(*history)
    assert stats.reused_tokens > 16
    desk.load(rotated, after)
    assert desk.answer(*history)[0] == changed


def test_growing_past_the_limit_across_that_length_says_so_and_reads_all_again(rotated: Path) -> None:
    library.start()
    model = Model(str(rotated), ModelSettings(), positions=read_model_file(rotated).positions)
    tokens = [300 + n % 150 for n in range(540)]
    said: list[tuple[int, int, str]] = []

    def ask(_at: int, from_cells: int, to_cells: int, failed: str) -> m.GrowAnswer:
        said.append((from_cells, to_cells, failed))
        return m.GrowAnswer("grow")

    logits: list[bytes] = []
    for n_ctx in (512, 1024):
        cells = ConversationCells(model, replace(AT_ONCE, n_ctx=n_ctx), AbortFlag())
        cells.asks_at_limit = True
        cells.feed(tokens[:500], ask)
        cells.feed(tokens[500:], ask, logits=True)
        assert cells.tokens == tokens
        logits.append(cells.context.logits())
        cells.close()
    model.close()
    assert [one[:2] for one in said] == [(512, 1024)]
    assert "reads the whole conversation again" in said[0][2]
    assert logits[0] == logits[1]


@pytest.mark.parametrize("architecture", ["gpt2", "starcoder"])
def test_a_context_ends_where_learned_positions_do(desk: Desk, tmp_path: Path, architecture: str) -> None:
    loaded = desk.load(write_tiny(architecture, tmp_path, n_ctx_train=500, chat_template=CHATML), GROWING)
    assert loaded.context.n_ctx_limit == 500
    _, stats = desk.answer(*ASKED, sampling=ENDLESS)
    assert stats.stop_reason is StopReason.CONTEXT_FULL
    assert stats.prompt_tokens + stats.completion_tokens == 501
    _, stats = desk.answer(*ASKED, sampling=replace(LONG, max_tokens=600), overflow="rolling", conversation_id="d")
    assert stats.completion_tokens == 600


def test_the_plan_has_no_longer_a_context_than_there_are_positions(tmp_path: Path) -> None:
    file = read_model_file(write_tiny("gpt2", tmp_path, n_ctx_train=500))
    with Pricer(file, Calibration(tmp_path / "none.json")) as pricer:
        plan = pricer.plan(EngineSettings(context=replace(GROWING, n_ctx=8192, n_seq_max=2)), ())
        assert (plan.n_ctx, plan.n_ctx_seq) == (1024, 512)
        assert plan.warnings[-1] == "The model knows 500 positions and no more: that is its longest context."
        plain = ModelSettings(use_extra_bufts=False)
        assert not pricer.plan(EngineSettings(plain, replace(GROWING, n_ctx=500)), ()).warnings


def test_growth_is_priced_for_every_sequence(tmp_path: Path) -> None:
    with Pricer(read_model_file(write_tiny("llama", tmp_path)), Calibration(tmp_path / "none.json")) as pricer:
        settings = EngineSettings(context=replace(GROWING, n_seq_max=2))
        cost = pricer.growth(settings, 256, 512, 0, ())
        whole = pricer.plan(EngineSettings(context=replace(GROWING, n_ctx=1024, n_seq_max=2)), ())
        assert cost.total_bytes["RAM"] == whole.total_bytes


@pytest.mark.parametrize("allocation", ["grow", "reserve"])
def test_a_conversation_ends_with_its_share_of_the_context(desk: Desk, tmp_path: Path, allocation: str) -> None:
    context = replace(GROWING, n_ctx=1024, n_seq_max=2, allocation=allocation)
    loaded = desk.load(write_tiny("llama", tmp_path), context)
    assert loaded.context.n_ctx_limit == 512
    _, stats = desk.answer(*ASKED, sampling=ENDLESS)
    assert stats.stop_reason is StopReason.CONTEXT_FULL
    assert stats.prompt_tokens + stats.completion_tokens == 513
