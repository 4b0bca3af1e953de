"""Writes a real, tiny GGUF model whose greedy decoding writes exactly the tokens of a script, after any prompt.

    write_scripted(path, ["<think>", "hm", "</think>", "Four.", "<|im_end|>"], control=["<|im_end|>"])

How it works (architecture llama, one layer, 0.5 to 3 MB): the embedding tells scripted tokens apart (one-hot, all others
are one class), attention heads whose query and key are constants (biases) look exactly 1, 2, ... ``order - 1`` tokens back
(their rotary phases meet at that distance only) and copy what stood there, and each unit of the feed-forward part knows one
context "the last n tokens were these" and votes for the token that follows it in the script. Where no context is known
(after any prompt) the script begins. So the same token may be followed by different ones, as long as the last ``order``
tokens differ, a reply that was cut goes on where it was, and what a prompt says does not matter.

Items of a script: ``str`` (a token with that text: one of ``control``/``user``/``normal`` or a new normal one),
``bytes`` (one byte token each), ``int`` (an id).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import gguf
import numpy as np

HEAD = 64
FREQ_BASE = 100.0  # many fast rotary pairs: distances of one token are told apart sharply
SHARPNESS = 18.0
LOGIT = 60.0

BASE_CONTROL = ("<s>", "</s>")  # after "<unk>": ids 1 and 2
Item = str | bytes | int


def _byte_chars() -> dict[int, str]:
    """GPT-2's character for each byte."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    table = {byte: chr(byte) for byte in plain}
    rest = (byte for byte in range(256) if byte not in table)
    return table | {byte: chr(256 + n) for n, byte in enumerate(rest)}


class Vocabulary:
    """Texts and types of tokens, and the ids of a script's items."""

    def __init__(self, kind: str, control: Sequence[str], user: Sequence[str], normal: Sequence[str]) -> None:
        self.kind = kind
        self.texts: list[str] = []
        self.types: list[gguf.TokenType] = []
        self.ids: dict[str, int] = {}
        self._byte_ids: list[int] = []
        t = gguf.TokenType
        self._add("<unk>", t.UNKNOWN)
        for text in dict.fromkeys((*BASE_CONTROL, *control)):
            if text not in user:
                self._add(text, t.CONTROL)
        for text in dict.fromkeys(user):
            self._add(text, t.USER_DEFINED)
        if kind == "spm":
            self._byte_ids = [self._add(f"<0x{byte:02X}>", t.BYTE) for byte in range(256)]
            self._add("▁", t.NORMAL)
            for code in range(33, 127):
                self._add(chr(code), t.NORMAL)
        else:
            self._chars = _byte_chars()
            self._byte_ids = [self._add(self._chars[byte], t.NORMAL) for byte in range(256)]
        for text in normal:
            self.normal(text)

    def _add(self, text: str, kind: gguf.TokenType) -> int:
        if text in self.ids:
            raise ValueError(f"token {text!r} twice")
        self.ids[text] = len(self.texts)
        self.texts.append(text)
        self.types.append(kind)
        return self.ids[text]

    def _inner(self, text: str) -> str:
        if self.kind == "spm":
            return text.replace(" ", "▁")
        return "".join(self._chars[byte] for byte in text.encode())

    def normal(self, text: str) -> int:
        inner = self._inner(text)
        return self.ids[inner] if inner in self.ids else self._add(inner, gguf.TokenType.NORMAL)

    def script(self, items: Sequence[Item]) -> list[int]:
        ids: list[int] = []
        for item in items:
            if isinstance(item, int):
                ids.append(item)
            elif isinstance(item, bytes):
                ids += [self._byte_ids[byte] for byte in item]
            elif item in self.ids and self.types[self.ids[item]] != gguf.TokenType.NORMAL:
                ids.append(self.ids[item])
            else:
                ids.append(self.normal(item))
        return ids


def write_scripted(
    path: Path | str,
    script: Sequence[Item],
    *,
    control: Sequence[str] = (),
    user: Sequence[str] = (),
    normal: Sequence[str] = (),
    bos: str | None = "<s>",
    eos: str | None = "</s>",
    eot: str | None = None,
    add_bos: bool = True,
    add_space_prefix: bool = False,
    chat_template: str | None = None,
    kind: str = "spm",
    order: int = 6,
    n_ctx_train: int = 8192,
    n_layer: int = 1,
    name: str = "Scripted",
    pad_vocab: int = 64,
) -> Path:
    """Write the model. ``control`` and ``user`` are token texts of these types ("<unk>", "<s>", "</s>" and all 256 bytes are
    always there), ``kind`` is "spm" or "bpe". More layers than one do nothing. ValueError where ``order`` tokens do not say
    what follows."""
    path = Path(path)
    vocabulary = Vocabulary(kind, control, user, normal)
    ids = vocabulary.script(script)
    while len(vocabulary.texts) % pad_vocab:
        vocabulary._add(f"<pad{len(vocabulary.texts)}>", gguf.TokenType.UNUSED)
    rules = _rules(ids, order)

    classes = {token: number for number, token in enumerate(dict.fromkeys(ids))}
    n_class = len(classes) + 1  # the last one: every token that is not in the script
    n_vocab = len(vocabulary.texts)
    per_offset = math.ceil(n_class / HEAD)  # heads that copy one offset
    n_head = max(math.ceil(order * n_class / HEAD), (order - 1) * per_offset, 1)
    n_embd = n_head * HEAD
    n_ff = math.ceil((len(rules) + 1) / 32) * 32
    f32 = np.float32

    def at(offset: int, number: int) -> int:
        return offset * n_class + number

    embd = np.zeros((n_vocab, n_embd), f32)
    embd[:, at(0, n_class - 1)] = 1
    output = np.zeros((n_vocab, n_embd), f32)
    for token, number in classes.items():
        embd[token] = 0
        embd[token, at(0, number)] = 1
        output[token, at(0, number)] = 1

    wq, wk, wv, wo = (np.zeros((n_embd, n_embd), f32) for _ in range(4))
    bq, bk = np.zeros(n_embd, f32), np.zeros(n_embd, f32)
    theta = FREQ_BASE ** (-np.arange(HEAD // 2) / (HEAD // 2))
    for offset in range(1, order):
        for part in range(per_offset):
            head = ((offset - 1) * per_offset + part) * HEAD
            bq[head : head + HEAD : 2] = SHARPNESS * np.cos(-offset * theta)
            bq[head + 1 : head + HEAD : 2] = SHARPNESS * np.sin(-offset * theta)
            bk[head : head + HEAD : 2] = SHARPNESS
            for number in range(part * HEAD, min((part + 1) * HEAD, n_class)):
                wv[head + number - part * HEAD, at(0, number)] = 1
                wo[at(offset, number), head + number - part * HEAD] = 1

    gate, up, down = np.zeros((n_ff, n_embd), f32), np.zeros((n_ff, n_embd), f32), np.zeros((n_embd, n_ff), f32)
    always = slice(at(0, 0), at(0, n_class))  # sums to 1 whatever the token
    for unit, (context, follows) in enumerate(rules.items()):
        gate[unit, always] = -40 * (len(context) - 0.5)
        for back, token in enumerate(reversed(context)):
            gate[unit, at(back, classes[token])] += 40
        up[unit, always] = 1
        down[at(0, classes[follows]), unit] = 4.0 ** len(context) / 4
    gate[len(rules), always] = 20
    up[len(rules), always] = 1
    down[at(0, classes[ids[0]]), len(rules)] = 0.4  # 8 against the 1 of the token itself

    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name(name)
    writer.add_type("model")
    writer.add_context_length(n_ctx_train)
    writer.add_embedding_length(n_embd)
    writer.add_block_count(n_layer)
    writer.add_feed_forward_length(n_ff)
    writer.add_head_count(n_head)
    writer.add_head_count_kv(n_head)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_dimension_count(HEAD)
    writer.add_rope_freq_base(FREQ_BASE)
    writer.add_vocab_size(n_vocab)
    writer.add_file_type(0)
    _add_vocabulary(writer, vocabulary, bos, eos, eot, add_bos, add_space_prefix)
    if chat_template is not None:
        writer.add_chat_template(chat_template)

    writer.add_tensor("token_embd.weight", embd)
    writer.add_tensor("output.weight", output)
    writer.add_tensor("output_norm.weight", np.full(n_embd, LOGIT / math.sqrt(n_embd), f32))
    for layer in range(n_layer):
        first = layer == 0
        zero = np.zeros
        blk = f"blk.{layer}"
        writer.add_tensor(f"{blk}.attn_norm.weight", np.full(n_embd, 1 / math.sqrt(n_embd), f32))
        for letter, weight, bias in (("q", wq, bq), ("k", wk, bk), ("v", wv, None)):
            writer.add_tensor(f"{blk}.attn_{letter}.weight", weight if first else zero((n_embd, n_embd), f32))
            writer.add_tensor(f"{blk}.attn_{letter}.bias", bias if first and bias is not None else zero(n_embd, f32))
        writer.add_tensor(f"{blk}.attn_output.weight", wo if first else zero((n_embd, n_embd), f32))
        writer.add_tensor(f"{blk}.ffn_norm.weight", np.full(n_embd, math.sqrt(order / n_embd), f32))
        writer.add_tensor(f"{blk}.ffn_gate.weight", gate if first else zero((n_ff, n_embd), f32))
        writer.add_tensor(f"{blk}.ffn_up.weight", up if first else zero((n_ff, n_embd), f32))
        writer.add_tensor(f"{blk}.ffn_down.weight", down if first else zero((n_embd, n_ff), f32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _rules(ids: Sequence[int], order: int) -> dict[tuple[int, ...], int]:
    """Context -> what follows. Contexts are as long as the script so far, at most ``order``."""
    if not ids:
        raise ValueError("the script is empty")
    rules: dict[tuple[int, ...], int] = {}
    for at in range(1, len(ids)):
        context = tuple(ids[max(0, at - order) : at])
        if rules.setdefault(context, ids[at]) != ids[at]:
            raise ValueError(
                f"after {context} come {rules[context]} and {ids[at]}: split a text differently or raise order"
            )
    return rules


def _add_vocabulary(
    writer: gguf.GGUFWriter,
    vocabulary: Vocabulary,
    bos: str | None,
    eos: str | None,
    eot: str | None,
    add_bos: bool,
    add_space_prefix: bool,
) -> None:
    n = len(vocabulary.texts)
    if vocabulary.kind == "spm":
        writer.add_tokenizer_model("llama")
        writer.add_tokenizer_pre("default")
        writer.add_add_space_prefix(add_space_prefix)
        writer.add_token_scores([-float(index) for index in range(n)])
    else:
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre("qwen2")
        writer.add_token_merges(["Ġ Ġ"])
    writer.add_token_list(vocabulary.texts)
    writer.add_token_types([int(kind) for kind in vocabulary.types])
    for text, add in ((bos, writer.add_bos_token_id), (eos, writer.add_eos_token_id), (eot, writer.add_eot_token_id)):
        if text is not None:
            add(vocabulary.ids[text])
    if vocabulary.kind == "spm":
        writer.add_unk_token_id(0)
    writer.add_add_bos_token(add_bos)
    writer.add_add_eos_token(False)
