"""The session's cookie, and what shows that a request which carries it comes from our own page."""

from collections.abc import Mapping

from starlette.requests import Request
from starlette.responses import Response

from feedback.settings import is_loopback
from serving.http.errors import ApiError

#: No page of another origin can send it: that would take CORS, which no answer of ours allows.
PAGE = "x-ratchet-page"
SAFE = ("GET", "HEAD")
# Who stands between us and the caller says so by these; to us all of its callers would look local.
FORWARDED = ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-real-ip")


def session_cookie(port: int) -> str:
    """What it is called. Cookies know hosts and no ports: two gateways on one machine would take each other's away."""
    return f"ratchet_session_{port}"


def require_page(method: str, headers: Mapping[str, str]) -> None:
    """Browsers send the cookie with whatever a page asks of us. Raises ApiError 403 unless this asks for nothing, or
    only our page can have sent it."""
    if method in SAFE:
        return
    if headers.get(PAGE) != "1":
        raise _foreign(f"A request by cookie must carry the header {PAGE}: 1.")
    require_own_origin(headers)


def require_own_origin(headers: Mapping[str, str]) -> None:
    """Raises ApiError 403 for what another site's page sends. A proxy may have changed the host; the browser knows."""
    origin = headers.get("origin")
    if origin is None or headers.get("sec-fetch-site") == "same-origin":
        return
    if origin.partition("://")[2].lower() != headers.get("host", "").lower():
        raise _foreign("This request comes from the page of another site.")


def require_local_host(headers: Mapping[str, str]) -> None:
    """Raises ApiError 403 unless the caller named this machine: a foreign name that leads here is another site's."""
    if not is_loopback(host_of(headers.get("host", ""))) or any(name in headers for name in FORWARDED):
        raise ApiError(403, "Single-user mode is for this machine alone: open http://127.0.0.1.", code="foreign_host")


def host_of(authority: str) -> str:
    """The host of `host:port`, or of `[v6]:port`."""
    if authority.startswith("["):
        return authority[1:].partition("]")[0]
    return authority.rpartition(":")[0] if ":" in authority else authority


def is_https(request: Request) -> bool:
    """Also behind a proxy that has taken the encryption off: the browser says from where its page is."""
    return request.url.scheme == "https" or request.headers.get("origin", "").startswith("https://")


def set_cookie(response: Response, name: str, token: str, *, seconds: int, secure: bool) -> None:
    response.set_cookie(name, token, max_age=seconds, path="/", httponly=True, samesite="strict", secure=secure)


def clear_cookie(response: Response, name: str) -> None:
    response.delete_cookie(name, path="/", httponly=True, samesite="strict")


def _foreign(message: str) -> ApiError:
    return ApiError(403, message, code="foreign_origin")
