"""The built page over HTTP: what each path gives, what keeps it safe, and that the API does not notice it."""

import gzip
from pathlib import Path
from typing import Any

import httpx
import pytest

from serving.routes import pages
from serving.routes.pages import Pages, is_view, takes_gzip

INDEX = b"<!doctype html><title>Ratchet</title>" + b" " * 2000
SCRIPT = b"console.log(1)\n" * 200
POLICY = (
    f"default-src 'none'; script-src 'self'; style-src 'self' '{pages.PLOT_STYLE}' "
    "'sha256-rIQ4bbt1rX2sA/mNONos53PfAjdLWdrYmYPpYkP/mVI='; style-src-attr 'unsafe-inline'; "
    "img-src 'self' data:; font-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)


def write(dist: Path, *, index: bytes = INDEX) -> None:
    (dist / "assets").mkdir(parents=True)
    for name, body in {"index.html": index, "assets/index-C6L3.js": SCRIPT}.items():
        (dist / name).write_bytes(body)
        (dist / f"{name}.gz").write_bytes(gzip.compress(body))
    (dist / "assets/font-A1.woff2").write_bytes(b"font")
    (dist / "favicon.svg").write_bytes(b"<svg/>")
    (dist / ".built").write_text("digest")


@pytest.fixture
def dist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the gateways of this test look for a build; there is none yet."""
    directory = tmp_path / "dist"
    monkeypatch.setattr("serving.app.DIST", directory)
    return directory


async def get(live: Any, path: str, method: str = "GET", **headers: str) -> httpx.Response:
    everything = {"authorization": "", "accept-encoding": "identity", **headers}
    return await live.http.request(method, path, headers={name.replace("_", "-"): v for name, v in everything.items()})


async def test_answers_of_the_api_are_kept_by_no_cache(live: Any) -> None:
    for path in ("/v1/me", "/v1/me/export", "/v1/none"):
        answer = await live.http.get(path)
        assert (answer.headers["cache-control"], answer.headers["x-content-type-options"]) == ("no-store", "nosniff")


async def test_every_view_is_the_index(dist: Path, live: Any) -> None:
    write(dist)
    for path in ("/", "/chat", "/chat/", "/chat/conv_01", "/chat/a/b", "/console", "/console/rounds/4", "/join"):
        answer = await get(live, path)
        assert (answer.status_code, answer.content) == (200, INDEX), path
        assert answer.headers["content-type"] == "text/html; charset=utf-8"
        assert answer.headers["cache-control"] == "no-cache"
        assert answer.headers["content-security-policy"] == POLICY
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"


async def test_assets_are_kept_for_good(dist: Path, live: Any) -> None:
    write(dist)
    script, font = await get(live, "/assets/index-C6L3.js"), await get(live, "/assets/font-A1.woff2")
    assert (script.content, font.content) == (SCRIPT, b"font")
    assert [each.headers["content-type"] for each in (script, font)] == ["text/javascript; charset=utf-8", "font/woff2"]
    assert {each.headers["cache-control"] for each in (script, font)} == {"public, max-age=31536000, immutable"}
    icon = await get(live, "/favicon.svg")
    assert (icon.headers["cache-control"], icon.headers["content-type"]) == ("no-cache", "image/svg+xml")
    assert {each.headers["x-content-type-options"] for each in (script, font, icon)} == {"nosniff"}


async def test_what_was_compressed_is_sent_so_to_who_takes_it(dist: Path, live: Any) -> None:
    write(dist)
    async with live.http.stream("GET", "/assets/index-C6L3.js", headers={"accept-encoding": "br, gzip"}) as answer:
        raw = b"".join([part async for part in answer.aiter_raw()])
    assert answer.headers["content-encoding"] == "gzip"
    assert int(answer.headers["content-length"]) == len(raw) < len(SCRIPT) / 4
    assert (gzip.decompress(raw), answer.headers["content-type"]) == (SCRIPT, "text/javascript; charset=utf-8")
    plain = await get(live, "/assets/index-C6L3.js")
    assert "content-encoding" not in plain.headers
    assert plain.headers["vary"] == answer.headers["vary"] == "accept-encoding"
    assert plain.headers["etag"] != answer.headers["etag"]
    font = await get(live, "/assets/font-A1.woff2", accept_encoding="gzip")
    assert ("content-encoding" in font.headers, "vary" in font.headers) == (False, False)


async def test_an_unchanged_index_is_not_sent_again(dist: Path, live: Any) -> None:
    write(dist)
    first = await get(live, "/")
    again = await get(live, "/chat/x", if_none_match=first.headers["etag"])
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["content-security-policy"] == POLICY
    assert (await get(live, "/", if_none_match='"other"')).status_code == 200


async def test_head_is_get_without_the_body(dist: Path, live: Any) -> None:
    write(dist)
    ours = ("content-length", "content-type", "etag", "cache-control", "content-security-policy")
    for path in ("/", "/assets/index-C6L3.js"):
        head, full = await get(live, path, "HEAD"), await get(live, path)
        assert (head.status_code, head.content) == (200, b"")
        assert [head.headers[name] for name in ours] == [full.headers[name] for name in ours]


NO_PAGES = [
    "/assets/../../secrets.json", "/assets/%2e%2e/%2e%2e/secrets.json", "/chat/../../secrets.json",
    "/..%2fsecrets.json", "/assets/..%5c..%5csecrets.json", "//secrets.json", "/%2e%2e/secrets.json",
    "/assets/link.js", "/assets/index-C6L3.js.gz", "/.built", "/assets", "/assets/", "/assets/none.js",
    "/chat/none.js", "/consolex", "/chatx", "/join/x.js", "/docs", "/v1/nothing", "/secrets.json%00.js",
]  # fmt: skip


async def test_nothing_else_is_served(dist: Path, live: Any, tmp_path: Path) -> None:
    write(dist)
    (tmp_path / "secrets.json").write_text("hush")
    (dist / "assets/link.js").symlink_to(tmp_path / "secrets.json")
    for path in NO_PAGES:
        # httpx would tidy the path up.
        url = httpx.URL(live.url).copy_with(raw_path=path.encode())
        answer = await live.http.send(live.http.build_request("GET", url))
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "unknown_url"), path
        assert "hush" not in answer.text


BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"


async def test_a_browser_that_is_sent_nowhere_is_shown_a_page_with_the_way_home(dist: Path, live: Any) -> None:
    for built in (False, True):
        for path in ("/nowhere", "/chatx", "/chat/none.js"):
            answer = await get(live, path, accept=BROWSER)
            assert (answer.status_code, answer.headers["content-type"]) == (404, "text/html; charset=utf-8")
            assert 'href="/"' in answer.text and "<script" not in answer.text and "nowhere" not in answer.text
            assert answer.headers["content-security-policy"] == POLICY
            assert (answer.headers["cache-control"], answer.headers["vary"]) == ("no-store", "accept")
        if not built:
            write(dist)
    for path, method, accept in (("/nowhere", "GET", "*/*"), ("/nowhere", "POST", BROWSER), ("/v1/no", "GET", BROWSER)):
        answer = await get(live, path, method, accept=accept)
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "unknown_url")


async def test_the_api_knows_no_page(dist: Path, live: Any) -> None:
    write(dist)
    for path in ("/", "/chat/x", "/assets/index-C6L3.js", "/nothing"):
        answer = await get(live, path, "POST")
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "unknown_url")
    for path in ("/health", "/openapi.json", "/v1/models"):
        answer = await live.http.get(path)
        assert answer.headers["content-type"].startswith("application/json")
        assert "content-security-policy" not in answer.headers
    assert {path for path in (await live.http.get("/openapi.json")).json()["paths"] if "chat" in path} == {
        "/v1/chat/completions", "/v1/chat/completions/{id}", "/v1/chat/completions/{id}/cancel",
        "/v1/chat/completions/{id}/messages", "/v1/chat/completions/{id}/stream",
    }  # fmt: skip


async def test_without_a_build_it_says_so_and_the_api_answers(dist: Path, live: Any) -> None:
    for path in ("/", "/chat/x"):
        answer = await get(live, path)
        assert (answer.status_code, answer.text) == (404, pages.NOT_BUILT)
        assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert (await get(live, "/assets/index-C6L3.js")).json()["error"]["code"] == "unknown_url"
    assert (await live.chat("hi", max_tokens=2)).status_code == 200
    write(dist)
    assert (await get(live, "/")).content == INDEX, "a build may come later"


def test_a_build_is_served_as_it_was_while_another_takes_its_place(tmp_path: Path) -> None:
    write(tmp_path / "dist")
    built = Pages(tmp_path / "dist")
    assert built.answer("/", {}).body == INDEX
    (tmp_path / "dist").rename(tmp_path / "old")
    write(tmp_path / "dist", index=b"new")
    assert built.answer("/", {}).body == INDEX


@pytest.mark.parametrize(
    ("accepted", "expected"),
    [
        ("gzip", True), ("br, GZIP;q=0.5", True), ("*", True), ("", False), ("br", False), ("gzip;q=0", False),
        ("gzip; q=0.0, br", False), ("xgzip", False),
    ],
)  # fmt: skip
def test_who_takes_gzip(accepted: str, expected: bool) -> None:
    assert takes_gzip(accepted) is expected


@pytest.mark.parametrize(
    ("path", "expected"), [("/chat/a.b", False), ("/chat/a.b/", False), ("/chat/a.b/c", True), ("/chat/", True)]
)
def test_a_file_name_is_no_view(path: str, expected: bool) -> None:
    assert is_view(path) is expected
