"""The document at /openapi.json: what routes say of themselves, and what holds for all of them."""

from collections.abc import Iterator
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel

from serving.document.schema import REF, Error, Schema
from serving.http.cookies import PAGE

ABOUT = "OpenAI's chat API in front of a policy that learns from what people say of its answers."
ABOUT_COOKIE = f"From POST /v1/session. All but GET must carry the header `{PAGE}: 1`."
MEANINGS = {
    400: "The request is at fault; `param` names the field.",
    401: "No key, or one that is unknown.",
    403: "The key's role may not do this, or a request by cookie does not show that it is the page's own.",
    404: "There is no such thing, or it is somebody else's.",
    408: "The body did not come in time.",
    409: "It contradicts what is already there; repeating cannot help.",
    413: "The body is too large.",
    415: "The body is compressed.",
    422: "It is understood, but cannot be judged so.",
    429: "Over a limit; `retry-after` says when to repeat.",
    503: "Not now: repeat after `retry-after`.",
    504: "The engine took too long.",
}
# Query parameters that mean the same wherever they stand.
PARAMETERS = {
    "after": "the id that ended the page before",
    "limit": "how many, at most",
    "order": "by age",
    "q": "only those with all these words in their titles, in any case",
    "user": "whom an operator's or admin's key speaks for",
    "model": "only what this policy wrote",
    "type": "only this kind of judgement",
    "completion_id": "only judgements of this completion",
    "everybody": "not only one's own; for operators and admins",
    "head": "the completion that the branch ends in; without it, the conversation's",
}
DONE = {200: "Done.", 201: "Created."}
ERROR = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}


def documented(
    summary: str,
    *,
    tag: str,
    returns: type[BaseModel] | None = None,
    done: tuple[int, ...] = (200,),
    body: type[BaseModel] | Schema | None = None,
    examples: dict[str, Schema] | None = None,
    optional: bool = False,
    also: dict[str, Schema] | None = None,
    errors: tuple[int, ...] = (),
    parameters: tuple[Schema, ...] = (),
) -> dict[str, Any]:
    """Arguments for a route's decorator that describe it; they change nothing of what it does.

    `returns` must carry an example in its schema; `done` are the statuses it comes with. `body` is what the route reads
    by hand, with named `examples` that can be sent as they are; `optional` when it may be left out. `also` are further
    media types of the answer. `errors` are the statuses of its own: what keys, bodies and parameters bring with them
    (400, 401, 413, 415, 429, 503) is added by `install`. `parameters` are those that FastAPI cannot see.
    """
    responses: dict[int | str, Any] = {status: {"description": MEANINGS[status], "content": ERROR} for status in errors}
    for status in done:
        model = {"model": returns} if returns else {}
        responses[status] = {"description": DONE[status], **model, **({"content": also} if also else {})}
    facts: dict[str, Any] = {"summary": summary, "tags": [tag], "responses": responses, "response_model": None}
    extra: Schema = {"parameters": list(parameters)} if parameters else {}
    if body is not None:
        extra["requestBody"] = _request_body(body, examples or {}, required=not optional)
    return facts | {"openapi_extra": extra}


def _request_body(body: type[BaseModel] | Schema, examples: dict[str, Schema], *, required: bool) -> Schema:
    schema = body if isinstance(body, dict) else body.model_json_schema(ref_template=REF)
    named = {name: {"value": value} for name, value in examples.items()}
    return {"required": required, "content": {"application/json": {"schema": schema, "examples": named}}}


def install(app: FastAPI, cookie: str) -> None:
    """Give the app its document, made once when it is first asked for."""

    def document() -> Schema:
        if app.openapi_schema is None:
            app.openapi_schema = _completed(
                get_openapi(title=app.title, version=app.version, description=ABOUT, routes=app.routes),
                cookie,
            )
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign]


def _completed(document: Schema, cookie: str) -> Schema:
    components = document.setdefault("components", {}).setdefault("schemas", {})
    _add_cookie(document, cookie)
    components |= {"Error": Error.model_json_schema(ref_template=REF)}
    for method, operation in _operations(document):
        body = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema", {})
        components |= {f"{name}Body": schema for name, schema in body.pop("$defs", {}).items()}
        _add_errors(method, operation)
        for parameter in operation.get("parameters", ()):
            if parameter["in"] == "query" and parameter["name"] in PARAMETERS:
                parameter.setdefault("description", PARAMETERS[parameter["name"]])
    components |= {f"{name}Body": schema for name, schema in components["Error"].pop("$defs").items()}
    # FastAPI's own shape of errors, which is never sent.
    for name in ("HTTPValidationError", "ValidationError"):
        components.pop(name, None)
    return document


def _add_cookie(document: Schema, name: str) -> None:
    """Wherever a key is taken, a session is."""
    schemes = document["components"].setdefault("securitySchemes", {})
    schemes["session"] = {"type": "apiKey", "in": "cookie", "name": name, "description": ABOUT_COOKIE}
    for _, operation in _operations(document):
        if operation.get("security"):
            operation["security"].append({"session": []})


def _add_errors(method: str, operation: Schema) -> None:
    """What a route cannot help but answer, by what it reads."""
    responses = operation["responses"]
    if "HTTPValidationError" in str(responses.get("422")):
        del responses["422"]
    statuses = [401, 429, 503] if operation.get("security") else []
    statuses += [403] if operation.get("security") and method != "get" else []
    statuses += [400] if operation.get("parameters") or operation.get("requestBody") else []
    statuses += [413, 415] if operation.get("requestBody") else []
    for status in statuses:
        responses.setdefault(str(status), {"description": MEANINGS[status], "content": ERROR})


def _operations(document: Schema) -> Iterator[tuple[str, Schema]]:
    for path in document["paths"].values():
        yield from path.items()
