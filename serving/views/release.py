"""A release on the screen: what it waits for, and how far it is from a decision."""

from datetime import datetime
from typing import Any

from rich.markup import escape
from rich.table import Table

from feedback.releases.book import Release, Transition, describe
from serving.views.listing import Listing
from serving.views.release_steps import duration, in_short
from serving.views.round import clock

MARKS = {"taken": "done", "under way": "-> ", "to come": "", "not taken": ""}
#: What the votes came to where they ended it, by how it ended.
BY_VOTES = {"promoted": "promote", "rolled_back": "roll back", "inconclusive": "inconclusive"}
BAR = 20
LAPSED = "all steps are taken, but the votes that took one no longer say that it is better"
NONE_YET = "there has been no release yet: `ratchet release start VERSION` begins one"


def listing(releases: list[Release]) -> Listing:
    headings = ("release", "candidate", "beside", "state", "began", "steps", "by", "reason")
    table = Listing(headings, NONE_YET, frozenset({"steps", "reason"}))
    for release in releases:
        began, names = _time(release.created), (f"policy-v{release.candidate}", f"policy-v{release.stable}")
        steps, said = in_short(release.plan.steps), (release.actor, release.reason)
        table.add(str(release.id), *names, describe(release), began, steps, *said)
    return table


def history(lines: list[Transition]) -> Listing:
    table = Listing(("time", "release", "became", "by", "reason"), NONE_YET, frozenset({"reason"}))
    for line in lines:
        table.add(_time(line.time), str(line.release.id), describe(line.release), line.actor, _reason(line))
    return table


def _reason(line: Transition) -> str:
    """Without what it became, which stands beside it."""
    release, became = line.release, describe(line.release)
    if release.state == "replaced":
        return f"{release.why}: {line.reason}"
    return line.reason.removesuffix(became).removesuffix(": ")


def in_full(card: dict[str, Any]) -> Table:
    """Everything known of one, from what `release_facts.facts` tells."""
    table = Table(f"release {card['id']}", f"policy-v{card['candidate']} beside policy-v{card['stable']}")
    for name, value in rows(card):
        table.add_row(name, escape(value))
    return table


def rows(card: dict[str, Any]) -> list[tuple[str, str]]:
    """A name and what to say, in the order of the screen; what is not known is left out."""
    state = f"{card['is']}; {card['mode']}" if card["open"] else f"{card['is']}: {card['why']}"
    steps = [f"{MARKS[step['state']]:<5}{step['says']}" for step in card["steps"]]
    told = [
        ("state", state),
        ("next", awaited(card)),
        ("begun", f"{_time(card['created'])} by {card['actor']}: {card['reason']}"),
        ("steps", "\n".join(steps)),
        ("time", "\n".join(waited(card))),
        ("votes", votes_of(card)),
        ("voters", voters_of(card)),
        ("win rate", _figure(card["win_rate"])),
        ("evidence", _evidence(card["evidence"])),
        ("forecast", (card["forecast"] or "") if card["open"] and not card["proposed"] else ""),
        ("thumbs", _thumbs(card["thumbs"])),
        *((each["name"].replace("_", " "), _guardrail(each)) for each in card["guardrails"]),
        ("engine", _engine(card["engine"])),
        ("self-test", "" if card["self_test"] is None else tested(card["self_test"])),
        _said(card),
    ]
    return [(name, value) for name, value in told if value]


def awaited(card: dict[str, Any]) -> str:
    """Whose turn it is, where it is not the plan's."""
    if not card["open"]:
        return ""
    if card["paused"]:
        since = _time(card["paused_at"])
        if card["is"].startswith("waiting"):
            return f"its plan waits for an operator since {since}: `ratchet release promote` passes the step"
        why = f": {card['paused_why']}" if card["paused_why"] else ""
        return f"paused {since} by {card['paused_by'] or 'somebody'}{why}; `ratchet release resume` goes on"
    if not card["proposed"]:
        return ""
    if card["mode"] == "automatic":
        if card["by_votes"] and card["outcome"] not in (None, "promote"):
            return f"{LAPSED}: it waits until they do again or its deadline; `ratchet release promote` lets it serve"
        return "all steps are taken: it is promoted by itself, but not while frozen, nor while the self-test alarms"
    return "all steps are taken: `ratchet release promote` lets it serve, `ratchet release abort` does not"


def waited(card: dict[str, Any]) -> list[str]:
    """How much has passed of the time that bounds it as it stands."""
    passed, plan = card["passed"], card["plan"]
    if passed is None:
        return []
    under_way = plan["steps"][card["step"] : card["step"] + 1]
    confirmed = card["proposed"] and not (card["by_votes"] and card["mode"] == "automatic")
    bounds = [
        (passed["in_step"], under_way[0].get("pause") if under_way else None, "in this step"),
        (passed["in_all"], None if confirmed else plan["deadline"], "until it ends undecided"),
        (passed["unheld"], plan["patience"] if passed["unheld"] else None, "until it is aborted for want of an engine"),
    ]
    return [f"{clock(seconds)} of {duration(most)} {what}" for seconds, most, what in bounds if most is not None]


def _said(card: dict[str, Any]) -> tuple[str, str]:
    """What the votes say, and whether they ended it. What was undecided at the end needs no more votes."""
    votes, outcome = card["votes"], card["outcome"]
    if card["open"] or votes is None:
        return "so far", card["says"] or ""
    if BY_VOTES.get(card["state"]) == outcome:
        return "decided by", card["says"]
    if outcome != "undecided":
        return "votes then", card["says"]
    won, decisive = votes["won"], votes["won"] + votes["lost"]
    return "votes then", f"The candidate had won {won} of {decisive} decisive votes, which decided nothing."


def tested(test: dict[str, Any]) -> str:
    """Stable against itself."""
    return f"{'ALARM' if test['alarm'] else 'ok'}: {_towards(test)}; {test['says']}"


def bar(share: float) -> str:
    """`[#####---------------]`: how much of what is needed is there."""
    full = round(BAR * min(max(share, 0.0), 1.0))
    return f"[{'#' * full}{'-' * (BAR - full)}]"


def votes_of(card: dict[str, Any]) -> str:
    votes = card["votes"]
    whose = "raters who never train" if card["whose"] == "evaluation" else "all raters"
    if votes is None:
        return f"none counted yet, of {whose}"
    beyond = f"; {votes['not_counted']} beyond what one rater may say" if votes["not_counted"] else ""
    return f"{votes['won']} won, {votes['lost']} lost, {votes['tied']} tied, of {whose}{beyond}"


def voters_of(card: dict[str, Any]) -> str:
    """How many have voted, beside how many were known when it began: so many can be reckoned with."""
    voted, may = card["voters"]["voted"], card["voters"]["may_vote"]
    known = "" if may is None else f"{may:,} who may vote were known when it began"
    return "; ".join(filter(None, ("" if voted is None else f"{voted:,} voted", known)))


def _figure(figure: dict[str, float] | None) -> str:
    return "" if figure is None else f"{figure['value']:.1%} ({figure['low']:.1%} to {figure['high']:.1%})"


def _evidence(evidence: dict[str, Any] | None) -> str:
    if evidence is None:
        return ""
    return f"{_towards(evidence)} for {evidence['for']}"


def _towards(known: dict[str, Any]) -> str:
    """How much evidence is there, of how much is needed; below 0 it speaks against, so there is none."""
    has, needs = max(known["log_e"], 0.0), known["threshold"]
    return f"{bar(has / needs)} {has:.2f} of {needs:.2f}"


def _thumbs(figure: dict[str, float] | None) -> str:
    if figure is None:
        return ""
    value, low, high = (100 * figure[name] for name in ("value", "low", "high"))
    return f"{value:+.1f} points of thumbs up ({low:+.1f} to {high:+.1f})"


def _guardrail(known: dict[str, Any]) -> str:
    ratio, value, units = known["name"] != "score", known["value"], known["units"]
    limit = f"at most {known['limit']:.2f}" if ratio else f"lower by at most {known['limit']:.2f}"
    found = "" if value is None else f"{value:.2f} times stable's, " if ratio else f"{_lower(value)}; allowed: "
    verdict = "too few yet" if known["verdict"] == "unknown" and value is not None else known["verdict"]
    return f"{verdict}: {found}{limit}; {units['candidate']:,} conversations beside {units['stable']:,}"


def _lower(by: float) -> str:
    """Than stable's score."""
    return f"higher by {-by:.2f}" if by < 0 else f"lower by {by:.2f}"


def _engine(engine: dict[str, Any] | None) -> str:
    if engine is None:
        return ""
    cause = f": {engine['cause']}" if engine["cause"] else ""
    return f"policy-v{engine['version']}, {engine['state'] or 'wanted'}{cause}"


def _time(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds):%Y-%m-%d %H:%M:%S}"
