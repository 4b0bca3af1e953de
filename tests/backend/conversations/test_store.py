"""The conversation store: nothing said is lost, nothing found that was not said, every fault in words."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import queue
import re
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from kvdesk.backend.conversations import schema, search
from kvdesk.backend.conversations.conversation import active_path, new_conversation, new_message
from kvdesk.backend.conversations.store import ConversationStore, ModelMemory
from kvdesk.backend.conversations.store_thread import StoreThread
from kvdesk.backend.protocol.facts import StopReason, TurnStats
from kvdesk.backend.sampling import SamplingSettings
from kvdesk.backend.settings import ContextSettings, EngineSettings
from kvdesk.errors import StoreError

DATA = Path(__file__).parents[2] / "data"
STATS = TurnStats(StopReason.EOS, 12, 3, 41, 300.5, None, 18.23, 2)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "conversations.sqlite3"


@pytest.fixture
def store(path):
    with ConversationStore(path) as store:
        yield store


def chat(store, *texts, at=1.0, title=""):
    """A conversation in which ``texts`` were said in turn."""
    conversation = new_conversation(at, title=title)
    store.keep(conversation)
    parent = None
    for number, text in enumerate(texts):
        message = new_message(("user", "assistant")[number % 2], text, parent, at + number)
        say(store, conversation.id, message)
        parent = message.id
    return conversation.id


def say(store, conversation_id, message):
    """Add a message and bring it into view, as the chat does."""
    conversation = store.conversation(conversation_id)
    used_s = max(conversation.updated_s, message.created_s)
    store.keep(dataclasses.replace(conversation, active_leaf_id=message.id, updated_s=used_s), [message])


def titles(rows):
    return [row.title for row in rows]


# --- keeping -------------------------------------------------------------------------------------------------------


def test_a_conversation_comes_back_as_it_was(path, store):
    conversation = new_conversation(
        5.0,
        title="Sky \N{CLOUD}",
        system_prompt="Be brief.",
        sampling=SamplingSettings(temperature=0.3, seed=7),
        engine_settings=EngineSettings(context=ContextSettings(n_ctx=4096, type_k="q8_0")),
        overflow="rolling",
        model_path="C:\\models\\gemma.gguf",
    )
    store.keep(conversation)
    question = new_message("user", "Why?\0\n'\"; DROP TABLE messages", None, 6.0)
    reply = new_message("assistant", "Because.", question.id, 7.0, stats=STATS, model_name="Gemma", stop_note="stopped")
    say(store, conversation.id, question)
    say(store, conversation.id, reply)
    store.close()
    with ConversationStore(path) as again:
        assert again.messages(conversation.id) == (question, reply)
        assert again.conversation(conversation.id) == dataclasses.replace(
            conversation, active_leaf_id=reply.id, updated_s=7.0
        )


def test_an_edit_adds_a_branch_and_leaves_the_old_one(store):
    conversation_id = chat(store, "one", "two")
    first, second = store.messages(conversation_id)
    edited = new_message("user", "uno", None, 9.0)
    say(store, conversation_id, edited)
    messages = store.messages(conversation_id)
    assert messages == (first, second, edited)
    assert store.conversation(conversation_id).active_leaf_id == edited.id
    store.keep(dataclasses.replace(store.conversation(conversation_id), active_leaf_id=second.id))
    leaf = store.conversation(conversation_id).active_leaf_id
    assert active_path(messages, leaf) == (first, second)


def test_a_reply_is_kept_while_it_is_being_written(store):
    conversation_id = chat(store, "question")
    (question,) = store.messages(conversation_id)
    reply = new_message("assistant", "", question.id, 2.0, is_complete=False)
    say(store, conversation_id, reply)
    store.keep(store.conversation(conversation_id), [dataclasses.replace(reply, content="Bec")])
    assert store.messages(conversation_id)[-1] == dataclasses.replace(reply, content="Bec")
    whole = dataclasses.replace(reply, content="Because.", is_complete=True, stats=STATS, stop_note="x", model_name="G")
    store.keep(store.conversation(conversation_id), [whole])
    assert store.messages(conversation_id)[-1] == whole


def test_a_changed_conversation_is_kept_whole(store):
    conversation_id = chat(store, "hello", title="Old")
    changed = dataclasses.replace(
        store.conversation(conversation_id),
        title="New",
        updated_s=50.0,
        system_prompt="S",
        sampling=SamplingSettings(top_k=3),
        engine_settings=EngineSettings(context=ContextSettings(n_ctx=512)),
        overflow="stop",
        model_path="m.gguf",
    )
    store.keep(changed)
    assert store.conversation(conversation_id) == changed
    store.rename(conversation_id, "Newer")
    assert store.conversation(conversation_id) == dataclasses.replace(changed, title="Newer")


def test_imported_conversations_arrive_whole_or_not_at_all(store):
    parent = new_message("user", "a", None, 1.0)
    child = new_message("assistant", "b", parent.id, 2.0)
    conversation = new_conversation(1.0, active_leaf_id=child.id)
    with pytest.raises(StoreError):
        store.keep(conversation, (child, parent)[:1])
    assert store.conversations() == ()
    store.keep(conversation, (parent, child))
    assert store.messages(conversation.id) == (parent, child)


def test_half_a_character_from_a_clipboard_is_kept_as_a_question_mark(store):
    conversation_id = chat(store, "a\ud800b")
    assert store.messages(conversation_id)[0].content == "a?b"


def test_one_conversations_messages_cannot_answer_anothers(store):
    one, other = chat(store, "a"), chat(store, "b")
    with pytest.raises(StoreError):
        say(store, other, new_message("assistant", "c", store.messages(one)[0].id, 3.0))


def test_what_is_gone_is_said_to_be_gone(store):
    for act in (
        lambda: store.conversation("gone"),
        lambda: store.rename("gone", "x"),
        lambda: store.delete("gone", 1.0),
        lambda: store.undelete("gone"),
        lambda: store.keep(new_conversation(1.0), may_be_new=False),
    ):
        with pytest.raises(StoreError, match="no longer exists"):
            act()
    assert store.messages("gone") == ()


# --- listing, searching, deleting ----------------------------------------------------------------------------------


def test_the_list_has_the_last_used_first(store):
    chat(store, "a", at=10.0, title="old")
    chat(store, "b", at=30.0, title="new")
    early = chat(store, at=1.0, title="woken")
    assert titles(store.conversations()) == ["new", "old", "woken"]
    say(store, early, new_message("user", "again", None, 99.0))
    assert titles(store.conversations()) == ["woken", "new", "old"]


@pytest.fixture
def searched(store):
    chat(store, "Why is the sky blue?", "Rayleigh scattering of light", at=10.0, title="Weather")
    chat(store, "Zwölf Bären", "日本語のテキスト", at=20.0, title="ÜBER Tiere")
    chat(store, 'say "AND" OR NOT* col:x (', "100 % sure_thing \\n", at=30.0, title="Syntax")
    return store


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", ["Syntax", "ÜBER Tiere", "Weather"]),
        ("  ", ["Syntax", "ÜBER Tiere", "Weather"]),
        ("rayleigh", ["Weather"]),
        ("LIGHT scatt", ["Weather"]),  # all words, in one message, also parts of words
        ("sky light", []),  # two messages
        ("über", ["ÜBER Tiere"]),  # the title, whatever its case
        ("bär ZWÖLF", ["ÜBER Tiere"]),
        ("本語", ["ÜBER Tiere"]),
        ("本語 BÄREN", []),
        ("is sky", ["Weather"]),
        ('"AND"', ["Syntax"]),
        ("not* (", ["Syntax"]),
        ("100 %", ["Syntax"]),
        ("sure_thing", ["Syntax"]),
        ("sureXthing", []),
        ("1%e", []),
        ("\\n", ["Syntax"]),
        ("nothing of it", []),
        ("\0", ["Syntax", "ÜBER Tiere", "Weather"]),
    ],
)
def test_search_finds_all_words_in_a_title_or_in_one_message(searched, query, expected):
    assert titles(searched.conversations(query)) == expected


def test_search_shows_where_it_found_the_words(searched):
    (row,) = searched.conversations("scattering")
    assert row.excerpt == "Rayleigh scattering of light"
    (row,) = searched.conversations("weather")
    assert row.excerpt == ""


def test_search_follows_what_messages_become(searched):
    row = searched.conversations("rayleigh")[0]
    reply = searched.messages(row.id)[-1]
    searched.keep(searched.conversation(row.id), [dataclasses.replace(reply, content="Mie resonance")])
    assert searched.conversations("rayleigh") == ()
    assert titles(searched.conversations("resonance")) == ["Weather"]
    searched.delete(row.id, 5.0)
    assert searched.conversations("resonance") == ()
    searched.purge_deleted(6.0)
    assert searched.conversations("resonance") == ()


def test_a_long_message_is_quoted_around_the_word():
    text = "filler " * 50 + "the needle is here " + "more " * 50
    line = search.excerpt(text, ["needle"])
    assert "needle is here" in line
    assert line.startswith("…")
    assert line.endswith("…")
    assert len(line) <= search.EXCERPT_LENGTH + 2


def test_delete_can_be_undone_until_it_is_purged(store):
    kept, gone = chat(store, "a", title="kept"), chat(store, "b", "c", title="gone")
    store.delete(kept, 100.0)
    store.delete(gone, 100.0)
    assert store.conversations() == ()
    store.undelete(kept)
    assert titles(store.conversations()) == ["kept"]
    assert store.purge_deleted(100.0) == ()  # not deleted before
    assert store.purge_deleted(101.0) == (gone,)
    assert store.messages(gone) == ()
    with pytest.raises(StoreError):
        store.undelete(gone)
    assert len(store.messages(kept)) == 1


# --- models --------------------------------------------------------------------------------------------------------


def test_a_path_that_is_not_utf8_is_remembered(store):
    path = os.fsdecode(b"/models/m\xff.gguf")
    memory = ModelMemory(sampling=SamplingSettings(temperature=0.25))
    store.note_model_used(path, 1.0)
    store.remember_model_settings(path, memory)
    assert [model.path for model in store.recent_models()] == [path]
    assert store.model_memories() == {path: memory}


def test_a_reply_of_a_model_whose_name_is_not_utf8_is_kept(store):
    conversation = new_conversation(1.0)
    reply = dataclasses.replace(new_message("assistant", "Hi", None, 1.0), model_name="m\udcff", stop_note="\ud83d")
    store.keep(conversation, [reply])
    assert [message.model_name for message in store.messages(conversation.id)] == ["m?"]


def test_recent_models_and_their_settings(store):
    store.note_model_used("a.gguf", 1.0)
    store.note_model_used("b.gguf", 2.0)
    store.note_model_used("a.gguf", 3.0)
    assert [model.path for model in store.recent_models()] == ["a.gguf", "b.gguf"]
    assert [model.path for model in store.recent_models(limit=1)] == ["a.gguf"]
    engine = EngineSettings(context=ContextSettings(n_ctx=512))
    store.remember_model_settings("a.gguf", ModelMemory(engine_settings=engine))
    store.remember_model_settings("a.gguf", ModelMemory(sampling=SamplingSettings(top_k=3)))
    store.forget_recent_model("a.gguf")
    assert [model.path for model in store.recent_models()] == ["b.gguf"]
    assert store.model_memories()["a.gguf"] == ModelMemory(engine, SamplingSettings(top_k=3))
    assert "never.gguf" not in store.model_memories()


# --- schema --------------------------------------------------------------------------------------------------------


def test_a_database_of_schema_1_opens_with_all_it_holds(path):
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.executescript((DATA / "conversations_v1.sql").read_text(encoding="utf-8"))
    with ConversationStore(path) as store:
        assert titles(store.conversations()) == ["Sky"]
        (row,) = store.conversations("rayleigh")
        messages = store.messages(row.id)
        assert [m.content for m in messages] == ["Why is the sky blue?", "Rayleigh scattering.", "Blue li"]
        assert messages[1].stats == STATS
        assert [m.is_complete for m in messages] == [True, True, False]
        conversation = store.conversation(row.id)
        assert active_path(messages, conversation.active_leaf_id) == (messages[0], messages[2])
        assert conversation.engine_settings == EngineSettings(context=ContextSettings(n_ctx=4096))
        assert store.model_memories()["/models/gemma.gguf"].sampling == SamplingSettings(temperature=0.2)
        assert [model.path for model in store.recent_models()] == ["/models/gemma.gguf"]


def test_migrating_leaves_a_copy_and_a_failing_migration_leaves_all_as_it_was(path):
    with ConversationStore(path) as store:
        chat(store, "hello", title="Kept")
    good = (
        *schema.MIGRATIONS,
        "ALTER TABLE conversations ADD COLUMN colour TEXT;\nUPDATE conversations SET colour = 'red';",
    )
    known = len(schema.MIGRATIONS)
    bad = (*good, "CREATE TABLE more (x);\nINSERT INTO nowhere VALUES (1);")

    def opened():
        return contextlib.closing(sqlite3.connect(path, isolation_level=None))

    def columns(connection):
        return {row[1] for row in connection.execute("PRAGMA table_info(conversations)")}

    with opened() as connection, pytest.raises(sqlite3.OperationalError):
        schema.migrate(connection, path, bad)
    with opened() as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (known,)
        assert "colour" not in columns(connection)
        schema.migrate(connection, path, good)
        assert connection.execute("PRAGMA user_version").fetchone() == (known + 1,)
        assert connection.execute("SELECT title, colour FROM conversations").fetchall() == [("Kept", "red")]
    backup = path.with_name(f"conversations.sqlite3.v{known}.backup")
    if os.name == "posix":
        assert backup.stat().st_mode & 0o077 == 0
    with ConversationStore(backup) as store:
        assert titles(store.conversations()) == ["Kept"]
    with pytest.raises(StoreError, match=rf"newer kvdesk \(schema {known + 1}, this one knows {known}\)"):
        ConversationStore(path)


def test_a_draft_is_kept_and_does_not_make_its_conversation_the_newest(path):
    with ConversationStore(path) as store:
        old = chat(store, "hello", title="Old", at=1.0)
        chat(store, "hello", title="New", at=2.0)
        store.keep(dataclasses.replace(store.conversation(old), draft="half a \ud83d sentence"))
    with ConversationStore(path) as store:
        assert store.conversation(old).draft == "half a ? sentence"
        assert titles(store.conversations()) == ["New", "Old"]
        assert titles(store.conversations("half")) == ["Old"]


def test_only_a_conversation_with_nothing_in_it_is_removed_as_empty(path):
    with ConversationStore(path) as store:
        kept = [chat(store, "hello", title="said")]
        for title, fields in (
            ("typed", {"draft": "x"}),
            ("set", {"system_prompt": "Be brief."}),
            ("deleted", {}),
            ("empty", {}),
        ):
            one = new_conversation(1.0, title=title, **fields)
            store.keep(one)
            kept.append(one.id)
        store.delete(kept[3], 2.0)
        for one in kept:
            store.remove_if_empty(one)
        store.undelete(kept[3])
        assert sorted(titles(store.conversations())) == ["deleted", "said", "set", "typed"]


def test_models_are_remembered_part_by_part(path):
    with ConversationStore(path) as store:
        engine, sampling = EngineSettings(context=ContextSettings(n_ctx=512)), SamplingSettings(temperature=0.3)
        store.remember_model_settings("/a", ModelMemory(sampling=sampling))
        store.remember_model_settings("/a", ModelMemory(engine))
        store.note_model_used("/b", 1.0)
        assert store.model_memories() == {"/a": ModelMemory(engine, sampling), "/b": ModelMemory()}


class _Overtaken(sqlite3.Connection):
    """After its first statement another window makes the database."""

    path: Path
    is_overtaken = False

    def execute(self, *args: object) -> sqlite3.Cursor:
        cursor = super().execute(*args)
        if not self.is_overtaken:
            self.is_overtaken = True
            rows = cursor.fetchall()
            ConversationStore(self.path).close()
            return super().execute("SELECT " + ", ".join(map(str, rows[0])))
        return cursor


def test_a_database_that_another_window_makes_meanwhile_is_ours(tmp_path: Path) -> None:
    path = tmp_path / "conversations.sqlite3"
    with contextlib.closing(sqlite3.connect(path, isolation_level=None, factory=_Overtaken)) as connection:
        connection.path = path
        schema.migrate(connection, path)
        assert connection.execute("PRAGMA user_version").fetchone()[0] == len(schema.MIGRATIONS)


def test_thoughts_of_earlier_versions_are_set_apart(tmp_path: Path) -> None:
    path = tmp_path / "conversations.sqlite3"
    replies = {"thinks": "<think>\nwhy\n</think>\n\nbecause", "plain": "see <think> in HTML"}
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        schema.migrate(connection, path, schema.MIGRATIONS[:2])
        connection.execute(
            "INSERT INTO conversations VALUES ('c', 't', 1, 1, NULL, '', '{}', NULL, 'ask', NULL, NULL, '')"
        )
        for name, reply in replies.items():
            connection.execute(
                "INSERT INTO messages VALUES (NULL, ?, 'c', NULL, 'assistant', ?, 1, NULL, '', '', 1)", (name, reply)
            )
    with ConversationStore(path) as store:
        told = {message.id: (message.thought, message.content) for message in store.messages("c")}
    assert told == {"thinks": ("why", "because"), "plain": ("", "see <think> in HTML")}


def test_two_windows_may_open_a_new_database_at_once(path):
    errors = []

    def open_it():
        try:
            with ConversationStore(path) as store:
                chat(store, "hi")
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=open_it) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert errors == []
    with ConversationStore(path) as store:
        assert len(store.conversations()) == 6


# --- faults --------------------------------------------------------------------------------------------------------


def test_what_is_no_database_is_said_to_be_none(path):
    path.write_bytes(b"not a database " * 1000)
    with pytest.raises(StoreError, match=r"damaged or is no database\. Move it away"):
        ConversationStore(path)


def test_a_database_of_another_program_is_left_alone(path):
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE bookmarks (url)")
    with pytest.raises(StoreError, match="another program"):
        ConversationStore(path)


def test_a_damaged_page_is_told_when_it_is_read(path):
    with ConversationStore(path) as store:
        conversation_id = chat(store, *("x" * 3000 for _ in range(40)))
    content = bytearray(path.read_bytes())
    content[4096 * 4 :] = os.urandom(len(content) - 4096 * 4)
    path.write_bytes(content)
    with pytest.raises(StoreError, match="damaged"), ConversationStore(path) as store:
        store.messages(conversation_id)


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(StoreError, match="cannot be opened"):
        ConversationStore(tmp_path / "gone" / "conversations.sqlite3")


def test_a_full_disk_loses_nothing_that_was_kept(path):
    with ConversationStore(path) as store:
        conversation_id = chat(store, "kept")
        pages = store._connection.execute("PRAGMA page_count").fetchone()[0]
        store._connection.execute(f"PRAGMA max_page_count = {pages}")
        with pytest.raises(StoreError, match="is full"):
            say(store, conversation_id, new_message("user", "x" * 1_000_000, None, 2.0))
        store._connection.execute("PRAGMA max_page_count = 1000000")
        say(store, conversation_id, new_message("user", "after", None, 3.0))
        assert [m.content for m in store.messages(conversation_id)] == ["kept", "after"]


WRITER = """
import dataclasses, sys
from pathlib import Path
from kvdesk.backend.conversations.conversation import new_conversation, new_message
from kvdesk.backend.conversations.store import ConversationStore

store = ConversationStore(Path(sys.argv[1]))
conversation = new_conversation(1.0, title="Killed")
question = new_message("user", "question", None, 1.0)
reply = new_message("assistant", "", question.id, 2.0, is_complete=False)
conversation = dataclasses.replace(conversation, active_leaf_id=reply.id)
store.keep(conversation, [question, reply])
n = 0
while True:
    n += 1
    reply = dataclasses.replace(reply, content=f"{'word ' * n}{n}")
    store.keep(conversation, [reply])
    print(n, flush=True)
"""


@pytest.mark.parametrize("kill_after", [1, 17, 60])
def test_a_kill_in_the_middle_of_writing_loses_nothing_that_was_kept(path, kill_after):
    root = str(Path(__file__).parents[3])
    environment = {**os.environ, "PYTHONPATH": root}
    writer = subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, env=environment)
    for line in writer.stdout:
        if int(line) >= kill_after:
            break
    writer.kill()
    rest = writer.stdout.read().split()  # what it still got done before the signal reached it
    writer.stdout.close()
    writer.wait(30)
    kept = max([kill_after, *(int(line) for line in rest)])
    with ConversationStore(path) as store:
        (row,) = store.conversations()
        question, reply = store.messages(row.id)
        n = int(reply.content.split()[-1])
        assert n in (kept, kept + 1)
        assert reply.content == f"{'word ' * n}{n}"
        assert not reply.is_complete
        assert store.conversation(row.id).active_leaf_id == reply.id
        assert titles(store.conversations(f"word {n}")) == ["Killed"]
        assert store._rows("PRAGMA integrity_check") == [("ok",)]
        say(store, row.id, new_message("assistant", "again", question.id, 3.0))


# --- the thread ----------------------------------------------------------------------------------------------------


@pytest.fixture
def thread(path):
    thread = StoreThread(path)
    yield thread
    assert thread.close()


def ask(thread, work):
    """The answer to a job, or its error."""
    answers = []
    answered = threading.Event()

    def on_done(result):
        answers.append((result, threading.current_thread().name))
        answered.set()

    thread.submit(work, on_done)
    assert answered.wait(30)
    result, name = answers[0]
    assert name == "store"
    return result


def test_jobs_run_in_order_on_the_stores_own_thread(thread):
    conversation = new_conversation(1.0, title="Threaded")
    for work in (lambda s: s.keep(conversation), lambda s: s.rename(conversation.id, "Renamed")):
        thread.submit(work)
    assert titles(ask(thread, lambda store: store.conversations())) == ["Renamed"]


@pytest.mark.logs("a store job failed", "a listener of the store failed")
def test_a_job_that_fails_tells_who_asked_and_the_next_one_runs(thread, caplog):
    assert isinstance(ask(thread, lambda store: store.conversation("gone")), StoreError)
    thread.submit(lambda store: store.rename("gone", ""))  # nobody listens

    def bad_listener(result):
        raise ValueError("listener")

    thread.submit(lambda store: 1, bad_listener)
    assert ask(thread, lambda store: store.conversations()) == ()
    assert [record.message for record in caplog.records] == ["a store job failed", "a listener of the store failed"]


def test_closing_finishes_what_was_handed_in(path):
    thread = StoreThread(path)
    conversation = new_conversation(1.0, title="Last words")
    thread.submit(lambda store: store.keep(conversation))
    assert thread.close()
    with ConversationStore(path) as store:
        assert titles(store.conversations()) == ["Last words"]
    refused = []
    thread.submit(lambda store: 1, refused.append)
    assert "closed" in str(refused[0])


@pytest.mark.logs("no conversations")
def test_a_database_that_cannot_be_opened_answers_every_job_with_why(path):
    path.write_bytes(b"not a database " * 1000)
    thread = StoreThread(path)
    for _ in range(2):
        assert "damaged" in str(ask(thread, lambda store: store.conversations()))
    assert thread.close()


@pytest.mark.logs("no conversations")
def test_whatever_goes_wrong_in_opening_everybody_is_answered(path, monkeypatch):
    def broken(*_):
        raise ValueError("half a statement")

    monkeypatch.setattr("kvdesk.backend.conversations.store.migrate", broken)
    thread = StoreThread(path)
    answers = queue.SimpleQueue()
    thread.submit(lambda store: store.conversations(), answers.put)
    answer = answers.get(timeout=10)
    assert isinstance(answer, StoreError)
    assert "cannot be opened" in str(answer)
    assert thread.close()


@pytest.mark.parametrize(
    "content", [b"no database at all, but long enough to be read as one" * 40, b"SQLite format 3\x00" + b"\xff" * 4000]
)
def test_what_sqlite_says_stays_in_the_log(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "kvdesk.sqlite3"
    path.write_bytes(content)
    with pytest.raises(StoreError) as caught:
        ConversationStore(path)
    assert str(path) in str(caught.value)
    assert not re.search(r"SQLite|not a database|malformed", str(caught.value))
