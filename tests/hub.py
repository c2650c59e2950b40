"""A server that speaks as much of the Hugging Face Hub's protocol as fetching a repository takes.

As a script, python hub.py FOLDER ARGUMENTS... runs `pixelwise ARGUMENTS...` with the Hub at such a server, which has
the folder as the repository me/mine; what was asked of it is counted on stderr.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlparse

COMMIT = "a" * 40


class Hub(ThreadingHTTPServer):
    """Serves the files of one folder; `asked` lists every request."""

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files = {path.name: path.read_bytes() for path in folder.iterdir()}
        self.asked: list[str] = []
        threading.Thread(target=self.serve_forever, daemon=True).start()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        assert isinstance(self.server, Hub)
        files, path = self.server.files, unquote(urlparse(self.path).path)
        self.server.asked.append(f"{self.command} {path}")
        name = path.rsplit("/", 1)[1]
        if path.startswith("/api/models/me/mine/tree/"):
            entries = [
                {"type": "file", "path": f, "size": len(b), "oid": hashlib.sha1(b).hexdigest()}
                for f, b in files.items()
            ]
            self.answer(200, json.dumps(entries).encode())
        elif path.startswith("/api/models/me/mine"):
            siblings = [{"rfilename": f} for f in files]
            self.answer(200, json.dumps({"id": "me/mine", "sha": COMMIT, "siblings": siblings}).encode())
        elif path.startswith("/me/mine/resolve/") and name in files:
            headers = {"ETag": f'"{hashlib.sha1(files[name]).hexdigest()}"', "X-Repo-Commit": COMMIT}
            self.answer(200, files[name], headers)
        else:
            self.answer(404, b"", {"X-Error-Code": "RepoNotFound"})

    do_HEAD = do_GET

    def answer(self, code: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(code)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


if __name__ == "__main__":
    hub = Hub(Path(sys.argv[1]))
    os.environ["HF_ENDPOINT"] = f"http://127.0.0.1:{hub.server_port}"
    sys.argv = ["pixelwise", *sys.argv[2:]]
    from pixelwise.cli import main

    try:
        main()
    finally:
        print(f"asked {len(hub.asked)} times", file=sys.stderr)
