"""`ratchet policies history | lineage | diff | pin | retire …`: what became of versions, and what of them is kept."""

from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from redis import Redis
from rich.markup import escape
from rich.table import Table

from feedback.policies.bundles import BadBundle, export_version, import_version
from feedback.policies.lineage import Lineage, lineage_of
from feedback.policies.manifest import BrokenPolicy
from feedback.policies.registry import PolicyRegistry, in_words
from feedback.retention import Retention
from feedback.store import Ledger
from serving.commands.shared import AsJson, Failure, Home, Version, actor, console, installation, version_number
from serving.views.listing import Listing
from serving.views.version_diff import difference, for_people

Reason = Annotated[str, typer.Option(help="For the audit.")]


def history(
    version: Annotated[
        int | None, typer.Argument(parser=version_number, metavar="[VERSION]", help="Only this version's.")
    ] = None,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Show each change of state: when, by whom and why; oldest first."""
    registry = _registry(home)
    lines = [line for line in registry.audit() if version is None or version in (line.version, line.from_version)]
    if not lines and version is not None and version not in registry.states():
        raise Failure(f"policy-v{version} does not exist")
    if as_json:
        console().print_json(data=[line.model_dump() for line in lines])
        return
    headings = ("time", "version", "action", "in place of", "by", "reason")
    table = Listing(headings, "nothing has become of any version yet", frozenset({"reason"}))
    for line in lines:
        before = "" if line.from_version is None else f"policy-v{line.from_version}"
        when = f"{datetime.fromtimestamp(line.time):%Y-%m-%d %H:%M:%S}"
        table.add(when, f"policy-v{line.version}", in_words(line.action), before, line.actor, line.reason)
    console().print(table)


def pin(version: Version, reason: Reason = "pinned by hand", home: Home = None) -> None:
    """Keep a version's weights, however old it gets."""
    if not _registry(home).pin(version, pinned=True, actor=actor(), reason=reason):
        raise Failure(f"policy-v{version} is pinned already")
    typer.echo(f"policy-v{version} is pinned")


def unpin(version: Version, reason: Reason = "unpinned by hand", home: Home = None) -> None:
    """Let a version's weights go when it gets old."""
    if not _registry(home).pin(version, pinned=False, actor=actor(), reason=reason):
        raise Failure(f"policy-v{version} is not pinned")
    typer.echo(f"policy-v{version} is no longer pinned")


def retire(version: Version, reason: Reason = "retired by hand", home: Home = None) -> None:
    """Delete a version's weights for good, unless something needs them; what is known of it stays."""
    Retention(_registry(home)).retire(version, actor=actor(), reason=reason)
    typer.echo(f"policy-v{version} is deleted; `ratchet policies show {version}` still tells of it")


def diff(left: Version, right: Version, home: Home = None, as_json: AsJson = False) -> None:
    """Show in what two versions differ: lineage, config, metrics, and what the gate asked of each."""
    registry = _registry(home)
    manifests = registry.manifest(left), registry.manifest(right)
    found = difference(*manifests, lineage_of(registry, left), lineage_of(registry, right))
    if as_json:
        console().print_json(data=found)
        return
    judged = found["judgements"]
    ancestor = found["common_ancestor"]
    typer.echo(
        f"nearest common ancestor: {'none' if ancestor is None else f'policy-v{ancestor}'}; judgements that trained: "
        f"{judged['left']} only v{left}'s, {judged['both']} of both, {judged['right']} only v{right}'s"
    )
    for part in ("lineage", "config", "metrics", "gate"):
        table = Table(part, f"policy-v{left}", f"policy-v{right}")
        for name, pair in for_people(found[part]).items():
            table.add_row(name, *(_shown(value) for value in pair))
        if table.rows:
            console().print(table)
    typer.echo("curves and all other figures that are lists: `--json`")


def lineage(
    of: Annotated[str, typer.Argument(metavar="VERSION|COMPLETION", help="Such as 3, or the id of an answer.")],
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Show where a version, or the one that wrote an answer, comes from: its round, judgements and reward model."""
    settings, redis = installation(home)
    registry = PolicyRegistry(redis, settings.policies_dir)
    found = lineage_of(registry, _version(redis, of))
    if as_json:
        console().print_json(data=found.model_dump(mode="json"))
        return
    table = Table(f"policy-v{found.version}", in_words(found.state))
    for name, value in _rows(found).items():
        table.add_row(name, value)
    console().print(table)


def export(
    version: Version,
    file: Annotated[Path, typer.Argument(dir_okay=False, help="The tar to write; it must not exist.")],
    home: Home = None,
) -> None:
    """Write a version into one file, for another installation of the same base model; it names no people."""
    try:
        size = export_version(_registry(home), version, file)
    except FileExistsError as error:
        raise Failure(f"{error.filename2 or error.filename} exists: nothing is overwritten") from error
    except (BadBundle, OSError) as error:
        raise Failure(f"policy-v{version} was not exported: {error}") from error
    typer.echo(f"policy-v{version} is in {file}: {size:,} bytes")


def import_(
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="What `export` wrote.")],
    reason: Reason = "imported by hand",
    home: Home = None,
) -> None:
    """Take an exported version in as a candidate under a new number; every byte of it is checked first."""
    try:
        version = import_version(_registry(home), file, actor=actor(), reason=reason)
    except (BadBundle, BrokenPolicy, OSError) as error:
        raise Failure(f"{file} was not imported: {error}") from error
    typer.echo(f"{file} is policy-v{version}, a candidate: `ratchet promote {version}` lets it serve once it is proven")


def _version(redis: Redis, of: str) -> int:
    """The version that is named, or the one that wrote the answer of this id."""
    try:
        return version_number(of)
    except typer.BadParameter:
        return _writer(redis, of)


def _writer(redis: Redis, completion_id: str) -> int:
    completion = Ledger(redis).completions((completion_id,)).get(completion_id)
    if completion is None:
        raise Failure(f"{completion_id} is neither a version nor the id of an answer that is kept")
    if completion.policy_version is None:
        raise Failure(f"{completion_id} was imported: no policy of this installation wrote it")
    if (changed := completion.version_changed_at) is not None:
        typer.echo(
            f"{completion_id} is by two versions: policy-v{completion.policy_version} wrote its first {changed} "
            "tokens, the one that took its place the rest; this is of the first",
            err=True,
        )
    return completion.policy_version


def _rows(found: Lineage) -> dict[str, str]:
    rows = {
        "comes from": ", ".join(f"policy-v{version}" for version in found.ancestors),
        "went on to": ", ".join(f"policy-v{version}" for version in found.descendants),
        "round": "" if found.round is None else f"{found.round} ({found.trigger or 'unknown trigger'})",
        "feedback": _period(found.since, found.watermark),
        "collected": ", ".join(_counted(count, kind) for kind, count in found.judgements.items() if count),
        "trained on": f"{_counted(len(found.feedback_ids), 'judgements')}, {_counted(found.live, 'live answers')}; "
        f"words of {found.raters} {'person' if found.raters == 1 else 'people'}",
        "reward model": found.reward_model or "",
        # The base, which nobody trained, has no reward model: then this one began anew.
        "which went on from": f"policy-v{found.reward_origin}" if found.reward_origin else "",
        "imported": _shown(found.imported),
    }
    return {name: value for name, value in rows.items() if value}


def _period(since: str | None, watermark: str | None) -> str:
    """When the first and the last of the feedback came, of which the ids in the ledger tell."""
    if watermark is None:
        return ""
    began = "from the beginning" if since in (None, "0") else f"after {_moment(str(since))}"
    return f"{began}, up to {_moment(watermark)}"


def _moment(id: str) -> str:
    """`1795761822025-0` as a date: the first part is milliseconds since 1970."""
    return f"{datetime.fromtimestamp(int(id.partition('-')[0]) / 1000):%Y-%m-%d %H:%M:%S}"


def _counted(count: int, kind: str) -> str:
    """`1 held-out ranking`, `2 held-out rankings`; `live` are answers, `unencodable` are a quality."""
    words = kind.replace("held_out", "held-out").replace("_", " ")
    return f"{count} {words.removesuffix('s') if count == 1 else words}"


def _registry(home: Path | None) -> PolicyRegistry:
    settings, redis = installation(home)
    return PolicyRegistry(redis, settings.policies_dir)


def _shown(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(_shown(each) for each in value) or "none"
    if isinstance(value, dict):
        return escape(", ".join(f"{name} {_shown(each)}" for name, each in value.items()))
    return "" if value is None else f"{value:.4g}" if isinstance(value, float) else escape(str(value))
