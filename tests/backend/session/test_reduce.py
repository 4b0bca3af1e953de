"""backend/session/state.py: what is in force, what is pending, and what there is to go back to."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from kvdesk.backend.engine.engine_event import Died, EngineState, FellBack, StateChanged
from kvdesk.backend.gguf.model_file import ModelFile, read_model_file
from kvdesk.backend.planning import plan_event as p
from kvdesk.backend.protocol import messages as m
from kvdesk.backend.protocol.facts import ContextFacts, Device, GrowStep, KvState, ModelFacts
from kvdesk.backend.session.reduce import reduce
from kvdesk.backend.session.session_event import (
    AskEnded,
    ContextBegun,
    LoadAsked,
    LoadBegun,
    ReplyBegun,
    SessionEvent,
    SettingsChosen,
)
from kvdesk.backend.session.state import Choice, Reply, SessionState
from kvdesk.backend.settings import ContextSettings, EngineSettings, ModelSettings
from kvdesk.errors import EngineDied
from tests.fakes import memory_pictures as pictures
from tests.tiny_models import write_tiny

EMPTY = SessionState()
KV = KvState(0, 512, 0, 4096)
SMALL = EngineSettings(context=ContextSettings(n_ctx=512))
LARGE = EngineSettings(context=ContextSettings(n_ctx=2048))


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> ModelFile:
    return read_model_file(write_tiny("llama", tmp_path_factory.mktemp("models")))


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> ModelFile:
    return read_model_file(write_tiny("gemma3", tmp_path_factory.mktemp("models")))


def facts(settings: EngineSettings, how: str = "new") -> ContextFacts:
    n_ctx = settings.context.n_ctx
    return ContextFacts(settings.context, n_ctx, n_ctx, True, (), (), KV, how, 0, 1.0)


def loaded(choice: Choice) -> m.Loaded:
    assert choice.file
    model = ModelFacts(str(choice.file.path), choice.file.name, "llama", "", 1, 1, 1, 512, 32, has_chat_template=True)
    return m.Loaded(model, facts(choice.settings), 1.0)


def after(state: SessionState, *events: SessionEvent) -> SessionState:
    for event in events:
        state = reduce(state, event)
    return state


def running(choice: Choice) -> SessionState:
    return after(EMPTY, LoadBegun(choice), loaded(choice))


def failed(*, model_kept: bool, request_id: int = 0) -> m.Failed:
    return m.Failed("ContextFailed", "It failed.", request_id, model_kept=model_kept)


def test_a_load_is_pending_until_it_is_there(file: ModelFile) -> None:
    choice = Choice(file, SMALL)
    state = after(EMPTY, LoadBegun(choice))
    assert state.target == choice
    assert state.in_force.file is None
    assert state.is_loading
    assert not state.can_answer
    state = after(state, loaded(choice))
    assert state.in_force == choice
    assert not state.pending
    assert state.can_answer


def test_settings_that_the_engine_adapted_are_in_force(file: ModelFile) -> None:
    choice = Choice(file, LARGE)
    adapted = facts(SMALL)
    state = after(EMPTY, LoadBegun(choice), replace(loaded(choice), context=adapted))
    assert state.settings.context == adapted.settings


def test_a_change_that_fails_goes_back_to_what_was_in_force(file: ModelFile) -> None:
    state = running(Choice(file, SMALL))
    changing = after(state, ContextBegun(LARGE.context))
    assert changing.settings == LARGE
    back = after(changing, failed(model_kept=True))
    assert back.target == state.target
    assert back.can_answer


def test_a_failure_after_a_change_that_worked_takes_nothing_back(file: ModelFile, other: ModelFile) -> None:
    """A copy of "what was before" that was never cleared brought the older model's name back."""
    state = after(running(Choice(file, SMALL)), LoadBegun(Choice(other, LARGE)), loaded(Choice(other, LARGE)))
    state = after(state, failed(model_kept=True))
    assert state.target == Choice(other, LARGE)


def test_a_load_that_loses_the_model_leaves_the_settings(file: ModelFile, other: ModelFile) -> None:
    state = after(running(Choice(file, SMALL)), LoadBegun(Choice(other, LARGE)), failed(model_kept=False))
    assert state.file is None
    assert state.context is None
    assert state.settings == SMALL


def test_of_two_loads_each_ends_in_its_own_turn(file: ModelFile, other: ModelFile) -> None:
    first, second = Choice(file, SMALL), Choice(other, LARGE)
    state = after(EMPTY, LoadBegun(first), LoadBegun(second))
    assert state.target == second
    state = after(state, loaded(first))
    assert (state.in_force, state.target) == (first, second)
    assert not state.can_answer
    assert after(state, loaded(second)).in_force == second


def test_an_unload_before_the_next_load_keeps_that_one_pending(file: ModelFile, other: ModelFile) -> None:
    state = after(running(Choice(file, SMALL)), LoadBegun(Choice(other, LARGE)), m.Unloaded())
    assert state.target.file == other
    assert state.model is None


def test_a_death_names_what_can_be_loaded_again(file: ModelFile, other: ModelFile) -> None:
    died = Died(EngineDied("It died.", exit_code=-9), EngineState.LOADING, 0, Path("engine.log"))
    state = after(running(Choice(file, SMALL)), LoadBegun(Choice(other, LARGE)), died)
    assert state.target == Choice(other, LARGE)
    assert state.failure is died
    assert state.context is None
    assert not state.can_answer
    assert after(state, LoadBegun(state.target), loaded(state.target)).failure is None


CARD = Device("CUDA0", "NVIDIA H100", "gpu", 8 * 2**30, 8 * 2**30)
CRASHED = EngineDied("It crashed.", exit_code=-11, signal_name="SIGSEGV")


@pytest.mark.parametrize(
    ("error", "devices", "n_gpu_layers", "may_be"),
    [
        (CRASHED, (CARD,), -1, True),
        (CRASHED, (CARD,), 0, False),
        (CRASHED, (), -1, False),
        (EngineDied("No memory.", exit_code=-6, signal_name="SIGABRT", is_out_of_memory=True), (CARD,), -1, False),
        (EngineDied("Killed.", exit_code=-9, signal_name="SIGKILL"), (CARD,), -1, False),
    ],
)
def test_a_crash_with_a_card_in_use_may_be_the_cards_fault(
    file: ModelFile, error: EngineDied, devices: tuple[Device, ...], n_gpu_layers: int, may_be: bool
) -> None:
    """Seen on an H100: a backend that crashed at every load, and no way to go on but to know the setting."""
    settings = EngineSettings(ModelSettings(n_gpu_layers=n_gpu_layers))
    begun = after(SessionState(devices=devices), LoadBegun(Choice(file, settings)))
    assert not begun.may_be_a_gpus_fault
    died = reduce(begun, Died(error, EngineState.LOADING, 0, Path("engine.log")))
    assert died.may_be_a_gpus_fault is may_be


def test_a_fall_back_changes_what_is_being_loaded(file: ModelFile) -> None:
    plain = replace(SMALL, model=ModelSettings(use_extra_bufts=False))
    error = EngineDied("It died.", exit_code=-11)
    state = after(EMPTY, LoadBegun(Choice(file, SMALL)), FellBack(plain, error), loaded(Choice(file, plain)))
    assert state.in_force == Choice(file, plain)


def test_a_stopped_process_has_no_model_but_keeps_the_load_it_made_way_for(file: ModelFile, other: ModelFile) -> None:
    stopped = StateChanged(EngineState.READY, EngineState.STOPPED, None)
    state = after(running(Choice(file, SMALL)), LoadBegun(Choice(other, LARGE)), stopped)
    assert state.model is None
    assert state.target == Choice(other, LARGE)


def test_cells_follow_every_event_that_tells_them(file: ModelFile) -> None:
    kv = KvState(7, 512, 56, 4096)
    state = after(running(Choice(file, SMALL)), m.KvChanged(kv))
    assert state.context
    assert state.context.kv == kv
    grown = facts(SMALL)
    state = after(state, m.Grown(GrowStep(7, 256, 512, 1.0), grown))
    assert state.context == grown


def test_a_growth_question_ends_with_its_reply_alone(file: ModelFile) -> None:
    wanted = m.GrowWanted(7, 511, 512, 1024, SMALL.context)
    state = after(running(Choice(file, SMALL)), ReplyBegun(Reply(7, "ask")), wanted)
    assert after(state, failed(model_kept=True, request_id=-3)).growth
    assert after(state, failed(model_kept=True)).growth
    assert after(state, failed(model_kept=True, request_id=7)).growth is None


def test_a_price_belongs_to_what_it_was_asked_for(file: ModelFile) -> None:
    plan = replace(pictures.plan(), settings=LARGE)
    choice = Choice(file, LARGE)
    state = after(EMPTY, LoadAsked(choice, 3))
    assert after(state, p.PlanReady(2, file.path, file, plan, is_final=True)).asked == state.asked
    assert after(state, p.PlanReady(3, file.path, file, plan, is_final=False)).asked == state.asked
    priced = after(state, p.PlanReady(3, file.path, file, plan, is_final=True))
    assert priced.asked
    assert priced.asked.plan is plan
    assert after(priced, LoadBegun(choice)).predicted is plan
    assert after(priced, LoadBegun(Choice(file, SMALL))).predicted is None
    assert after(priced, AskEnded()).asked is None


def test_what_is_in_force_has_a_prediction_of_its_own(file: ModelFile, other: ModelFile) -> None:
    state = running(Choice(file, SMALL))
    fitting, strange = (replace(pictures.plan(), settings=settings) for settings in (SMALL, LARGE))
    assert after(state, p.PlanReady(9, file.path, file, strange, is_final=True)).predicted is None
    assert after(state, p.PlanReady(9, other.path, other, fitting, is_final=True)).predicted is None
    state = after(state, p.PlanReady(9, file.path, file, fitting, is_final=True))
    assert state.predicted is fitting
    assert after(state, ContextBegun(LARGE.context)).predicted is None


def test_a_price_without_repacked_weights_stands_for_the_settings_it_was_asked_for(file: ModelFile) -> None:
    """The planner's own try of them may fail where the engine's works."""
    plain = replace(SMALL, model=replace(SMALL.model, use_extra_bufts=False))
    repacked = replace(SMALL, model=replace(SMALL.model, use_extra_bufts=True))
    priced = replace(pictures.plan(), settings=plain)
    ready = p.PlanReady(9, file.path, file, priced, is_final=True)
    assert after(running(Choice(file, repacked)), ready).predicted is priced
    other_way = replace(pictures.plan(), settings=repacked)
    assert after(running(Choice(file, plain)), replace(ready, plan=other_way)).predicted is None


def test_settings_without_a_model_are_for_the_next() -> None:
    assert after(EMPTY, SettingsChosen(LARGE)).settings == LARGE


def test_an_event_that_says_nothing_gives_the_same_object_back() -> None:
    assert reduce(EMPTY, m.TokensCounted(-1, 3)) is EMPTY
    assert reduce(EMPTY, m.PromptProgress(1, 1, 2, 0)) is EMPTY


def test_a_load_is_fresh_until_something_was_done_with_it(file: ModelFile) -> None:
    """Overheads are learned of fresh loads alone."""
    state = running(Choice(file))
    assert state.is_fresh
    context = facts(state.settings)
    assert not after(state, m.ContextMade(context)).is_fresh
    assert not after(state, m.Grown(GrowStep(1, 256, 512, 1.0), context)).is_fresh
