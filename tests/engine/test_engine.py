"""The engine process on real tiny models: loading, chatting, reuse, stopping, dying."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from kvdesk.backend.engine.engine_event import Died, EngineState, StateChanged
from kvdesk.backend.protocol import messages as m
from kvdesk.backend.protocol.facts import ChatTurn, StopReason
from kvdesk.backend.sampling import SamplingSettings
from kvdesk.backend.settings import ContextSettings, EngineSettings
from tests.engine.harness import GREEDY, SAFE, Desk
from tests.tiny_models import write_tiny

FAMILIES = ("llama", "gemma3", "mamba", "lfm2", "qwen3moe")
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)

MARKED = "{% for m in messages %}{{ m.role }}:{{ m.content }}</s>{% endfor %}{% if add_generation_prompt %}assistant:{% endif %}"


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    with Desk(tmp_path) as desk:
        yield desk


@pytest.mark.parametrize("family", FAMILIES)
def test_a_second_turn_reads_only_what_is_new(desk: Desk, tmp_path: Path, family: str) -> None:
    desk.load(write_tiny(family, tmp_path, chat_template=MARKED))
    first, before = desk.answer("Once upon a time there was a king")
    assert before.completion_tokens == 16
    assert before.stop_reason is StopReason.LENGTH
    _, stats = desk.answer("Once upon a time there was a king", first, "and then?")
    assert stats.reused_tokens == before.prompt_tokens + 16
    assert stats.reread_tokens == 0


@pytest.mark.parametrize("family", FAMILIES)
def test_an_edited_turn_is_answered_as_if_all_were_read_anew(desk: Desk, tmp_path: Path, family: str) -> None:
    desk.load(write_tiny(family, tmp_path, chat_template=MARKED))
    history = ("Once upon a time there was a king", "who had no castle", "and then?")
    _, before = desk.answer(history[0])
    reused_text, stats = desk.answer(*history)
    assert stats.reused_tokens >= before.prompt_tokens - 1
    desk.answer("Something else entirely", conversation_id="other")
    anew_text, stats = desk.answer(*history)
    assert stats.reused_tokens < 12
    assert anew_text == reused_text


@pytest.mark.parametrize("family", FAMILIES)
def test_regenerating_rereads_almost_nothing_and_says_the_same(desk: Desk, tmp_path: Path, family: str) -> None:
    desk.load(write_tiny(family, tmp_path))
    prompt = "word " * 200
    first, before = desk.answer(prompt)
    again, stats = desk.answer(prompt)
    assert again == first
    assert stats.reused_tokens == before.prompt_tokens


@pytest.mark.parametrize("family", ["gemma3", "mamba", "lfm2"])
def test_after_a_long_reply_the_prompt_is_answered_again_without_reading_any_of_it(
    desk: Desk, tmp_path: Path, family: str
) -> None:
    """None of the three can be cut back to the prompt's last token then; the prompt's logits were kept instead."""
    desk.load(write_tiny(family, tmp_path))
    sampling = SamplingSettings(seed=7, max_tokens=700, repeat_penalty=1.3)
    first, before = desk.answer("word " * 30, sampling=sampling)
    again, stats = desk.answer("word " * 30, sampling=sampling)
    assert before.completion_tokens == stats.completion_tokens == 700
    assert again == first
    assert stats.reused_tokens == stats.prompt_tokens
    longer, stats = desk.answer("word " * 30 + "more", sampling=GREEDY)
    assert stats.reused_tokens < stats.prompt_tokens
    desk.answer("Something else", conversation_id="other")
    assert desk.answer("word " * 30 + "more", sampling=GREEDY)[0] == longer


@pytest.mark.parametrize("family", FAMILIES)
def test_growing_in_steps_changes_no_token(desk: Desk, tmp_path: Path, family: str) -> None:
    path = write_tiny(family, tmp_path)
    sampling = SamplingSettings(temperature=0.0, max_tokens=600)
    desk.load(path, ContextSettings(n_threads=1, n_ctx=2048, allocation="reserve"))
    whole, _ = desk.answer("Tell me everything", sampling=sampling)
    assert not desk.of(m.Grown)
    desk.load(path, ContextSettings(n_threads=1, n_ctx=2048, allocation="grow", initial_ctx=256))
    grown, stats = desk.answer("Tell me everything", sampling=sampling)
    steps = [event.step for event in desk.of(m.Grown)]
    assert [(s.from_cells, s.to_cells) for s in steps] == [(256, 512), (512, 1024)]
    assert stats.completion_tokens == 600
    assert grown == whole


def test_a_stop_in_a_long_prompt_keeps_what_was_read(desk: Desk, tmp_path: Path) -> None:
    path = write_tiny("llama", tmp_path)
    desk.load(path, ContextSettings(n_threads=1, n_ctx=8192, allocation="reserve", n_ubatch=64))
    desk.ask("word " * 1200)
    desk.until(m.PromptProgress)
    desk.engine.stop()
    stats = desk.until(m.TurnFinished).stats
    assert stats.stop_reason is StopReason.CANCELLED
    assert stats.completion_tokens == 0
    _, stats = desk.answer("word " * 1200, sampling=SamplingSettings(temperature=0, max_tokens=1))
    assert stats.reused_tokens >= 64


def test_a_stop_while_writing_ends_the_reply_and_the_next_one_is_sound(desk: Desk, tmp_path: Path) -> None:
    desk.load(write_tiny("gemma3", tmp_path))
    expected, _ = desk.answer("hello there")
    desk.ask("hello there", sampling=SamplingSettings(temperature=0.0, max_tokens=0))
    desk.until(m.TextGenerated)
    desk.engine.stop()
    assert desk.until(m.TurnFinished).stats.stop_reason is StopReason.CANCELLED
    assert desk.answer("hello there")[0] == expected


ENDLESS = SamplingSettings(temperature=0.0, max_tokens=0)
ROOMY = ContextSettings(n_ctx=16_384, n_threads=1, allocation="reserve")


def test_a_stop_is_not_lost_to_what_is_asked_right_after_it(desk: Desk, tmp_path: Path) -> None:
    desk.load(write_tiny("llama", tmp_path), ROOMY)
    expected, _ = desk.answer("hello there")
    for _ in range(5):
        desk.ask("tell me everything", sampling=ENDLESS)
        desk.until(m.TextGenerated)
        desk.engine.stop()
        second = desk.ask("hello there")
        assert desk.until(m.TurnFinished).stats.stop_reason is StopReason.CANCELLED
        before = len(desk.seen)
        finished = desk.until(m.TurnFinished)
        assert (finished.request_id, finished.stats.stop_reason) == (second, StopReason.LENGTH)
        assert "".join(e.text for e in desk.seen[before:] if isinstance(e, m.TextGenerated)) == expected


def test_a_second_reply_that_waited_can_be_stopped_as_well(desk: Desk, tmp_path: Path) -> None:
    desk.load(write_tiny("llama", tmp_path), ROOMY)
    desk.ask("tell me everything", sampling=ENDLESS)
    desk.until(m.TextGenerated)
    desk.engine.stop()
    second = desk.ask("tell me more", sampling=ENDLESS)
    desk.until(m.TurnFinished)
    while desk.until(m.TextGenerated).request_id != second:
        pass
    assert desk.engine.state is EngineState.GENERATING
    desk.engine.stop()
    finished = desk.until(m.TurnFinished)
    assert (finished.request_id, finished.stats.stop_reason) == (second, StopReason.CANCELLED)
    assert desk.engine.state is EngineState.READY


def test_a_stop_ends_what_waits_as_well_and_keeps_what_is_loaded(desk: Desk, tmp_path: Path) -> None:
    path = write_tiny("llama", tmp_path)
    desk.load(path, ROOMY)
    desk.ask("tell me everything", sampling=ENDLESS)
    desk.until(m.TextGenerated)
    desk.engine.load(path, EngineSettings(SAFE, ROOMY))
    desk.engine.stop()
    assert desk.until(m.TurnFinished).stats.stop_reason is StopReason.CANCELLED
    failed = desk.until(m.Failed)
    assert (failed.kind, failed.model_kept) == ("LoadCancelled", True)
    assert desk.engine.state is EngineState.READY
    assert desk.answer("hello there")[0]


def test_a_load_behind_a_reply_is_loading_until_it_is_loaded(desk: Desk, tmp_path: Path) -> None:
    path = write_tiny("llama", tmp_path)
    desk.load(path, ROOMY)
    desk.ask("tell me everything", sampling=ENDLESS)
    desk.until(m.TextGenerated)
    before = len(desk.seen)
    desk.engine.stop()
    desk.engine.load(path, EngineSettings(SAFE, ROOMY))
    desk.until(m.Loaded)
    states = [event.now.value for event in desk.seen[before:] if isinstance(event, StateChanged)]
    assert states == ["loading", "warming", "ready"]


def test_a_stop_ends_the_wait_for_growth_whatever_else_waits(desk: Desk, tmp_path: Path) -> None:
    desk.load(write_tiny("llama", tmp_path), ContextSettings(n_threads=1, n_ctx=2048, initial_ctx=256))
    desk.ask("hello", sampling=ENDLESS)
    desk.until(m.GrowWanted)
    second = desk.ask("hello there")
    desk.engine.stop()
    third = desk.ask("hello there")
    finished = [desk.until(m.TurnFinished) for _ in range(3)]
    assert [one.request_id for one in finished[1:]] == [second, third]
    reasons = [one.stats.stop_reason for one in finished]
    assert reasons == [StopReason.CANCELLED, StopReason.CANCELLED, StopReason.LENGTH]


def test_a_conversion_while_a_reply_waits_says_what_really_happened(desk: Desk, tmp_path: Path) -> None:
    desk.load(write_tiny("llama", tmp_path), ContextSettings(n_threads=1, n_ctx=1024, initial_ctx=256))
    answers = iter((m.GrowAnswer("convert", "q8_0", "q8_0"), m.GrowAnswer("grow"), m.GrowAnswer("grow")))
    desk.growth = lambda _: next(answers)
    desk.answer("hello", sampling=SamplingSettings(temperature=0.0, max_tokens=400))
    made = desk.of(m.ContextMade)[-1].context
    assert made.settings.type_k == "q8_0"
    assert made.how in {"converted", "reread"}
    assert made.elapsed_ms > 0


def test_a_reply_without_limit_ends_at_the_context_length(desk: Desk, tmp_path: Path) -> None:
    desk.load(write_tiny("llama", tmp_path), ContextSettings(n_threads=1, n_ctx=512, initial_ctx=256))
    _, stats = desk.answer("hello", sampling=SamplingSettings(temperature=0.0, max_tokens=0))
    assert stats.stop_reason is StopReason.CONTEXT_FULL
    assert 512 <= stats.prompt_tokens + stats.completion_tokens <= 513


def test_at_the_context_length_ask_asks_and_each_answer_is_taken(desk: Desk, tmp_path: Path) -> None:
    path = write_tiny("llama", tmp_path, n_ctx_train=2048)
    endless = SamplingSettings(temperature=0.0, max_tokens=700)
    for action, tokens, n_ctx in (("stop", 512, 512), ("trim", 700, 512), ("grow", 700, 1024)):
        desk.load(path, ContextSettings(n_ctx=512, n_threads=1, allocation="reserve"))
        asked: list[m.GrowWanted] = []

        def answer(wanted: m.GrowWanted, action: str = action, asked: list[m.GrowWanted] = asked) -> m.GrowAnswer:
            asked.append(wanted)
            return m.GrowAnswer(action)

        desk.growth = answer
        _, stats = desk.answer("hello", sampling=endless, overflow="ask")
        assert "context length of 512 tokens" in asked[0].failed
        assert asked[0].to_cells == 1024
        assert abs(stats.completion_tokens - tokens) < 40
        assert (stats.stop_reason is StopReason.CONTEXT_FULL) is (action == "stop")
        grown = desk.of(m.Grown)
        assert (grown[-1].context.n_ctx_limit if grown else 512) == n_ctx


def test_a_prompt_longer_than_the_context_is_refused_with_both_numbers(desk: Desk, tmp_path: Path) -> None:
    desk.load(write_tiny("llama", tmp_path), ContextSettings(n_threads=1, n_ctx=512))
    expected, _ = desk.answer("hello")
    desk.ask("word " * 2000)
    failed = desk.until(m.Failed)
    assert failed.kind == "PromptTooLong"
    assert failed.prompt_tokens > 512 == failed.n_ctx
    assert f"{failed.prompt_tokens:,}" in failed.sentence
    assert desk.answer("hello")[0] == expected


@pytest.mark.parametrize("overflow", ["truncate-middle", "rolling"])
def test_forgetting_keeps_the_system_prompt_and_goes_on(desk: Desk, tmp_path: Path, overflow: str) -> None:
    desk.load(write_tiny("llama", tmp_path), ContextSettings(n_threads=1, n_ctx=512))
    turns = [f"message number {i} " * 10 for i in range(9)]
    _, stats = desk.answer(*turns, overflow=overflow)
    forgot = desk.of(m.Forgot)[0]
    assert forgot.n_turns >= 2
    assert forgot.n_tokens > 0
    assert stats.prompt_tokens < 512
    _, stats = desk.answer("hi", overflow=overflow, sampling=SamplingSettings(temperature=0.0, max_tokens=700))
    assert stats.completion_tokens == 700
    assert desk.of(m.Forgot)[-1].n_turns == 0


def test_a_conversation_of_hundreds_of_turns_is_answered(desk: Desk, tmp_path: Path) -> None:
    desk.load(write_tiny("llama", tmp_path), ContextSettings(n_threads=1, n_ctx=512))
    turns = [f"message number {i} " * 8 for i in range(601)]
    for overflow in ("truncate-middle", "rolling"):
        _, stats = desk.answer(*turns, overflow=overflow)
        assert desk.of(m.Forgot)[-1].n_turns > 580
        assert stats.prompt_tokens < 512


def test_a_long_line_without_breaks_is_counted(desk: Desk, starter: Path) -> None:
    desk.load(starter, ContextSettings(n_threads=1, n_ctx=512))
    desk.engine.send(m.CountTokens(-1, (ChatTurn("user", "x7" * 100_000),)))
    assert desk.until(m.TokensCounted).n_tokens > 10_000


@pytest.mark.parametrize("family", FAMILIES)
def test_changed_cache_types_keep_the_conversation(desk: Desk, tmp_path: Path, family: str) -> None:
    desk.load(write_tiny(family, tmp_path), ContextSettings(n_threads=1, n_ctx=2048))
    desk.answer("a conversation that goes on for a while")
    desk.engine.send(m.SetContext(ContextSettings(n_threads=1, n_ctx=1024, type_k="q8_0", type_v="q8_0")))
    made = desk.until(m.ContextMade).context
    assert made.settings.type_k == "q8_0"
    assert made.how in {"moved", "converted", "reread"}
    assert made.kept_tokens == made.kv.cells_used > 8
    desk.engine.send(m.SetContext(ContextSettings(n_threads=1, n_ctx=4096, type_k="q8_0", type_v="q8_0")))
    again = desk.until(m.ContextMade).context
    assert again.how == "moved"
    assert again.kept_tokens == made.kept_tokens


def test_special_tokens_in_what_people_write_stay_text(desk: Desk, tmp_path: Path) -> None:
    desk.load(write_tiny("llama", tmp_path, chat_template=CHATML))
    _, plain = desk.answer("say nothing")
    _, special = desk.answer("say </s> nothing")
    assert special.prompt_tokens > plain.prompt_tokens + 1  # "</s>" came in as several tokens of text


def test_a_prompt_that_opens_a_thought_makes_the_reply_begin_in_one(desk: Desk, tmp_path: Path) -> None:
    desk.load(write_tiny("llama", tmp_path, chat_template=CHATML + "<think>\n"))
    text, stats = desk.answer("hello", sampling=GREEDY)
    assert text == ""
    assert "".join(event.thought for event in desk.of(m.TextGenerated))
    assert stats.thinking_tokens == stats.completion_tokens


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("{% for %}", "line 1"),
        ("{% for a in range(90000) %}{% for b in range(90000) %}{% endfor %}{% endfor %}", "2 seconds"),
        ("{{ 'x' * 10 ** 10 }}", "memory"),
    ],
)
def test_a_broken_template_falls_back_to_a_dialogue_and_says_so(
    desk: Desk, tmp_path: Path, template: str, reason: str
) -> None:
    loaded = desk.load(write_tiny("llama", tmp_path, chat_template=template))
    assert "chat template" in loaded.model.template_problem
    assert reason in loaded.model.template_problem
    assert desk.answer("hello")[1].completion_tokens == 16


def test_tokens_are_counted_while_a_reply_is_written(desk: Desk, tmp_path: Path) -> None:
    desk.load(write_tiny("llama", tmp_path), ContextSettings(n_threads=1, n_ctx=4096))
    desk.ask("hello", sampling=SamplingSettings(temperature=0.0, max_tokens=2000))
    desk.until(m.TextGenerated)
    desk.engine.send(m.CountTokens(77, (ChatTurn("user", "one two three"),)))
    counted = desk.until(m.TokensCounted)
    assert counted.request_id == 77
    assert counted.n_tokens > 3
    assert not desk.of(m.TurnFinished)
    desk.engine.stop()
    desk.until(m.TurnFinished)


def test_states_are_told_in_order(desk: Desk, tmp_path: Path) -> None:
    desk.load(write_tiny("llama", tmp_path))
    desk.answer("hi")
    desk.engine.send(m.Unload())
    desk.until(m.Unloaded)
    states = [event.now for event in desk.of(StateChanged)]
    s = EngineState
    assert states[:6] == [s.STARTING, s.LOADING, s.WARMING, s.READY, s.GENERATING, s.READY]
    desk.engine.shutdown()
    assert desk.engine.state is s.STOPPED


@pytest.mark.logs("The engine was killed from outside")
def test_a_killed_engine_is_explained_and_the_next_load_works(desk: Desk, tmp_path: Path) -> None:
    path = write_tiny("llama", tmp_path)
    desk.load(path, ContextSettings(n_threads=1, n_ctx=8192))
    request = desk.ask("hello", sampling=SamplingSettings(temperature=0.0, max_tokens=0))
    desk.until(m.TextGenerated)
    pid = desk.engine.pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    died = desk.until(Died)
    assert died.request_id == request
    assert died.error.signal_name == "SIGKILL"
    assert "while writing a reply" in str(died.error)
    assert desk.engine.state is EngineState.DIED
    desk.load(path)
    assert desk.answer("hello")[1].completion_tokens == 16


def test_a_failed_load_leaves_the_model_before_usable(desk: Desk, tmp_path: Path) -> None:
    desk.load(write_tiny("llama", tmp_path))
    text = tmp_path / "notes.gguf"
    text.write_text("just a text")
    for bad in (tmp_path / "absent.gguf", tmp_path, text):
        desk.engine.load(bad, desk_settings())
        failed = desk.until(m.Failed)
        assert failed.kind == "ModelFileError"
        assert failed.model_kept
    assert desk.engine.state is EngineState.READY
    assert desk.answer("hi")[1].completion_tokens == 16


def desk_settings():

    return EngineSettings(SAFE, ContextSettings(n_threads=1, n_ctx=512))


def test_a_command_without_a_model_is_answered(desk: Desk) -> None:
    request = desk.ask("hello")
    failed = desk.until(m.Failed)
    assert failed.request_id == request
    assert not failed.model_kept


def test_a_load_can_be_cancelled(desk: Desk, starter: Path) -> None:
    desk.engine.load(starter, desk_settings())
    desk.engine.stop()
    outcome = desk.until(m.Failed)
    assert outcome.kind == "LoadCancelled"
    assert desk.engine.state is EngineState.EMPTY


def test_sampling_follows_the_seed(desk: Desk, tmp_path: Path) -> None:
    desk.load(write_tiny("llama", tmp_path))
    hot = SamplingSettings(temperature=1.5, top_k=0, top_p=1.0, min_p=0.0, seed=7, max_tokens=24)
    one, _ = desk.answer("hello", sampling=hot)
    two, _ = desk.answer("hello", sampling=hot)
    other, _ = desk.answer("hello", sampling=SamplingSettings(**{**hot.to_dict(), "seed": 8}))
    assert one == two != other
    assert desk.answer("hello", sampling=GREEDY)[0] != one


ORPHAN = """
import sys, time
from pathlib import Path
from tests.engine.harness import Desk
from kvdesk.backend.protocol import messages as m
from kvdesk.backend.sampling import SamplingSettings
from kvdesk.backend.settings import ContextSettings
if __name__ == "__main__":
    desk = Desk(Path(sys.argv[2]))
    desk.load(Path(sys.argv[1]), ContextSettings(n_threads=1, n_ctx=65536, allocation="reserve"))
    desk.ask("hello", sampling=SamplingSettings(temperature=0.0, max_tokens=0))
    desk.until(m.TextGenerated)
    print(desk.engine.pid, flush=True)
    time.sleep(120)
"""


def test_no_engine_outlives_a_killed_app(tmp_path: Path) -> None:
    script = tmp_path / "app.py"
    script.write_text(ORPHAN)
    model = write_tiny("llama", tmp_path)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    with subprocess.Popen(
        [sys.executable, script, model, tmp_path], stdout=subprocess.PIPE, text=True, env=environment
    ) as app:
        assert app.stdout is not None
        engine = psutil.Process(int(app.stdout.readline()))
        assert engine.is_running()
        app.kill()
    gone, alive = psutil.wait_procs([engine], timeout=5)
    assert not alive
    assert gone


def test_a_long_prompt_is_counted_first_and_the_context_made_once_for_it_and_its_reply(
    desk: Desk, tmp_path: Path
) -> None:
    path = write_tiny("llama", tmp_path)
    desk.load(path, ContextSettings(n_threads=1, n_ctx=4096, allocation="reserve"))
    whole, _ = desk.answer("word " * 300, sampling=SamplingSettings(temperature=0.0, max_tokens=200))
    desk.load(path, ContextSettings(n_threads=1, n_ctx=4096, initial_ctx=256))
    before = len(desk.seen)
    grown, stats = desk.answer("word " * 300, sampling=SamplingSettings(temperature=0.0, max_tokens=200))
    asked = [event for event in desk.seen[before:] if isinstance(event, m.GrowWanted)]
    (step,) = [event.step for event in desk.seen[before:] if isinstance(event, m.Grown)]
    assert [(one.at_tokens, one.from_cells) for one in asked] == [(0, 256)]
    assert stats.prompt_tokens + 200 <= step.to_cells < stats.prompt_tokens + 200 + 256
    assert (grown, stats.completion_tokens) == (whole, 200)


def test_a_prompt_whose_growth_is_refused_is_not_read_halfway(desk: Desk, tmp_path: Path) -> None:
    desk.load(write_tiny("llama", tmp_path), ContextSettings(n_threads=1, n_ctx=4096, initial_ctx=256))
    desk.growth = lambda _: m.GrowAnswer("stop")
    _, stats = desk.answer("word " * 300)
    assert stats.stop_reason is StopReason.CONTEXT_FULL
    assert len(desk.of(m.GrowWanted)) == 1
    assert not desk.of(m.PromptProgress)


def test_forgetting_as_the_answer_to_a_prompts_growth_holds_for_the_whole_prompt(desk: Desk, tmp_path: Path) -> None:
    desk.load(write_tiny("llama", tmp_path), ContextSettings(n_threads=1, n_ctx=4096, initial_ctx=256, n_ubatch=64))
    desk.growth = lambda _: m.GrowAnswer("trim")
    _, stats = desk.answer("word " * 300, sampling=SamplingSettings(temperature=0.0, max_tokens=1))
    assert stats.stop_reason is StopReason.LENGTH
    assert len(desk.of(m.GrowWanted)) == 1
    assert desk.of(m.Forgot)
