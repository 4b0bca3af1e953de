"""Into which batches a prompt is cut, and how much of it is better read again, learned from every batch that is read. Pure."""

from __future__ import annotations

from dataclasses import dataclass

TILE = 64
"""Tokens from which on a batch's attention is computed in tiles on a CPU. WORKAROUND: fewer go through
ggml_compute_forward_flash_attn_ext_f16_one_chunk query by query, at three to five times the cost (ggml-cpu/ops.cpp,
ggml_fa_tile_config::Q and use_tiled; cells of f16 or f32 alone)."""
ENOUGH_HEADS = 128
"""Attention heads of all layers together under which attention is too small a part of a batch to matter."""
FEWEST = 8
"""Fewer tokens than that are cheaper query by query at any depth: the tiles are less than eight times as fast."""
WORTH_S = 0.03
"""What reading more has to spare: less is lost in what measurements differ by."""
_KEPT = 0.8
"""What older measurements weigh against the newest: the machine may be busy now and idle then."""
_SPREAD = 128.0
"""Depths must differ by that many tokens for the share of depth to be told from the rest."""


def batches(n_tokens: int, n_ubatch: int) -> list[int]:
    """How many tokens each batch has: physical batches, the last two shared out so that the last is a tile where it can be."""
    n_full, rest = divmod(n_tokens, n_ubatch)
    sizes = [n_ubatch] * n_full + [rest] * bool(rest)
    if n_full and 0 < rest < TILE and n_ubatch >= 2 * TILE:
        sizes[-2:] = [n_ubatch - TILE + rest, TILE]
    return sizes


@dataclass
class _Line:
    """y = base + slope * x through measurements of which the newest weigh most."""

    weight: float = 0.0
    x: float = 0.0
    y: float = 0.0
    xx: float = 0.0
    xy: float = 0.0

    def add(self, x: float, y: float) -> None:
        self.weight = _KEPT * self.weight + 1
        self.x = _KEPT * self.x + x
        self.y = _KEPT * self.y + y
        self.xx = _KEPT * self.xx + x * x
        self.xy = _KEPT * self.xy + x * y

    def fit(self) -> tuple[float, float] | None:
        """(base, slope), both 0 or more; None where all measurements lie at about one x."""
        if not self.weight:
            return None
        x, y = self.x / self.weight, self.y / self.weight
        variance = self.xx / self.weight - x * x
        if variance < _SPREAD**2 / 4:
            return None
        slope = max(0.0, (self.xy / self.weight - x * y) / variance)
        return max(0.0, y - slope * x), slope


class ReadCost:
    """Seconds that a batch takes: a token's share of the weights, and for each token before it a share of attention, of
    which batches of TILE tokens and more need much less. Of one model with one set of settings on this machine."""

    def __init__(self) -> None:
        self._wide = _Line()
        self._narrow_weight = 0.0
        self._narrow_slope = 0.0

    def note(self, n_tokens: int, depth: int, seconds: float) -> None:
        """A batch of ``n_tokens`` after ``depth`` others took that long."""
        middle, each = depth + n_tokens / 2, seconds / n_tokens
        if n_tokens >= TILE:
            self._wide.add(middle, each)
        elif n_tokens >= FEWEST and depth >= _SPREAD and (line := self._wide.fit()):
            self._narrow_weight = _KEPT * self._narrow_weight + 1
            self._narrow_slope = _KEPT * self._narrow_slope + max(0.0, each - line[0]) / middle

    def to_read(self, n_tokens: int, n_prompt: int) -> int:
        """How many of the last tokens of a prompt of ``n_prompt`` to read where ``n_tokens`` have to be: those, or TILE of
        them where that has proved cheaper."""
        line = self._wide.fit()
        if not FEWEST <= n_tokens < TILE <= n_prompt or line is None or not self._narrow_weight:
            return n_tokens
        base, slope = line
        narrow_slope = self._narrow_slope / self._narrow_weight
        narrow = n_tokens * (base + narrow_slope * (n_prompt - n_tokens / 2))
        wide = TILE * (base + slope * (n_prompt - TILE / 2))
        return TILE if wide + WORTH_S < narrow else n_tokens
