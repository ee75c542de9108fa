"""The web page as it was built: its files, from memory, with what keeps foreign scripts out of it."""

import base64
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Self

from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.routing import BaseRoute, Match
from starlette.types import Receive, Scope, Send

DIST = Path(__file__).parent.parent / "web" / "dist"
#: Views of the page, which its own script tells apart.
VIEWS = ("/chat", "/console", "/join")
ASSETS = "/assets/"
TYPES = {
    ".html": "text/html; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml", ".png": "image/png", ".ico": "image/x-icon", ".woff2": "font/woff2",
    ".woff": "font/woff", ".ttf": "font/ttf", ".json": "application/json", ".map": "application/json",
    ".webmanifest": "application/manifest+json", ".txt": "text/plain; charset=utf-8",
}  # fmt: skip
# The element of style that the library of plots puts into each drawing: tests/web see when another version differs.
PLOT_STYLE = "sha256-jSYQUrW7J0b3jPqhZP9C2Xh1PyJKHKXd4s0fpGGKrww="
# As the page looks, without any of its files: a build need not be there, nor need anybody be signed in.
NOWHERE_STYLE = """
body { display: grid; min-height: 100vh; margin: 0; place-items: center; background: light-dark(#fcfbf9, #191a1c);
  color: light-dark(#1f1e1c, #e8e6e2); font: 16px / 1.55 system-ui, sans-serif; }
main { width: min(22rem, 100% - 3rem); }
h1 { font-size: 1.75rem; letter-spacing: -0.02em; }
a { color: light-dark(#9c4421, #e8935f); }
"""
NOWHERE = f"""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>Not found · Ratchet</title>
<style>{NOWHERE_STYLE}</style>
<main>
<h1>Ratchet</h1>
<p>There is no such page here.</p>
<p><a href="/">To the chat</a></p>
</main>
</html>
"""


def digest_of(style: str) -> str:
    """What a policy calls an element of this text."""
    return f"sha256-{base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()}"


HEADERS = {
    # Of styles only attributes may come with markup: what typesets formulas parses such.
    "content-security-policy": "default-src 'none'; script-src 'self'; "
    f"style-src 'self' '{PLOT_STYLE}' '{digest_of(NOWHERE_STYLE)}'; style-src-attr 'unsafe-inline'; "
    "img-src 'self' data:; font-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}
NOT_BUILT = "The web page is not built here: `make run` builds it. The API answers as ever, at /v1.\n"


class Body(NamedTuple):
    """What is sent, and its name for caches."""

    data: bytes
    etag: str

    @classmethod
    def of(cls, file: Path) -> Self:
        data = file.read_bytes()
        return cls(data, f'"{hashlib.sha256(data).hexdigest()[:32]}"')


@dataclass(frozen=True)
class Page:
    """A file and, if there is one, its compressed form; a name under ASSETS tells what is in it, for good."""

    body: Body
    zipped: Body | None
    media_type: str
    hashed: bool

    def answer(self, headers: Mapping[str, str]) -> Response:
        zipped = self.zipped if self.zipped is not None and takes_gzip(headers.get("accept-encoding", "")) else None
        body = self.body if zipped is None else zipped
        told = HEADERS | {
            "cache-control": "public, max-age=31536000, immutable" if self.hashed else "no-cache",
            "etag": body.etag,
        }
        if self.zipped is not None:
            told["vary"] = "accept-encoding"
        if told["etag"] in headers.get("if-none-match", ""):
            return Response(status_code=304, headers=told)
        if zipped is not None:
            told["content-encoding"] = "gzip"
        return Response(body.data, headers=told | {"content-type": self.media_type})


class Pages:
    """All files of a build, by path. They are read at the start, or when first asked for if the build comes later; one
    that replaces another is not, so that what is served fits together, in all processes of one start."""

    def __init__(self, dist: Path) -> None:
        self._dist = dist
        self._files: dict[str, Page] = {}
        self._built()

    def has(self, path: str) -> bool:
        return is_view(path) or path in self._built()

    def answer(self, path: str, headers: Mapping[str, str]) -> Response:
        """Of a path that `has` says is here."""
        page = self._built().get("/index.html" if is_view(path) else path)
        if page is None:
            return PlainTextResponse(NOT_BUILT, status_code=404, headers=HEADERS | {"cache-control": "no-cache"})
        return page.answer(headers)

    def _built(self) -> dict[str, Page]:
        if not self._files and (self._dist / "index.html").is_file():
            self._files = read_all(self._dist)
        return self._files


class PageRoute(BaseRoute):
    """GET and HEAD of the page's paths, and by a browser of any. It comes after all other routes, and of anything else
    it is none: what the API does not know stays unknown, with the API's error."""

    path = "/"  # in logs and metrics

    def __init__(self, pages: Pages) -> None:
        self._pages = pages

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        asked = scope["type"] == "http" and scope["method"] in ("GET", "HEAD")
        ours = asked and (self._pages.has(scope["path"]) or is_lost(Request(scope)))
        return (Match.FULL, {"route": self}) if ours else (Match.NONE, {})

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        here = self._pages.has(scope["path"])
        response = self._pages.answer(scope["path"], Request(scope).headers) if here else nowhere()
        await response(scope, receive, send)


def nowhere() -> Response:
    return HTMLResponse(NOWHERE, status_code=404, headers=HEADERS | {"cache-control": "no-store", "vary": "accept"})


def is_lost(request: Request) -> bool:
    """A browser that was sent to what is not here; a client of the API wants the API's error."""
    return "text/html" in request.headers.get("accept", "") and not request.url.path.startswith("/v1/")


def is_view(path: str) -> bool:
    """A place in the page, whose last part is no file's name."""
    inside = path.startswith(tuple(f"{view}/" for view in VIEWS)) and "." not in path.rstrip("/").rpartition("/")[2]
    return path == "/" or path in VIEWS or inside


def read_all(dist: Path) -> dict[str, Page]:
    """By path below `dist`; what is hidden, leads elsewhere or is another file's compressed form is no page."""
    found = {}
    for file in sorted(dist.rglob("*")):
        place = file.relative_to(dist)
        if not file.is_file() or file.is_symlink() or file.suffix == ".gz" or place.parts[-1].startswith("."):
            continue
        path, zipped = f"/{place.as_posix()}", file.with_name(f"{file.name}.gz")
        compressed = Body.of(zipped) if zipped.is_file() else None
        media_type = TYPES.get(file.suffix, "application/octet-stream")
        found[path] = Page(Body.of(file), compressed, media_type, hashed=path.startswith(ASSETS))
    return found


def takes_gzip(accepted: str) -> bool:
    for part in accepted.lower().split(","):
        name, _, weight = part.partition(";")
        if name.strip() in ("gzip", "*") and weight.replace(" ", "") not in ("q=0", "q=0.0", "q=0.00", "q=0.000"):
            return True
    return False
