"""Converting the cells of a conversation against reading its tokens again, and moving them into a larger context. A table.

    python -m tests.bench.kv_convert [--model FILE] [--tokens 2000] [--threads 2]

"cells" is all that a change of settings does beside making the context: probes, conversion, restoring. The divergences
are means over the next 64 tokens, in nats, from the distribution before the change.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # before numpy is imported

from tests.engine.kv_lab import F16, F16_NO_FLASH, NAMES, Q4, Q8, Lab, divergence

N_NEXT = 64


def timed(action: Callable[[], Any]) -> tuple[Any, float]:
    """What ``action`` returns, and seconds."""
    start = time.perf_counter()
    result = action()
    return result, time.perf_counter() - start


def starter() -> Path:
    """The starter model."""
    from kvdesk.backend.library.models import starter_model

    path = starter_model()
    assert path is not None, "make setup brings the starter model"
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--tokens", type=int, default=2000)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    lab = Lab(str(options.model or starter()))
    tokens, n = lab.tokens(options.tokens + N_NEXT), options.tokens

    def context(n_ctx: int, kind: tuple[str, str, int]) -> Any:
        return lab.context(n_ctx, kind, n_ubatch=512, n_outputs=N_NEXT, n_threads=options.threads)

    source = context(n + 512, F16)
    _, read_s = timed(lambda: lab.read(source, tokens[:n], at_once=512))
    state, save_s = timed(lambda: lab.transfer.save_sequence(source))
    before = lab.following(source, tokens[n:])
    sample, sample_s = timed(lambda: lab.transfer.probe_state(source, tokens[:2]))
    lab.free(source)

    larger, make_s = timed(lambda: context(2 * n, F16))
    moved, move_s = timed(lambda: lab.transfer.restore_sequence(larger, state))
    assert moved
    lab.free(larger)
    print(f"{n} tokens, {len(state) / 1e6:.1f} MB of cells; read in {read_s:.2f} s")
    print(
        f"move to {2 * n} cells: save {save_s * 1e3:.1f} ms, make {make_s * 1e3:.1f} ms, restore {move_s * 1e3:.1f} ms"
    )
    print("f16 to         cells ms  convert ms   reread s   times   KL converted   KL reread   ratio")
    for kind in (Q8, Q4, F16_NO_FLASH):
        target = context(n + 512, kind)
        probe, probe_s = timed(lambda: lab.transfer.probe_state(target, tokens[:2]))  # noqa: B023 - called at once
        converted, convert_s = timed(lambda: lab.convert.convert_state(state, probe, sample))  # noqa: B023
        restored, restore_s = timed(lambda: lab.transfer.restore_sequence(target, converted))  # noqa: B023
        assert restored
        from_cells = divergence(before, lab.following(target, tokens[n:]))
        lab.clear(target)
        _, reread_s = timed(lambda: lab.read(target, tokens[:n], at_once=512))  # noqa: B023
        from_tokens = divergence(before, lab.following(target, tokens[n:]))
        lab.free(target)
        cells_s = sample_s + probe_s + convert_s + restore_s
        print(
            f"{NAMES[kind]:13} {cells_s * 1e3:9.1f} {convert_s * 1e3:11.1f} {reread_s:10.2f} {reread_s / cells_s:7.0f}"
            f" {from_cells:14.5f} {from_tokens:11.5f} {from_cells / from_tokens:7.2f}"
        )


if __name__ == "__main__":
    main()
