"""How the API describes itself: Swagger UI's page, and what OpenAPI says of keys."""

import base64
import hashlib
import re
from functools import cache
from typing import Any

from fastapi import Request, Response
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import HTMLResponse

from service.access import HEADER, guarded
from service.files import File, read_files, sent
from service.problems import NotFound

_KEY = "Needed where the operator has set DETECTOR_API_KEYS_FILE; either way of sending it does."
SCHEMES = {
    "bearer": {"type": "http", "scheme": "bearer", "description": _KEY},
    "header": {"type": "apiKey", "in": "header", "name": HEADER, "description": _KEY},
}
SECURITY: list[dict[str, list[str]]] = [{"bearer": []}, {"header": []}, {}]
"""Any one of them; the last is no key at all."""
REFUSALS = {
    "401": "No key was sent, and one is needed",
    "403": "Unknown key",
    "429": "The key is used too often; see Retry-After",
}


SCRIPT, STYLE = "swagger-ui-bundle.js", "swagger-ui.css"


@cache
def swagger_ui() -> dict[str, File]:
    """Swagger UI, as the package fastapi-offline carries it."""
    carried = read_files("fastapi_offline", "static")
    return {name: carried[name] for name in (SCRIPT, STYLE)}


async def page(request: Request) -> HTMLResponse:
    """Swagger UI's page. All of it comes from this server."""
    root = request.scope.get("root_path", "").rstrip("/")
    response = get_swagger_ui_html(
        openapi_url=root + request.app.openapi_url,
        title=f"{request.app.title} - Swagger UI",
        swagger_js_url=f"{root}/docs/{SCRIPT}",
        swagger_css_url=f"{root}/docs/{STYLE}",
        swagger_favicon_url="data:,",
    )
    response.headers["Content-Security-Policy"] = policy(bytes(response.body).decode())
    return response


async def part(request: Request) -> Response:
    """A file that the page loads."""
    name = request.path_params["name"]
    file = swagger_ui().get(name)
    if file is None:
        raise NotFound(f"the documentation has no file {name[:64]!r}")
    return sent(request, file, {})


def policy(html: str) -> str:
    """What the page may load: files and the API of this server, and its own script by digest.

    Swagger UI writes style elements and draws its icons from `data:`, so that these stay allowed.
    """
    scripts = re.findall(r"<script>(.*?)</script>", html, re.DOTALL)
    return "; ".join(
        [
            "default-src 'none'",
            " ".join(["script-src 'self'", *(f"'sha256-{_digest(text)}'" for text in scripts)]),
            "style-src 'self' 'unsafe-inline'",
            "img-src 'self' data:",
            "connect-src 'self'",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
        ]
    )


def described(document: dict[str, Any]) -> dict[str, Any]:
    """The OpenAPI document, told of keys on every route that may need one. It is changed in place."""
    document["components"]["securitySchemes"] = SCHEMES
    problem = {"schema": {"$ref": "#/components/schemas/Problem"}}
    for path, operations in document["paths"].items():
        for operation in operations.values() if guarded(path) else ():
            operation["security"] = SECURITY
            refusals = {
                status: {"description": words, "content": {"application/problem+json": problem}}
                for status, words in REFUSALS.items()
            }
            operation["responses"] = dict(sorted((operation["responses"] | refusals).items()))
    return document


def _digest(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
