"""`ratchet leaderboard` and GET /v1/leaderboard against a real ledger."""

import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from feedback.leaderboard.ballots import votes_in
from feedback.leaderboard.board import leaderboard
from feedback.leaderboard.standings import Figure, Fragility, Leaderboard, Standing
from feedback.settings import load_secrets
from serving.cli import app
from serving.views.leaderboard import NO_VOTES, plot, remarks, rows
from tests.feedback.booth import Booth

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture
def booth(tmp_path: Path, valkey_url: str, monkeypatch: pytest.MonkeyPatch) -> Booth:
    load_secrets(tmp_path)
    for name, value in {"RATCHET_HOME": str(tmp_path), "RATCHET_REDIS_URL": valkey_url, "COLUMNS": "200"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("TERMINAL_WIDTH", "200")
    return Booth(valkey_url)


def vote(booth: Booth) -> None:
    """6 to 3 for version 1 over the base, on both sides, by three raters; 2 won against 1 once, 4 against 3."""
    for rater, won in [("ann", 1), ("bob", 2), ("eve", 3)]:
        for i in range(3):
            left, right = (1, 0) if i % 2 else (0, 1)
            booth.compare(left, right, winner="left" if (i < won) == (left == 1) else "right", rater=rater)
    booth.compare(2, 1, rater="ann", split="eval")
    booth.compare(4, 3, rater="ann")


def ratchet(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["leaderboard", *arguments])


def test_without_votes_it_says_how_to_get_some(booth: Booth, tmp_path: Path) -> None:
    done = ratchet("--svg", str(tmp_path / "plot.svg"))
    assert done.exit_code == 0, done.output
    assert NO_VOTES in done.stdout
    assert "no votes" in (tmp_path / "plot.svg").read_text()
    assert json.loads(ratchet("--json").stdout)["standings"] == []


def test_versions_are_listed_with_what_is_sure_and_what_is_not(booth: Booth) -> None:
    vote(booth)
    text = ratchet().stdout
    assert "11 votes by 3 raters, 0 of them ties" in text
    assert "policy-v2 cannot be ranked: it won all votes that link it with policy-v0, or lost all" in text
    assert "policy-v4 cannot be ranked: nothing that it was compared with" in text
    told = json.loads(ratchet("--json").stdout)
    assert told == leaderboard(votes_in(booth.ledger)).model_dump(mode="json")
    assert [(s["version"], s["status"]) for s in told["standings"]] == [
        (1, "ranked"), (0, "ranked"), (2, "one_sided"), (3, "unlinked"), (4, "unlinked"),
    ]  # fmt: skip


def test_options_choose_whose_votes_and_what_is_1000(booth: Booth) -> None:
    vote(booth)
    assert json.loads(ratchet("--json", "--raters", "evaluation").stdout)["votes"] == 1
    assert json.loads(ratchet("--json", "--blind").stdout)["votes"] == 11
    anchored = json.loads(ratchet("--json", "--anchor", "1").stdout)
    assert (anchored["standings"][0]["version"], anchored["standings"][0]["elo"]["value"]) == (1, 1000.0)
    plain, drawn = (json.loads(ratchet("--json", *more).stdout) for more in ((), ("--bootstrap", "30")))
    assert plain["standings"][0]["strength"]["value"] == drawn["standings"][0]["strength"]["value"]
    assert plain["standings"][0]["strength"]["low"] != drawn["standings"][0]["strength"]["low"]


def test_unknown_anchor_and_unwritable_plot_are_one_line(booth: Booth, tmp_path: Path) -> None:
    booth.ledger.redis.hset("policy:states", "0", "stable")
    for arguments in (("--anchor", "9"), ("--svg", str(tmp_path / "no" / "plot.svg"))):
        done = ratchet(*arguments)
        assert (done.exit_code, done.stderr.count("\n")) == (1, 1), done.output


def test_the_plot_has_a_point_and_a_bar_for_each_ranked_version(booth: Booth) -> None:
    vote(booth)
    board = leaderboard(votes_in(booth.ledger), stable=1)
    drawn = ElementTree.fromstring(plot(board))
    dots = drawn.findall(f"{SVG}circle")
    assert len(dots) == 2
    first, base = (float(dot.attrib["cx"]) for dot in dots)
    assert first > base, "the stronger one is further right"
    labels = [text.text for text in drawn.findall(f"{SVG}text")]
    assert [label for label in labels if label and label.startswith("policy")] == ["policy-v1", "policy-v0"]
    bars = [line for line in drawn.findall(f"{SVG}line") if line.attrib["stroke"] == "#26c"]
    assert float(bars[0].attrib["x1"]) < first < float(bars[0].attrib["x2"])


def test_rows_and_remarks_say_what_is_unknown(booth: Booth) -> None:
    for winner in ("left", "left", "right"):
        booth.compare(1, 0, winner=winner, rater="ann")
    board = leaderboard(votes_in(booth.ledger), stable=0)
    best, base = rows(board)
    assert (best[0], best[2], best[5:]) == ("policy-v1", "unknown", ("3", "2", "0", "1", "1"))
    assert (base[0], base[1], base[2:5]) == ("policy-v0 (anchor, stable)", "1000", ("", "", ""))
    assert "an interval is unknown where fewer than two raters stand behind it" in remarks(board)


async def test_operators_get_it_over_the_api_as_figures_and_as_a_plot(live: Any) -> None:
    empty = (await live.http.get("/v1/leaderboard")).json()
    assert (empty["votes"], empty["stable"], [s["status"] for s in empty["standings"]]) == (0, 0, ["no_votes"])
    vote(Booth(live.gateway.settings.resolved_redis_url()))
    told = (await live.http.get("/v1/leaderboard")).json()
    assert (told["object"], told["votes"], told["standings"][0]["version"]) == ("leaderboard", 11, 1)
    assert (await live.http.get("/v1/leaderboard", params={"raters": "evaluation"})).json()["votes"] == 1
    image = await live.http.get("/v1/leaderboard", params={"format": "svg"})
    assert image.headers["content-type"].startswith("image/svg+xml")
    assert ElementTree.fromstring(image.text).tag == f"{SVG}svg"


async def test_it_is_for_operators_and_says_what_is_wrong(live: Any) -> None:
    user = {"authorization": f"Bearer {live.user_key}"}
    refused = await live.http.get("/v1/leaderboard", headers=user)
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "insufficient_role")
    assert (await live.http.get("/v1/leaderboard", headers={"authorization": ""})).status_code == 401
    unknown = await live.http.get("/v1/leaderboard", params={"anchor": 9})
    assert (unknown.status_code, unknown.json()["error"]["code"]) == (404, "policy_not_found")
    for name, value in {"raters": "mine", "format": "gif", "anchor": -1, "blind": "maybe"}.items():
        wrong = await live.http.get("/v1/leaderboard", params={name: value})
        assert (wrong.status_code, wrong.json()["error"]["param"]) == (400, name)


def standing(version: int, elo: float, wins: int, losses: int) -> Standing:
    figure = Figure(value=elo, low=None, high=None)
    return Standing(
        version=version, status="ranked", strength=figure, elo=figure, against_stable=None, votes=wins + losses,
        wins=wins, ties=0, losses=losses, raters=2,
    )  # fmt: skip


def test_who_won_most_and_is_not_first_is_explained_and_one_vote_is_one() -> None:
    """Version 1 won 22 of 26 by writing more: by Elo the base leads."""
    board = Leaderboard(
        anchor=0, stable=0, confidence=0.95, votes=26, ties=0, raters=2,
        standings=(standing(0, 1000.0, 4, 22), standing(1, 964.0, 22, 4)), left_wins=None, longer_wins=None,
        fragility=Fragility(leader=0, rival=1, dropped=1),
    )  # fmt: skip
    told = remarks(board)
    assert (
        "policy-v1 won 22 of 26 decisive votes and is not first: Elo leaves out what side and length explain of that"
    ) in told
    assert "without 1 vote (3.8%) policy-v1 would be ahead of policy-v0" in told
    agreed = board.model_copy(update={"standings": (standing(1, 1080.0, 22, 4), standing(0, 1000.0, 4, 22))})
    assert not any("is not first" in line for line in remarks(agreed))
