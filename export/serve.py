"""The chat page on this machine: static files only, and none that is not on the list.

The server hands out the page, the package and the browser runtime, and takes nothing in: every address is a GET, and the page's
Content-Security-Policy lets it speak to this address alone. The model runs in the tab.
"""

import errno
import os
import socket
import sys
import threading
import webbrowser
from collections.abc import Callable
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from data_pipeline.errors import InputError
from data_pipeline.storage import sha256_of
from export.package import FILES, open_package
from export.runtime import read_pins, runtime_files

WEB = Path(__file__).resolve().parent / "web"
PAGE = (
    "index.html",
    "style.css",
    "icon.svg",
    "app.js",
    "chat_view.js",
    "model_client.js",
    "worker.js",
    "engine.js",
    "prompt.js",
    "loading.js",
)
HOST = "127.0.0.1"
PORT = 8127
PORTS_TRIED = 50
MIME = {
    ".html": "text/html",
    ".css": "text/css",
    ".js": "text/javascript",
    ".mjs": "text/javascript",
    ".wasm": "application/wasm",
    ".json": "application/json",
    ".svg": "image/svg+xml",
    ".jinja": "text/plain",
    ".onnx": "application/octet-stream",
    ".data": "application/octet-stream",
}
# COOP and COEP isolate the page, which shared memory, and so threads in wasm, asks for.
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; worker-src 'self' blob:; connect-src 'self'; "
    "style-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class SafeHeaders:
    """Puts HEADERS on every answer, errors too."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        await self.app(scope, receive, send_with_headers)


def build_app(folder: str | Path) -> Starlette:
    """The app for one package. Errors: InputError for a damaged package or where the browser runtime is not in the cache."""
    root = Path(folder)
    manifest = open_package(root)
    runtime = runtime_files()
    files = {"/": WEB / "index.html"}
    files |= {f"/{name}": WEB / name for name in PAGE}
    files |= {f"/package/{name}": root / name for name in (*FILES, "manifest.json")}
    files |= {f"/runtime/{name}": path for name, path in runtime.items()}
    hashes = {f"/package/{name}": manifest["files"][name]["sha256"] for name in FILES}
    places = page_settings(root, manifest)

    async def serve_file(request: Request) -> Response:
        path = files.get(request.url.path)
        if path is None:
            return PlainTextResponse("no such file", 404)
        address = request.url.path
        # The manifest's hash is in the address of what never changes; the page and the manifest are asked for anew.
        forever = hashes.get(address, "-") == request.query_params.get("v") or address.startswith("/runtime/")
        tag = f'"{hashes[address] if address in hashes else sha256_of(path)}"'
        cache = "public, max-age=31536000, immutable" if forever else "no-cache"
        if request.headers.get("if-none-match") == tag:
            return Response(status_code=304, headers={"ETag": tag, "Cache-Control": cache})
        return FileResponse(
            path, media_type=MIME.get(path.suffix, "application/octet-stream"), headers={"ETag": tag, "Cache-Control": cache}
        )

    async def settings(_: Request) -> Response:
        return JSONResponse(places, headers={"Cache-Control": "no-cache"})

    return Starlette(
        routes=[Route("/settings.json", settings, methods=["GET"]), Route("/{path:path}", serve_file, methods=["GET"])],
        middleware=[Middleware(SafeHeaders), Middleware(TrustedHostMiddleware, allowed_hosts=["127.0.0.1", "localhost"])],
    )


def page_settings(root: Path, manifest: dict[str, Any]) -> dict[str, Any]:
    """What the page asks first: a name to show and where the runtime lies."""
    name = str(manifest.get("name") or (root.resolve().parent.name if root.resolve().name == "package" else root.resolve().name))
    return {"name": name, "runtime": {pin.name: f"/runtime/{pin.folder}/dist/" for pin in read_pins()}}


def listen(port: int | None) -> socket.socket:
    """A listening socket on this machine's own address: the port asked for, or 8127 or the next that is free."""
    candidates = range(PORT, PORT + PORTS_TRIED) if port is None else [port]
    for candidate in candidates:
        server = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            server.bind((HOST, candidate))
            server.listen(64)
            return server
        except OSError as error:
            server.close()
            if error.errno == errno.EADDRINUSE:
                continue
            raise InputError(f"--port {candidate}: cannot be opened ({error.strerror})") from error
    tried = f"ports {PORT} to {PORT + PORTS_TRIED - 1} are all" if port is None else f"--port {port}: is"
    raise InputError(f"{tried} taken on {HOST}; give a free one with --port")


def has_display() -> bool:
    """Whether a browser window could open here."""
    return sys.platform in ("darwin", "win32") or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def serve_package(folder: str | Path, port: int | None = None, browser: bool = True, say: Callable[[str], None] = lambda _: None) -> None:
    """Serves the chat page until Ctrl-C. `port` None takes 8127 or the next free one; `say` receives the lines for the user."""
    import uvicorn

    app = build_app(folder)
    server = listen(port)
    taken = server.getsockname()[1]
    address = f"http://{HOST}:{taken}/"
    if port is None and taken != PORT:
        say(f"port {PORT} is taken; using {taken}")
    say(f"chat page: {address}  (the model runs in the browser; Ctrl-C ends)")
    if browser and has_display():
        threading.Timer(0.5, webbrowser.open, [address]).start()
    config = uvicorn.Config(app, log_level="warning", access_log=False, timeout_graceful_shutdown=1, lifespan="off")
    try:
        uvicorn.Server(config).run(sockets=[server])
    except KeyboardInterrupt:
        pass
    finally:
        server.close()
    say("stopped")
