"""Archives in the place of wllama's, for tests that write pages and do not open them, and a registry that has them."""

import base64
import contextlib
import functools
import hashlib
import http.server
import io
import tarfile
import threading
from dataclasses import replace

from training.browser_page import runtime

CONTENTS = {
    runtime.MODULE: b'const worker = new Worker(code, {type:"module"});',
    runtime.WASM: b"\0asm" + bytes(range(256)) * 5000,
    runtime.COMPAT_WORKER: b"var Module;",
    runtime.COMPAT_WASM: b"\0asm of old",
}


def archive_of(package):
    """A tar archive with the files that we take from a package, and one that we leave."""
    stream, files = io.BytesIO(), package.files.items()
    with tarfile.open(fileobj=stream, mode="w:gz") as archive:
        for path, content in [("package/package.json", b"{}"), *((path, CONTENTS[name]) for path, name in files)]:
            entry = tarfile.TarInfo(path)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return stream.getvalue()


def pin_archives(monkeypatch, folder):
    """Pin small archives instead of wllama's, and write them to a folder as `npm pack` does."""
    folder.mkdir()
    packages = []
    for package in runtime.PACKAGES:
        content = archive_of(package)
        (folder / package.archive).write_bytes(content)
        packages.append(replace(package, integrity=base64.b64encode(hashlib.sha512(content).digest()).decode()))
    monkeypatch.setattr(runtime, "PACKAGES", tuple(packages))
    return folder


@contextlib.contextmanager
def serving_files(folder):
    """The address of a static host, and the paths that it was asked for."""
    asked = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, template, *values):
            asked.append(self.path)

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=folder))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
