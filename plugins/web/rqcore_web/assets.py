"""Static files: scripts, styles and icons, served from memory for ever, by URLs that name their content.

``-/static/VERSION/NAME``, where VERSION is a hash of all static files together: whatever of them
changes, no browser keeps an old one, and a script finds its neighbours by relative paths.  An old
VERSION, asked for by a page that was open while the site was updated, gets what there is now, and may
not keep it.

Files are read once, at the start; those that shrink by it are kept compressed, too.
"""

from __future__ import annotations

import gzip
import hashlib
from dataclasses import dataclass
from pathlib import Path

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from rqcore_web.site import Site

_HERE = Path(__file__).parent / "static"
_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".webmanifest": "application/manifest+json",
}
#: Compressing what is smaller, or gains less, costs more than it saves.
_WORTH_IT = 0.9
_FOR_EVER = "public, max-age=31536000, immutable"


@dataclass(frozen=True, slots=True)
class Asset:
    """A file: its content type, its bytes, and these compressed, empty where that is of no use."""

    type: str
    data: bytes
    zipped: bytes


class Assets:
    """The files of one directory; ``version`` names their content."""

    def __init__(self, directory: Path = _HERE) -> None:
        self._files = {
            path.name: _read(path) for path in sorted(directory.iterdir()) if path.suffix in _TYPES
        }
        digest = hashlib.sha256()
        for name, asset in self._files.items():
            digest.update(f"{name} {len(asset.data)} ".encode() + asset.data)
        self.version = digest.hexdigest()[:16]

    def path(self, name: str) -> str:
        """The file's path below the site's root.  Raises `LookupError` for a name that is none."""
        if name not in self._files:
            raise LookupError(f"there is no static file {name}")
        return f"-/static/{self.version}/{name}"

    async def serve(self, request: Request) -> Response:
        """Answer for one of them."""
        asset = self._files.get(request.path_params["name"])
        if asset is None:
            raise HTTPException(404)
        current = request.path_params["version"] == self.version
        headers = {
            "Cache-Control": _FOR_EVER if current else "no-store",
            "Vary": "Accept-Encoding",
            "Content-Type": asset.type,
        }
        if asset.zipped and "gzip" in request.headers.get("accept-encoding", ""):
            return Response(asset.zipped, headers={**headers, "Content-Encoding": "gzip"})
        return Response(asset.data, headers=headers)


def _read(path: Path) -> Asset:
    data = path.read_bytes()
    zipped = gzip.compress(data, mtime=0)
    return Asset(_TYPES[path.suffix], data, zipped if len(zipped) < _WORTH_IT * len(data) else b"")


#: The site's own.
ASSETS = Assets()


def url(request: Request, name: str) -> str:
    """The URL of a static file."""
    site: Site = request.app.state.site
    return site.url(ASSETS.path(name))


def routes() -> list[BaseRoute]:
    """The routes, relative to the site's root."""
    return [Route("/-/static/{version}/{name}", ASSETS.serve)]
