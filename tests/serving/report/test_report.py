"""`ratchet report` against a real Valkey: the table, the JSON, and the page."""

import json
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from feedback.policies.manifest import Manifest, write_manifest
from feedback.policies.ppo_curves import KEPT, LINES, Curves
from feedback.policies.registry import PolicyRegistry
from feedback.policies.reward_fit import Bin, Change, Fit, RatingFit, Slice
from feedback.rounds.book import RoundBook
from feedback.settings import load_secrets
from feedback.statistics import Interval
from feedback.store import connect
from serving.cli import app
from serving.report.curves import CURVE_HEADINGS, FURTHER, curve_plot, curve_rows
from serving.report.figures import Report
from serving.report.image import plot
from serving.report.page import page, reliability_plot

FIT = Fit(
    prompts=9, rankings=12, pairs=40, ties=1, confidence=0.95,
    accuracy=Interval(0.7125, 0.6, 0.8), log_loss=Interval(0.61, 0.5, 0.7), log_loss_with_ties=None,
    brier=Interval(0.2, 0.15, 0.24), ece=Interval(0.05, 0.0, 0.09), kendall_tau=Interval(0.4, 0.2, 0.6),
    length_slope=Interval(0.012, -0.001, 0.02), agreement=Interval(0.8, 0.7, 0.9), agreement_pairs=5,
    bins=(Bin(predicted=0.6, observed=0.5, pairs=10), Bin(predicted=0.9, observed=0.75, pairs=30)),
    raters=(Slice(name="<script>r</script>", pairs=39, accuracy=0.7), Slice(name="", pairs=1, accuracy=1.0)),
    lengths=(Slice(name="-4 to -1", pairs=40, accuracy=0.7125),),
)  # fmt: skip
CHANGE = Change(
    version=1, prompts=8, pairs=30, confidence=0.95,
    log_loss=Interval(-0.1, -0.2, -0.05), accuracy=Interval(0.02, -0.01, 0.05),
)  # fmt: skip
CURVES = Curves(
    iterations=(1, 2, 4), score=(0.25, 0.75, 1.25), kl=(0.0, 1.0, 4.0), entropy=(1.5, 1.4, 1.1),
    length=(20.0, 22.0, 9.5), clip_fraction=(0.1, 0.1, 0.1), explained_variance=(-0.5, 0.2, 0.6),
    approx_kl=(0.0, 0.01, 0.02), value_clip_fraction=(0.3, 0.2, 0.1), finished=(0.9, 0.9, 1.0),
    repetition=(0.0, 0.1, 0.1), importance_ratio=(1.0, 1.1, 0.9), effective_share=(1.0, 0.8, 0.5),
)  # fmt: skip
RATINGS = RatingFit(
    prompts=1, ratings=7, confidence=0.95, approval=0.571, log_loss=Interval(0.5, 0.4, 0.6),
    brier=Interval(0.125, 0.1, 0.2), entropy=Interval(0.25, 0.0, 0.3),
)  # fmt: skip
OLD = {"prompts": 9, "accuracy": {"mean": 0.7, "low": 0.6, "high": 0.8}, "kendall_tau": 0.4}
NONE = "there is no reward model to go on from"


def kept(fit: Any = None, change: Change | None = None, no_change: str | None = None) -> dict[str, Any]:
    """As training/round/torch_stages.py leaves it."""
    return {
        "held_out": fit.model_dump(mode="json") if isinstance(fit, Fit) else fit,
        "change": change and change.model_dump(mode="json"),
        "no_change": no_change,
    }


Publish = Callable[..., None]


@pytest.fixture
def publish(tmp_path: Path, valkey_url: str, monkeypatch: pytest.MonkeyPatch) -> Publish:
    """Registers a version with what its stages reward and ppo measured."""
    home = tmp_path / "home"
    load_secrets(home)
    for name, value in {"HOME": str(home), "REDIS_URL": valkey_url, "PORT": "1"}.items():
        monkeypatch.setenv(f"RATCHET_{name}", value)
    monkeypatch.setenv("TERMINAL_WIDTH", "200")
    monkeypatch.setenv("COLUMNS", "200")
    registry = PolicyRegistry(connect(valkey_url), home / "policies")

    def publish(version: int, reward: dict[str, Any], **ppo: Any) -> None:
        directory = registry.directory(version)
        directory.mkdir(parents=True)
        manifest = Manifest(
            version=version, parent=version - 1 if version else None, kind="trained" if version else "base",
            base_model="base", dtype="float32", model_path="model", created=1.7e9, files={}, weights={}, golden=(),
            golden_logprobs=(), metrics={"reward": reward, "ppo": ppo} if version else {},
        )  # fmt: skip
        write_manifest(directory, manifest)
        registry.publish(version, actor="test", reason="made")

    return publish


def ratchet(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def test_the_newest_report_is_a_table(publish: Publish) -> None:
    publish(1, kept(FIT, None, NONE))
    publish(2, kept(FIT, CHANGE))
    result = ratchet("report")
    assert result.exit_code == 0, result.output
    lines = [" ".join(line.replace("│", " ").split()) for line in result.stdout.splitlines()]
    assert lines[0] == "reward model of policy-v2: 40 pairs and 1 tie in 12 rankings of 9 prompts that it never saw"
    assert "accuracy 0.713 0.600 to 0.800 share of pairs in the rater's order; a coin has 0.5" in lines
    assert (
        "agreement of raters 0.800 0.700 to 0.900 on 5 pairs that several judged: accuracy can come to 0.887" in lines
    )
    assert any(line.startswith("score per 100 tokens +1.200 -0.100 to +2.000") for line in lines)
    assert "log-loss with ties - no ties" in lines
    assert "log-loss less policy-v1's -0.100 -0.200 to -0.050 better, on the same 8 prompts" in lines
    assert "0.600 0.500 10" in lines
    assert "-4 to -1 40 0.713" in lines
    assert "not named 1 1.000" in lines
    first = ratchet("report", "policy-v1").stdout
    assert NONE in " ".join(first.split())
    assert ratchet("report", "1").stdout == first


def test_the_report_is_json_too(publish: Publish) -> None:
    publish(2, kept(FIT, CHANGE))
    found = json.loads(ratchet("report", "--json").stdout)
    assert (found["version"], found["no_change"]) == (2, None)
    assert Fit.model_validate(found["held_out"]) == FIT
    assert Change.model_validate(found["change"]) == CHANGE


@pytest.mark.parametrize(
    ("version", "complaint"),
    [
        (
            "0",
            "policy-v0 is the base model: it has no reward model yet; `ratchet report --round ID` shows a refused "
            "round's",
        ),
        ("1", "policy-v1: its reward model was held against no ranking that it had not seen"),
        ("2", "policy-v2 has no report: another release of Ratchet trained it"),
        ("3", "policy-v3 does not exist"),
        ("newest", "newest is no version: give a number, such as 3, or `latest`"),
    ],
)
def test_without_a_report_there_is_one_line(publish: Publish, version: str, complaint: str) -> None:
    publish(0, {})
    publish(1, kept())
    publish(2, {"held_out": OLD})
    result = ratchet("report", version)
    assert (result.exit_code, result.stderr) == (1, f"ratchet: {complaint}\n")


def test_without_a_policy_there_is_one_line(publish: Publish) -> None:
    assert ratchet("report").stderr == "ratchet: there is no policy yet\n"


class Tags(HTMLParser):
    """What a file is made of."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))


def test_the_page_is_one_file_that_loads_and_runs_nothing(publish: Publish, tmp_path: Path) -> None:
    publish(2, kept(FIT, CHANGE))
    file = tmp_path / "report.html"
    result = ratchet("report", "--html", str(file))
    assert (result.exit_code, result.stdout) == (0, f"written to {file}\n")
    text = file.read_text()
    tags = Tags(text).tags
    assert not {"script", "link", "img", "iframe", "object", "a"} & {tag for tag, _ in tags}
    assert not any({"src", "href", "onload", "onclick"} & set(attributes) for _, attributes in tags)
    assert "url(" not in text and "@import" not in text
    assert "<td>&lt;script&gt;r&lt;/script&gt;</td><td>39</td><td>0.700</td>" in text
    assert "better, on the same 8 prompts" in text
    refused = ratchet("report", "--html", str(tmp_path / "none" / "x.html"))
    assert refused.exit_code == 1
    assert refused.stderr.endswith("cannot be written: No such file or directory\n")


def test_nothing_of_a_manifest_is_markup() -> None:
    text = page(Report("policy-v2", FIT, None, "<b>bold</b> & so on"))
    assert "&lt;b&gt;bold&lt;/b&gt; &amp; so on" in text
    assert "<b>" not in text


def test_the_plots_are_a_picture_too(publish: Publish, tmp_path: Path) -> None:
    publish(1, kept(FIT, None, NONE), iterations=4, curves=CURVES.model_dump(mode="json"))
    file, html = tmp_path / "report.png", tmp_path / "report.html"
    result = ratchet("report", "--png", str(file), "--html", str(html))
    assert (result.exit_code, result.stdout) == (0, f"written to {html} and {file}\n")
    with Image.open(file) as image:
        assert (image.format, image.size[0]) == ("PNG", 3 * 2 * 348 + 24)  # of three curves beside each other
    assert html.read_text().startswith("<!doctype html>")
    refused = ratchet("report", "--png", str(tmp_path / "none" / "x.png"))
    assert refused.stderr.endswith("cannot be written: No such file or directory\n")


def test_the_picture_has_the_dots_of_the_page() -> None:
    """Two pixels a unit, see the test below. Of blue, 34, 102, 204, there are 178 of 255 parts (.7) over white."""
    image = plot(reliability_plot(FIT.bins))
    assert image.size == (2 * 388, 2 * 388)
    assert [image.getpixel((2 * x, 2 * y)) for x, y in ((104, 194), (284, 119))] == [(101, 148, 219)] * 2
    assert image.getpixel((2 * 104, 2 * 194 - 16)) == image.getpixel((4, 4)) == (255, 255, 255)
    assert image.getpixel((2 * 200, 2 * 44)) != (255, 255, 255), "the frame"
    curve = plot(curve_plot("score", (1, 3), (0.0, 1.0)))
    assert [curve.getpixel((2 * x, 2 * y)) for x, y in ((48, 144), (328, 24))] == [(34, 102, 204)] * 2


def test_a_shape_that_cannot_be_drawn_is_no_gap_in_a_picture() -> None:
    with pytest.raises(ValueError, match="a plot has a path, which cannot be drawn"):
        plot('<svg viewBox="0 0 9 9"><path d="M0 0"/></svg>')


def test_dots_lie_where_their_figures_say() -> None:
    """The plot is 300 wide from 44 on: 0.6 lies a fifth across; half way up is 194, three quarters is 119."""
    dots = [attributes for tag, attributes in Tags(reliability_plot(FIT.bins)).tags if tag == "circle"]
    assert [(dot["cx"], dot["cy"], dot["r"]) for dot in dots] == [("104.0", "194.0", "5.9"), ("284.0", "119.0", "8.0")]


def cells(output: str) -> list[str]:
    return [" ".join(line.replace("│", " ").split()) for line in output.splitlines()]


def test_the_course_of_ppo_is_told(publish: Publish, tmp_path: Path) -> None:
    publish(1, kept(FIT, None, NONE), iterations=4, curves=CURVES.model_dump(mode="json"))
    result = ratchet("report")
    assert result.exit_code == 0, result.output
    told = cells(result.stdout)
    assert "2 0.750 1.000 1.400 22.000 0.100 0.200" in told
    assert "4 1.250 4.000 1.100 9.500 0.100 0.600" in told
    assert Curves.model_validate(json.loads(ratchet("report", "--json").stdout)["curves"]) == CURVES
    file = tmp_path / "report.html"
    assert ratchet("report", "--html", str(file)).exit_code == 0
    labels = [attributes["aria-label"] for tag, attributes in Tags(file.read_text()).tags if tag == "svg"]
    assert labels[1:] == [f"{name} over the iterations of PPO" for name in (*CURVE_HEADINGS[1:], *FURTHER.values())]


def test_a_version_that_kept_fewer_figures_has_fewer_plots(publish: Publish, tmp_path: Path) -> None:
    old = CURVES.model_dump(mode="json", exclude=set(FURTHER))
    publish(1, kept(FIT, None, NONE), iterations=4, curves=old)
    file = tmp_path / "report.html"
    assert ratchet("report", "--html", str(file)).exit_code == 0
    labels = [attributes["aria-label"] for tag, attributes in Tags(file.read_text()).tags if tag == "svg"]
    assert labels[1:] == [f"{name} over the iterations of PPO" for name in CURVE_HEADINGS[1:]]
    assert cells(ratchet("report").stdout) and json.loads(ratchet("report", "--json").stdout)["curves"]["kl"]


def test_a_refused_rounds_report(publish: Publish, valkey_url: str) -> None:
    book = RoundBook(connect(valkey_url))
    for metrics in ({"reward": kept(FIT), "ppo": {"curves": CURVES.model_dump(mode="json")}}, {"collect": {}}):
        id, _ = book.request(trigger="operator", actor="test")
        token = book.claim(id, owner="test", lease_s=60)
        assert token is not None
        book.write(id, token, metrics=metrics, stage="ppo" if "ppo" in metrics else "collect")
        book.finish(id, token, "refused", reason="ppo: it collapsed")
    told = cells(ratchet("report", "--round", "1").stdout)
    assert told[0].startswith("reward model of round 1: 40 pairs")
    assert "1 0.250 0.000 1.500 20.000 0.100 -0.500" in told
    assert json.loads(ratchet("report", "--round", "1", "--json").stdout)["round"] == 1
    for arguments, complaint in (
        (["--round", "2"], "round 2 has no reward model: it is refused in its stage collect"),
        (["--round", "3"], "there is no round 3"),
        (["1", "--round", "1"], "give a version, a round or a run, not several"),
    ):
        result = ratchet("report", *arguments)
        assert (result.exit_code, result.stderr) == (1, f"ratchet: {complaint}\n")


def run_of(tmp_path: Path, lines: list[str], tail: str = "", planned: int | None = None) -> Path:
    """A directory of PPO; `tail` is a line that is being written."""
    directory = tmp_path / "ppo1"
    directory.mkdir()
    (directory / LINES).write_text("".join(f"{line}\n" for line in lines) + tail)
    if planned is not None:
        (directory / "run.json").write_text(json.dumps({"stage": "ppo", "config": {"ppo": {"iterations": planned}}}))
    return directory


def iteration(number: int, *without: str) -> str:
    """As training/ppo/metrics_log.py leaves it: the score is 1, 2, ...; all else is 0.5."""
    figures = dict.fromkeys(set(KEPT.values()) - set(without), 0.5) | {"seconds/update": 2.0}
    return json.dumps({"iteration": number, **figures, "objective/score": float(number)})


def test_a_run_of_ppo_is_told_as_far_as_it_has_come(tmp_path: Path) -> None:
    """Without an installation. Half a line is no iteration yet."""
    run = run_of(tmp_path, [iteration(1), iteration(2)], iteration(3)[:-9], planned=20)
    html, png = tmp_path / "run.html", tmp_path / "run.png"
    result = ratchet("report", "--run", str(run))
    assert result.exit_code == 0, result.output
    title, *told = cells(result.stdout)
    assert title == f"PPO of {run}, iterations: 2 of 20"
    assert "2 2.000 0.500 0.500 0.500 0.500 0.500" in told
    assert not any(line.startswith(("figure", "predicted", "rater", "3 ")) for line in told)
    found = json.loads(ratchet("report", "--run", str(run), "--json").stdout)
    assert (found["run"], found["held_out"], found["curves"]["score"]) == (str(run), None, [1.0, 2.0])
    assert ratchet("report", "--run", str(run), "--html", str(html), "--png", str(png)).exit_code == 0
    tags = Tags(html.read_text()).tags
    assert [tag for tag, _ in tags if tag in ("h1", "h2", "table")] == ["h1", "h2", "table"]
    assert sum(tag == "svg" for tag, _ in tags) == len(KEPT)
    with Image.open(png) as image:
        assert image.size[0] == 3 * 2 * 348 + 24


def test_a_rounds_ppo_of_one_iteration_has_a_page_and_a_picture(tmp_path: Path) -> None:
    """A round's directory does not tell how many there will be, and an older release measured less."""
    run = run_of(tmp_path, [iteration(1, "importance/ess", "completion/finished")])
    html, png = tmp_path / "run.html", tmp_path / "run.png"
    assert ratchet("report", "--run", str(run), "--html", str(html), "--png", str(png)).exit_code == 0
    assert png.stat().st_size > 0 and f"<h1>PPO of {run}, iterations: 1</h1>" in html.read_text()
    found = json.loads(ratchet("report", "--run", str(run), "--json").stdout)["curves"]
    assert (found["repetition"], found["finished"], found["effective_share"]) == ([0.5], None, None)


@pytest.mark.parametrize(
    ("lines", "complaint"),
    [
        ([], "{run} has no iteration yet: its metrics.jsonl is empty"),
        (["{}"], "{run} has no report: it is damaged, or another release of Ratchet trained it"),
        (["1", "2"], "{run} has no report: it is damaged, or another release of Ratchet trained it"),
        ([iteration(1), '{"iter', iteration(3)], "{run} has no report: it is damaged, or another release of"),
        (None, "there is no {run}/metrics.jsonl: `ratchet ppo train` leaves it in --out, and a round in "),
    ],
)
def test_a_run_without_a_report_is_one_line(lines: list[str] | None, complaint: str, tmp_path: Path) -> None:
    run = tmp_path / "none" if lines is None else run_of(tmp_path, lines)
    result = ratchet("report", "--run", str(run))
    assert (result.exit_code, result.stderr.count("\n")) == (1, 1)
    assert result.stderr.startswith(f"ratchet: {complaint.format(run=run)}")
    both = ratchet("report", "3", "--run", str(run))
    assert both.stderr == "ratchet: give a version, a round or a run, not several\n"


def test_a_curve_goes_through_its_points() -> None:
    """The plot is 280 wide from 48 on and 120 high from 24 on: iteration 2 of 1 to 4 lies a third across."""
    plot = curve_plot("KL <nats>", (1, 2, 4), (0.0, 1.0, 4.0))
    (line,) = [attributes for tag, attributes in Tags(plot).tags if tag == "polyline"]
    assert line["points"] == "48.0,144.0 141.3,114.0 328.0,24.0"
    assert "KL &lt;nats&gt;" in plot and "<nats>" not in plot
    assert "<title>iteration 2: 1</title>" in plot
    flat = Tags(curve_plot("clipped", (1,), (0.1,))).tags
    assert [(a["cx"], a["cy"]) for tag, a in flat if tag == "circle"] == [("188.0", "84.0")]


def test_a_long_run_has_a_short_table() -> None:
    many = tuple(float(i) for i in range(100))
    figures = {name: many for name in Curves.model_fields if name != "iterations"}
    rows = curve_rows(Curves(iterations=tuple(range(1, 101)), **figures))
    assert [row[0] for row in rows] == ["1", "10", "19", "28", "37", "46", "55", "64", "73", "82", "91", "100"]


def test_ratings_stand_below_the_pairs() -> None:
    report = Report("rm1", FIT, ratings=RATINGS)
    assert report.rows[: len(Report("rm1", FIT).rows)] == Report("rm1", FIT).rows
    assert [row[:3] for row in report.rows[-3:]] == [
        ("log-loss of ratings", "0.500", "0.400 to 0.600"),
        ("their entropy", "0.250", "0.000 to 0.300"),
        ("their Brier score", "0.125", "0.100 to 0.200"),
    ]
    assert report.rows[-3][3] == "nats on 7 ratings of 1 prompt, 57% approval; who knows nothing has 0.693"
    assert "<td>their entropy</td>" in page(report)


def test_of_few_prompts_it_is_said_that_no_interval_can_be_trusted() -> None:
    few, enough = (Report("policy-v2", FIT.model_copy(update={"prompts": n})).title for n in (5, 6))
    assert few.endswith("12 rankings of 5 prompts that it never saw; of fewer than 6 no interval can be trusted")
    assert enough.endswith("12 rankings of 6 prompts that it never saw")
