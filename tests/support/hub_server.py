# SPDX-License-Identifier: Apache-2.0
"""A hub on loopback: two TLS servers with an authority of their own, one for the API and small files, one for large
files. Tests change its attributes to make it misbehave."""

import hashlib
import json
import ssl
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote

COMMIT = "0123456789abcdef0123456789abcdef01234567"
SMALL_BYTES = 5000  # larger files are stored as LFS files


def make_certificates(folder):
    """Writes ca.pem, and server.pem for localhost and 127.0.0.1 with its key."""
    folder.mkdir()

    def openssl(*words):
        subprocess.run(["openssl", *words], cwd=folder, check=True, capture_output=True)

    openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=test authority",
            "-keyout", "ca.key", "-out", "ca.pem")
    openssl("req", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost", "-keyout", "key.pem", "-out", "request.pem")
    (folder / "names").write_text("subjectAltName=DNS:localhost,IP:127.0.0.1\n")
    openssl("x509", "-req", "-in", "request.pem", "-CA", "ca.pem", "-CAkey", "ca.key", "-days", "2",
            "-extfile", "names", "-out", "cert.pem")
    (folder / "server.pem").write_text((folder / "cert.pem").read_text() + (folder / "key.pem").read_text())
    return folder


class Hub:
    """Serves one model, {file name: bytes}."""

    def __init__(self, name, files, certificates):
        self.name, self.files = name, files
        self.authority = certificates / "ca.pem"
        self.branches = {"main": COMMIT, "refs/pr/1": COMMIT, COMMIT: COMMIT}
        self.listed = None  # file names that the API lists instead
        self.gated = None  # the token that opens the model
        self.failures = []  # answers to the next requests: (status, headers)
        self.cut = {}  # file name: lengths of the next answers with its content
        self.damaged = set()  # files that arrive with another last byte
        self.ranges = True
        self.requests = []  # (server, method, path, token, range)
        self.api = self._serve("hub", certificates)
        self.store = self._serve("store", certificates)
        self.endpoint = f"https://localhost:{self.api.server_port}"

    def _serve(self, server, certificates):
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                hub.answer(server, self)

            do_HEAD = do_GET

            def log_message(self, *_):
                pass

        served = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificates / "server.pem")
        served.socket = context.wrap_socket(served.socket, server_side=True)
        threading.Thread(target=served.serve_forever, daemon=True).start()
        return served

    def close(self):
        for served in (self.api, self.store):
            served.shutdown()
            served.server_close()

    def etag(self, name):
        content = self.files[name]
        if len(content) > SMALL_BYTES:
            return hashlib.sha256(content).hexdigest()
        return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()

    def answer(self, server, handler):
        token = handler.headers.get("Authorization")
        self.requests.append((server, handler.command, handler.path, token, handler.headers.get("Range")))
        path = unquote(handler.path)
        if self.failures:
            status, headers = self.failures.pop(0)
            return self.reply(handler, status, headers)
        if server == "store":
            return self.content(handler, path.removeprefix("/store/"))
        if self.gated and token != f"Bearer {self.gated}":
            return self.reply(handler, 403 if token else 401, {"X-Error-Code": "GatedRepo"})
        prefix = f"/api/models/{self.name}/revision/"
        if path.startswith(prefix):
            commit = self.branches.get(path.removeprefix(prefix))
            if commit is None:
                return self.reply(handler, 404, {"X-Error-Code": "RevisionNotFound"})
            names = self.listed if self.listed is not None else list(self.files)
            info = {"sha": commit, "id": self.name, "siblings": [{"rfilename": name} for name in names]}
            return self.reply(handler, 200, {"Content-Type": "application/json"}, json.dumps(info).encode())
        prefix = f"/{self.name}/resolve/{COMMIT}/"
        name = path.removeprefix(prefix)
        if not path.startswith(prefix) or name not in self.files:
            return self.reply(handler, 404, {"X-Error-Code": "RepoNotFound"})
        headers = {"X-Repo-Commit": COMMIT, "ETag": f'"{self.etag(name)}"'}
        if len(self.files[name]) > SMALL_BYTES:
            headers.update({
                "Location": f"https://127.0.0.1:{self.store.server_port}/store/{name}",
                "X-Linked-Etag": headers.pop("ETag"),
                "X-Linked-Size": str(len(self.files[name])),
            })
            return self.reply(handler, 302, headers)
        return self.content(handler, name, headers)

    def content(self, handler, name, headers=()):
        content = self.files[name]
        if name in self.damaged:
            content = content[:-1] + bytes([content[-1] ^ 1])
        asked = handler.headers.get("Range")
        if asked and self.ranges:
            first = int(asked.removeprefix("bytes=").split("-")[0])
            if first >= len(content):
                return self.reply(handler, 416)
            headers = {**dict(headers), "Content-Range": f"bytes {first}-{len(content) - 1}/{len(content)}"}
            return self.reply(handler, 206, headers, content[first:])
        return self.reply(handler, 200, dict(headers), content)

    def reply(self, handler, status, headers=None, content=b""):
        handler.send_response(status)
        for key, value in (headers or {}).items():
            handler.send_header(key, value)
        handler.send_header("Content-Length", str(len(content)))
        handler.end_headers()
        if handler.command == "HEAD":
            return
        cut = self.cut.get(handler.path.rsplit("/")[-1])
        if content and cut:
            content = content[: cut.pop(0)]
            handler.close_connection = True
        handler.wfile.write(content)
