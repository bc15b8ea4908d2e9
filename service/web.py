"""The web page at `/`, the files of `service/page`."""

from functools import cache

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from service.files import File, read_files, sent
from service.problems import NotFound
from service.state import Service

INDEX = "index.html"
POLICY = "; ".join(
    [
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data: blob:",
        "media-src blob:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    ]
)
"""The last two have the browser refuse to make markup of any text, such as the name of a file."""
HEADERS = {"Content-Security-Policy": POLICY, "Cross-Origin-Opener-Policy": "same-origin"}

router = APIRouter(include_in_schema=False)


@cache
def page_files() -> dict[str, File]:
    """The files of the page by name."""
    return read_files("service", "page")


@router.api_route("/", methods=["GET", "HEAD"])
async def index(request: Request) -> Response:
    """The page itself."""
    return sent(request, page_files()[INDEX], HEADERS)


@router.api_route("/page/about.json", methods=["GET", "HEAD"])
async def about(request: Request) -> JSONResponse:
    """What the page says of the server before a clip is sent."""
    service: Service = request.app.state.service
    settings = service.settings
    content = {
        "version": request.app.version,
        "docs": settings.docs,
        "max_upload_bytes": settings.max_upload_bytes,
        "max_duration_s": settings.max_duration_s,
        "max_faces": settings.max_faces,
    }
    return JSONResponse(content, headers={**HEADERS, "Cache-Control": "no-cache"})


@router.api_route("/page/{name}", methods=["GET", "HEAD"])
async def part(request: Request, name: str) -> Response:
    """A file that the page loads."""
    file = page_files().get(name)
    if file is None:
        raise NotFound(f"the page has no file {name[:64]!r}")
    return sent(request, file, HEADERS)
