"""``kvdesk template``: real vocabularies, real templates, in a real process."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from kvdesk import cli
from tests.scripted_model import write_scripted
from tests.source_archive import llama_cpp_source

TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>\n{% endfor %}"
    "<|assistant|>{% if enable_thinking is defined and enable_thinking %}<think>\n{% endif %}"
)
MODELS = llama_cpp_source() / "models"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    control = ("<|user|>", "<|assistant|>", "<|system|>", "<|end|>", "<think>", "</think>")
    return write_scripted(tmp_path / "m.gguf", ["x"], control=control, chat_template=TEMPLATE, kind="bpe", bos="<s>")


def ask(capsys: pytest.CaptureFixture[str], *arguments: object) -> dict[str, Any]:
    code = cli.main(["template", *map(str, arguments), "--json"])
    told = capsys.readouterr()
    assert code == 0, told.err
    return json.loads(told.out)


def test_prompt_tokens_and_format(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = ask(capsys, model)
    assert told["text"] == "<s><|user|>Hello!<|end|>\n<|assistant|><think>\n"
    assert told["n_tokens"] == len(told["tokens"])
    assert told["tokens"].count(1) == 1  # the start token, which template and vocabulary both write
    assert told["format"] == {
        "thinking": {"opens": "<think>", "closes": "</think>", "open_at_start": True},
        "ends": ["<|end|>"],
        "system_role": True,
        "content_parts": False,
        "alternates": False,
        "variables": ["enable_thinking"],
    }
    assert told["warnings"] == []
    assert "<think>" not in ask(capsys, model, "--thinking", "off")["text"]


def test_marks_in_a_message_stay_text(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    messages = tmp_path / "messages.json"
    messages.write_text(json.dumps([{"role": "user", "content": "a <|end|> b"}]))
    told = ask(capsys, model, "--messages", messages)
    assert "<|user|>a <|end|> b<|end|>" in told["text"]
    plain = ask(capsys, model)
    end = plain["tokens"][-5]  # then a line break, the next role, the thought's mark and its line break
    assert told["tokens"].count(end) == plain["tokens"].count(end) == 1


def test_a_reply_is_told_apart(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    reply = tmp_path / "reply"
    reply.write_text("why</think>\n\nFour.<|end|>\n<|user|>and")
    told = ask(capsys, model, "--reply", reply)
    assert (told["reasoning"], told["content"], told["ended"]) == ("why", "Four.", True)
    reply.write_text("why</think>\n\nFo")
    told = ask(capsys, model, "--reply", reply)
    assert (told["reasoning"], told["content"], told["ended"]) == ("why", "Fo", False)


@pytest.mark.parametrize(
    ("template", "text", "warning"),
    [
        ("chatml", "<|im_start|>user\nHello!<|im_end|>\n<|im_start|>assistant\n", ""),
        ("plain", "User: Hello!\nAssistant:", ""),
        (
            MODELS / "templates" / "Qwen-Qwen3-0.6B.jinja",
            "<|im_start|>user\nHello!<|im_end|>\n<|im_start|>assistant\n",
            "",
        ),
        ("{% for %}", "User: Hello!\nAssistant:", "line 1"),
    ],
    ids=["built in", "plain", "file", "broken"],
)
def test_another_template(
    template: str | Path, text: str, warning: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if "{%" in str(template):
        path = tmp_path / "template"
        path.write_text(str(template))
        template = path
    told = ask(capsys, MODELS / "ggml-vocab-qwen2.gguf", "--chat-template", template)
    assert told["text"] == text
    assert warning in "".join(told["warnings"])


def test_a_system_prompt_without_a_place_is_said_and_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    messages = tmp_path / "messages.json"
    messages.write_text(json.dumps([{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]))
    gemma = MODELS / "templates" / "google-gemma-2-2b-it.jinja"
    told = ask(capsys, MODELS / "ggml-vocab-llama-spm.gguf", "--chat-template", gemma, "--messages", messages)
    assert "user\nBe brief.\n\nHi<end_of_turn>" in told["text"]
    assert "no system role" in told["warnings"][0]


@pytest.mark.parametrize(
    ("messages", "sentence"),
    [
        ("{", "is no JSON"),
        ("[]", "no list of messages"),
        ("[1]", "Message 1"),
        ('[{"role": "tool", "content": ""}]', "known are system, user, assistant"),
        ('[{"role": "user", "content": 1}]', "no text"),
    ],
)
def test_messages_that_are_none_are_refused(
    messages: str, sentence: str, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "messages.json"
    path.write_text(messages)
    assert cli.main(["template", str(model), "--messages", str(path)]) == 2
    assert sentence in capsys.readouterr().err


def test_a_name_of_no_template_is_refused_with_those_there_are(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["template", str(model), "--chat-template", "nope"]) == 2
    assert "chatml" in capsys.readouterr().err


def test_a_file_that_is_no_model_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "no.gguf").write_bytes(b"GGUF nothing")
    assert cli.main(["template", str(tmp_path / "no.gguf")]) == 1
    assert "no.gguf" in capsys.readouterr().err


def test_control_characters_reach_no_terminal(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    reply = tmp_path / "reply"
    reply.write_text("\x1b]0;title\x07</think>a\tb\n")
    assert cli.main(["template", str(model), "--reply", str(reply)]) == 0
    told = capsys.readouterr()
    assert told.out == "thought: ␛]0;title␇\nanswer: a\tb\n\n"
    assert told.err == "[not ended]\n"


def test_chat_speaks_with_the_template_that_is_named(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = tmp_path / "own.jinja"
    own.write_text("{% for m in messages %}[{{ m.role }} says] {{ m.content }} and so on, {% endfor %}", "utf-8")
    lengths: list[int] = []
    for chosen in ([], ["--chat-template", str(own)], ["--chat-template", "chatml"], ["--chat-template", "plain"]):
        rendered = ask(capsys, model, *chosen)["n_tokens"]
        flags = ["-p", "Hello!", "--max-tokens", "1", "--n-ctx", "512", "--threads", "1", "--json", *chosen]
        assert cli.main(["chat", str(model), *flags]) == 0
        assert json.loads(capsys.readouterr().out)["turns"][0]["prompt_tokens"] == rendered
        lengths.append(rendered)
    assert len(set(lengths)) == len(lengths)


def test_chat_says_which_templates_there_are(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["chat", str(model), "-p", "Hello!", "--chat-template", "no-such"]) == 2
    said = capsys.readouterr().err
    assert "'no-such'" in said
    assert "chatml" in said
