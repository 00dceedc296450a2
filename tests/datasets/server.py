"""A small HTTP server on localhost, and archives built in memory, for the fetchers' tests."""

import hashlib
import io
import tarfile
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import imageio.v3 as imageio

from sklearn_micranet.datasets._registry import RemoteFile


class FileServer:
    """Serve bytes by address, well or badly, and count the requests.

    `files` maps an address to its bytes. An address in `cut` has that many connections dropped
    half-way, after its full length was announced. One in `truncated` is sent half, without any
    announced length. `barrier`, if set, holds every answer until two requests wait.
    """

    def __init__(self):
        self.files = {}
        self.cut = {}
        self.truncated = set()
        self.barrier = None
        self.n_requests = 0
        handler = type("Handler", (_Handler,), {"files": self})
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.address = f"http://127.0.0.1:{self._http.server_port}"

    def __enter__(self):
        threading.Thread(target=self._http.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *exception):
        self._http.shutdown()
        self._http.server_close()

    def publish(self, remote, content, *, digest=True):
        """Serve `content` as `remote`, with or without a published digest."""
        name = "/" + remote.path
        self.files[name] = content
        sha256 = hashlib.sha256(content).hexdigest() if digest else None
        return RemoteFile(remote.path, self.address + name, sha256)


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        server = self.files
        server.n_requests += 1
        if server.barrier:
            server.barrier.wait()
        if self.path not in server.files:
            self.send_error(404)
            return
        content = server.files[self.path]
        self.send_response(200)
        if self.path not in server.truncated:
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        n_cuts = server.cut.get(self.path, 0)
        if n_cuts or self.path in server.truncated:
            server.cut[self.path] = n_cuts - 1
            content = content[: len(content) // 2]
        self.wfile.write(content)

    def log_message(self, *args):
        """Keep the tests' output quiet."""


def zip_bytes(files):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def tar_bytes(files, links=()):
    """Pack files, and links given as (name, target), into a compressed tar archive."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, target in links:
            member = tarfile.TarInfo(name)
            member.type, member.linkname = tarfile.SYMTYPE, str(target)
            archive.addfile(member)
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def image_bytes(image, extension):
    return imageio.imwrite("<bytes>", image, extension=extension)
