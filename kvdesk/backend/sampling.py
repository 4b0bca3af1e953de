"""How a reply comes about, as settings: thinking, the samplers of llama.cpp with their neutral values, what ends it. Pure.

Names and defaults are llama.cpp's (common/common.h, common_params_sampling). What a field's bounds cannot say is checked by
``sampling_problems`` before anything is sampled.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from kvdesk.backend.settings import Values, described

THINKING: tuple[str, ...] = ("auto", "on", "off")
MIROSTAT: tuple[str, ...] = ("off", "1", "2")


@dataclass(frozen=True)
class SamplingSettings(Values):
    """Whether the model thinks first, how the next token is chosen, what ends the reply. Fields with ``rare`` in their
    metadata are for people who look for them."""

    thinking: str = field(
        default="auto",
        metadata=described(
            "Thinking",
            "Whether the model thinks before it answers; auto is as its template has it.",
            choices=THINKING,
        ),
    )
    thinking_budget: int = field(
        default=-1,
        metadata=described(
            "Thinking Budget",
            "Tokens after which a thought is closed and the answer begins; -1 is no limit.",
            unit="tokens",
            minimum=-1,
            minimum_means="no limit",
            step=64,
        ),
    )
    temperature: float = field(
        default=0.8,
        metadata=described(
            "Temperature", "0 is greedy.", minimum=0.0, maximum=5.0, minimum_means="0 (greedy)", step=0.05
        ),
    )
    top_k: int = field(
        default=40,
        metadata=described("Top K", "Keep the K likeliest tokens; 0 is off.", minimum=0, minimum_means="off"),
    )
    top_p: float = field(
        default=0.95,
        metadata=described(
            "Top P", "Keep tokens up to this probability mass; 1 is off.", minimum=0.0, maximum=1.0, step=0.01
        ),
    )
    min_p: float = field(
        default=0.05,
        metadata=described(
            "Min P",
            "Drop tokens below this share of the best; 0 is off.",
            minimum=0.0,
            maximum=1.0,
            minimum_means="off",
            step=0.01,
        ),
    )
    repeat_penalty: float = field(
        default=1.0, metadata=described("Repeat Penalty", "1 is off.", minimum=0.01, maximum=5.0, step=0.01)
    )
    repeat_last_n: int = field(
        default=64,
        metadata=described(
            "Repeat Window", "Tokens the penalties look back on.", unit="tokens", minimum=0, minimum_means="off"
        ),
    )
    seed: int = field(
        default=-1,
        metadata=described(
            "Seed", "-1 is a new one each time.", minimum=-1, maximum=2**32 - 2, minimum_means="new each time"
        ),
    )
    max_tokens: int = field(
        default=1024,
        metadata=described(
            "Max Tokens", "Longest reply; 0 is no limit.", unit="tokens", minimum=0, minimum_means="no limit", step=64
        ),
    )
    stop: tuple[str, ...] = field(
        default=(),
        metadata=described(
            "Stop Strings",
            "The answer ends before any of these; parted by commas. In thoughts they are text.",
            metavar="TEXT",
            flag_help="end the answer before this text; may be repeated",
        ),
    )
    presence_penalty: float = field(
        default=0.0,
        metadata=described(
            "Presence Penalty",
            "Taken off the logit of a token that is in the Repeat Window; 0 is off.",
            minimum=-2.0,
            maximum=2.0,
            rare=True,
        ),
    )
    frequency_penalty: float = field(
        default=0.0,
        metadata=described(
            "Frequency Penalty",
            "Taken off the logit of a token each time it is in the Repeat Window; 0 is off.",
            minimum=-2.0,
            maximum=2.0,
            rare=True,
        ),
    )
    dry_multiplier: float = field(
        default=0.0,
        metadata=described(
            "DRY Multiplier",
            "How hard a token is held back that would go on with a repetition; 0 is off, 0.8 is usual.",
            minimum=0.0,
            maximum=100.0,
            minimum_means="off",
            rare=True,
        ),
    )
    dry_base: float = field(
        default=1.75,
        metadata=described(
            "DRY Base",
            "The penalty is multiplier x base ^ (length of the repetition - allowed length).",
            minimum=1.0,
            maximum=10.0,
            rare=True,
        ),
    )
    dry_allowed_length: int = field(
        default=2,
        metadata=described(
            "DRY Allowed Length", "Repetitions up to this are free.", unit="tokens", minimum=0, rare=True
        ),
    )
    dry_penalty_last_n: int = field(
        default=64,
        metadata=described(
            "DRY Window",
            "Tokens in which repetitions are looked for; 0 is off.",
            unit="tokens",
            minimum=0,
            maximum=2**20,
            minimum_means="off",
            rare=True,
        ),
    )
    dry_sequence_breakers: tuple[str, ...] = field(
        default=("\\n", ":", '"', "*"),
        metadata=described(
            "DRY Breakers",
            "No repetition goes on across these; parted by commas, \\n is a new line.",
            metavar="TEXT",
            flag_help="no repetition goes on across this text; may be repeated",
            rare=True,
        ),
    )
    top_n_sigma: float = field(
        default=0.0,
        metadata=described(
            "Top N Sigma",
            "Keep tokens whose logit is within N standard deviations of the best; 0 is off.",
            minimum=0.0,
            maximum=100.0,
            minimum_means="off",
            rare=True,
        ),
    )
    typical_p: float = field(
        default=1.0,
        metadata=described(
            "Typical P",
            "Keep tokens about as surprising as this text is, up to this mass; 1 is off.",
            minimum=0.0,
            maximum=1.0,
            step=0.01,
            rare=True,
        ),
    )
    xtc_probability: float = field(
        default=0.0,
        metadata=described(
            "XTC Probability",
            "How often all likely tokens but the least likely of them are taken out; 0 is off.",
            minimum=0.0,
            maximum=1.0,
            minimum_means="off",
            rare=True,
        ),
    )
    xtc_threshold: float = field(
        default=0.1,
        metadata=described(
            "XTC Threshold",
            "What probability makes a token a likely one; above 0.5 XTC is off.",
            minimum=0.0,
            maximum=1.0,
            step=0.01,
            rare=True,
        ),
    )
    dynatemp_range: float = field(
        default=0.0,
        metadata=described(
            "Dynamic Temperature",
            "The temperature goes this far up and down with the entropy of the choice; 0 is off.",
            minimum=0.0,
            maximum=5.0,
            minimum_means="off",
            rare=True,
        ),
    )
    dynatemp_exponent: float = field(
        default=1.0,
        metadata=described(
            "Dynamic Exponent",
            "How entropy becomes temperature; 1 is in proportion.",
            minimum=0.0,
            maximum=10.0,
            rare=True,
        ),
    )
    mirostat: str = field(
        default="off",
        metadata=described(
            "Mirostat",
            "Keeps the surprise of the text constant, in place of Top K, Top P, Min P and the like.",
            choices=MIROSTAT,
            rare=True,
        ),
    )
    mirostat_tau: float = field(
        default=5.0,
        metadata=described(
            "Mirostat Entropy", "Surprise to keep (tau), in bits.", minimum=0.0, maximum=20.0, step=0.1, rare=True
        ),
    )
    mirostat_eta: float = field(
        default=0.1,
        metadata=described(
            "Mirostat Rate", "How fast it adapts (eta).", minimum=0.0, maximum=1.0, step=0.01, rare=True
        ),
    )
    logit_bias: tuple[str, ...] = field(
        default=(),
        metadata=described(
            "Logit Bias",
            "TOKEN=BIAS, parted by commas; TOKEN is a number or a text, BIAS -inf is never.",
            metavar="TOKEN=BIAS",
            flag_help="add BIAS to the logit of a token, by number or text (-inf: never); may be repeated",
            rare=True,
        ),
    )
    grammar: str = field(
        default="",
        metadata=described(
            "Grammar",
            "A GBNF grammar, or a JSON schema, that the answer has to follow; thoughts are free.",
            lines=4,
            placeholder='root ::= "yes" | "no"',
            metavar="TEXT",
            rare=True,
        ),
    )


RECOMMENDATIONS = {
    "temperature": "temp",
    "top_k": "top_k",
    "top_p": "top_p",
    "min_p": "min_p",
    "xtc_probability": "xtc_probability",
    "xtc_threshold": "xtc_threshold",
    "repeat_last_n": "penalty_last_n",
    "repeat_penalty": "penalty_repeat",
    "mirostat": "mirostat",
    "mirostat_tau": "mirostat_tau",
    "mirostat_eta": "mirostat_eta",
}
"""Setting -> what it is called after ``general.sampling.`` in a GGUF's header (llama-arch.cpp)."""


def recommended(read: Callable[[str], str]) -> dict[str, Any]:
    """What a model's file recommends: setting -> value. ``read`` gives the text of a header's entry, "" where there is none.
    A value that the setting cannot have is left out."""
    neutral = SamplingSettings()
    found: dict[str, Any] = {}
    for name, key in RECOMMENDATIONS.items():
        text = read(f"general.sampling.{key}")
        if text:
            found[name] = _read_as(text, getattr(neutral, name))
    found = {name: "off" if (name, value) == ("mirostat", "0") else value for name, value in found.items()}
    possible = SamplingSettings.from_dict(found)
    return {name: getattr(possible, name) for name, value in found.items() if getattr(possible, name) == value}


def _read_as(text: str, neutral: float | str) -> Any:
    """``text`` as what ``neutral`` is: a whole number, one rounded to four places, or itself; None where it is no number."""
    if isinstance(neutral, str):
        return text
    try:
        number = round(float(text), 4)
        return int(number) if isinstance(neutral, int) else number
    except (ValueError, OverflowError):
        return None


def parsed_bias(entry: str) -> tuple[str, float]:
    """What stands before the last ``=`` of ``entry``, and the number after it. ValueError with a sentence's middle."""
    token, _, bias = entry.rpartition("=")
    try:
        value = float(bias)
    except ValueError:
        value = math.nan
    if not token or math.isnan(value) or value == math.inf:
        raise ValueError(f"{entry} is not TOKEN=BIAS, such as 15043=-2 or cat=-inf")
    return token, value


def is_json_schema(grammar: str) -> bool:
    """Whether ``grammar`` is meant as a JSON schema: no GBNF grammar begins with a brace."""
    return grammar.lstrip().startswith("{")


def sampling_problems(sampling: SamplingSettings) -> dict[str, str]:
    """Field name -> why its value cannot be used, as far as that can be told without a model."""
    problems: dict[str, str] = {}
    for entry in sampling.logit_bias:
        try:
            parsed_bias(entry)
        except ValueError as error:
            problems["logit_bias"] = str(error)
    if is_json_schema(sampling.grammar):
        try:
            json.loads(sampling.grammar)
        except ValueError as error:
            place = f", line {error.lineno}" if isinstance(error, json.JSONDecodeError) else ""
            problems["grammar"] = f"This begins like a JSON schema and is no JSON{place}"
        except RecursionError:
            problems["grammar"] = "This JSON schema is nested too deep"
    elif sampling.grammar.strip() and "::=" not in sampling.grammar:
        problems["grammar"] = "A GBNF grammar has a rule root ::= ...; a JSON schema begins with {"
    return problems
