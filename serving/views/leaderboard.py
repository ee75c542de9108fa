"""The leaderboard of policy versions as rows of a table, as sentences, and as a plot: one SVG that loads nothing."""

from feedback.leaderboard.standings import Figure, Leaderboard, Standing

HEADINGS = ("version", "Elo", "interval", "wins over stable", "interval", "votes", "won", "tied", "lost", "raters")
NO_VOTES = (
    "no votes on different versions yet: lay answers of two versions side by side (POST /v1/comparisons), and vote"
)
UNKNOWN = "unknown"
WIDTH, ROW, LEFT, TOP, BOTTOM = 420, 28, 110, 34, 40


def rows(board: Leaderboard) -> list[tuple[str, ...]]:
    """A row for each version, the strongest first."""
    return [_row(each, board) for each in board.standings]


def _row(standing: Standing, board: Leaderboard) -> tuple[str, ...]:
    mark = {board.anchor: " (anchor)", board.stable: " (stable)"}.get(standing.version, "")
    both = " (anchor, stable)" if board.anchor == board.stable == standing.version else mark
    counts = (standing.votes, standing.wins, standing.ties, standing.losses, standing.raters)
    own = standing.version == board.stable
    return (
        f"policy-v{standing.version}{both}",
        "unknown" if standing.elo is None else f"{standing.elo.value:.0f}",
        "" if standing.version == board.anchor else _interval(standing.elo, ".0f"),
        "" if own or standing.against_stable is None else f"{standing.against_stable.value:.3f}",
        "" if own else _interval(standing.against_stable, ".3f"),
        *map(str, counts),
    )


def _interval(figure: Figure | None, format: str) -> str:
    if figure is None:
        return ""
    if figure.low is None or figure.high is None:
        return UNKNOWN
    return f"{figure.low:{format}} to {figure.high:{format}}"


def remarks(board: Leaderboard) -> list[str]:
    """What the table does not say, one sentence each."""
    if not board.votes:
        return [NO_VOTES]
    alone = any(s.strength and s.strength.low is None for s in board.standings)
    lines = [
        f"{board.votes} votes by {board.raters} raters, {board.ties} of them ties; intervals: {board.confidence:.0%}, "
        f"raters are what is independent; Elo 1000 is policy-v{board.anchor}",
        _sided(board.left_wins, "the left one of two equal answers is preferred in"),
        _sided(board.longer_wins, "one that is twice as long is preferred in"),
        _fragile(board),
        _turned(board),
        "an interval is unknown where fewer than two raters stand behind it" if alone else "",
        *(_why_unranked(s, board.anchor) for s in board.standings if s.status in ("one_sided", "unlinked")),
    ]
    return [line for line in lines if line]


def _sided(figure: Figure | None, what: str) -> str:
    return "" if figure is None else f"{what} {figure.value:.3f} ({_interval(figure, '.3f')}): taken out of Elo"


def _fragile(board: Leaderboard) -> str:
    found = board.fragility
    if found is None:
        return ""
    if found.dropped is None:
        return f"policy-v{found.leader} stays first whichever half of the votes is dropped, as far as was tried"
    share, votes = found.dropped / board.votes, "1 vote" if found.dropped == 1 else f"{found.dropped} votes"
    return f"without {votes} ({share:.1%}) policy-v{found.rival} would be ahead of policy-v{found.leader}"


def _turned(board: Leaderboard) -> str:
    """Why a version that won more of its votes than the first one is not the first."""
    ranked = [each for each in board.standings if each.elo is not None and each.wins + each.losses]
    if not ranked:
        return ""
    most = max(ranked, key=_won)
    if _won(most) <= _won(ranked[0]):
        return ""
    votes = f"{most.wins} of {most.wins + most.losses} decisive votes"
    return f"policy-v{most.version} won {votes} and is not first: Elo leaves out what side and length explain of that"


def _won(standing: Standing) -> float:
    """The share of its decisive votes, as they were cast."""
    return standing.wins / (standing.wins + standing.losses)


def _why_unranked(standing: Standing, anchor: int) -> str:
    name = f"policy-v{standing.version} cannot be ranked:"
    if standing.status == "unlinked":
        return f"{name} nothing that it was compared with was compared with policy-v{anchor}, not even by way of others"
    return f"{name} it won all votes that link it with policy-v{anchor}, or lost all"


def plot(board: Leaderboard) -> str:
    """Elo with its interval, a line for each version that is ranked, the strongest at the top."""
    shown = [(s, s.elo) for s in board.standings if s.elo is not None]
    height = TOP + ROW * max(len(shown), 1) + BOTTOM
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {LEFT + WIDTH + 30} {height}" role="img" '
        'font-family="system-ui, sans-serif" font-size="12" aria-label="Elo of policy versions, with intervals">\n'
        f'<rect width="100%" height="100%" fill="#fff"/>\n<text x="{LEFT}" y="18">Elo, {board.confidence:.0%} '
        f"intervals; {board.votes} votes by {board.raters} raters</text>\n"
    )
    if not shown:
        return head + f'<text x="12" y="{TOP + 18}">no votes that rank a version yet</text>\n</svg>\n'
    low, high = _span([elo for _, elo in shown])
    lines = [_line(s, elo, TOP + ROW * i + ROW / 2, low, high) for i, (s, elo) in enumerate(shown)]
    foot = TOP + ROW * len(shown)
    ticks = [_tick(low + (high - low) * part / 4, foot, low, high) for part in range(5)]
    anchor = _x(1000, low, high)
    dashes = f'<line x1="{anchor:.1f}" x2="{anchor:.1f}" y1="{TOP}" y2="{foot}" stroke="#999" stroke-dasharray="4 4"/>'
    return head + "\n".join([dashes, *lines, *ticks]) + "\n</svg>\n"


def _span(figures: list[Figure]) -> tuple[float, float]:
    """What the axis shows: all intervals, and some room."""
    bounds = [b for f in figures for b in (f.value, f.low, f.high) if b is not None]
    room = max((max(bounds) - min(bounds)) * 0.05, 5.0)
    return min(bounds) - room, max(bounds) + room


def _x(elo: float, low: float, high: float) -> float:
    return LEFT + WIDTH * (elo - low) / (high - low)


def _line(standing: Standing, elo: Figure, y: float, low: float, high: float) -> str:
    at = _x(elo.value, low, high)
    bar = ""
    if elo.low is not None and elo.high is not None:
        ends = f'x1="{_x(elo.low, low, high):.1f}" x2="{_x(elo.high, low, high):.1f}"'
        bar = f'<line {ends} y1="{y:.1f}" y2="{y:.1f}" stroke="#26c" stroke-width="2"/>'
    title = f"policy-v{standing.version}: {elo.value:.0f}, {_interval(elo, '.0f')}; {standing.votes} votes"
    return (
        f'<text x="{LEFT - 10}" y="{y + 4:.1f}" text-anchor="end">policy-v{standing.version}</text>{bar}'
        f'<circle cx="{at:.1f}" cy="{y:.1f}" r="4" fill="#26c"><title>{title}</title></circle>'
    )


def _tick(elo: float, foot: float, low: float, high: float) -> str:
    x = _x(elo, low, high)
    mark = f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{foot}" y2="{foot + 5}" stroke="#999"/>'
    return f'{mark}<text x="{x:.1f}" y="{foot + 20}" text-anchor="middle">{elo:.0f}</text>'
