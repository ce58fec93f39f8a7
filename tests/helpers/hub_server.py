"""A model hub on the loopback interface: as much of the Hub's HTTP interface as pushing and pulling a model or
a data set takes.

Repositories live in memory. Large files go through the Git LFS protocol, small ones inside the commit, as on the Hub.
"""

import base64
import contextlib
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

TOKEN = "hf_of_the_test"
REGULAR = (".json", ".py", ".md", ".jinja", ".txt", ".gitattributes")  # file endings that need no LFS


class Hub(ThreadingHTTPServer):
    """The server and what it holds.

    Attributes:
        files: path to bytes, for every repository by its `owner/name`, that of a data set behind `datasets/`.
        commits: newest commit of every repository.
        refusal: how a path begins, and the status code with which to answer it from now on; None to work.
    """

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Request)
        self.files: dict[str, dict[str, bytes]] = {}
        self.commits: dict[str, str] = {}
        self.large: dict[str, bytes] = {}  # SHA-256 to content
        self.refusal: tuple[str, int] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


@contextlib.contextmanager
def running_hub() -> Iterator[Hub]:
    with Hub() as hub:
        thread = threading.Thread(target=hub.serve_forever)
        thread.start()
        try:
            yield hub
        finally:
            hub.shutdown()
            thread.join()


class _Request(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Hub

    def log_message(self, *_: object) -> None:
        """No access log."""

    def answer(self, status: int, content: Any = None, **headers: str) -> None:
        body = content if isinstance(content, bytes) else json.dumps(content if content is not None else {}).encode()
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def refuse(self, status: int, code: str) -> None:
        self.answer(status, {"error": code}, X_Error_Code=code, X_Error_Message=code)

    def handle_request(self) -> None:
        path = unquote(urlsplit(self.path).path)
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        refusal = self.server.refusal
        if refusal and path.startswith(refusal[0]):
            return self.refuse(refusal[1], "Refused")
        if self.command in ("POST", "PUT") and self.headers.get("Authorization") != f"Bearer {TOKEN}":
            if not path.startswith("/large/"):  # an upload address is its own permission
                return self.refuse(401, "Unauthorized")
        for method, pattern, action in _ROUTES:
            matched = re.fullmatch(pattern, path)
            if matched and self.command in method:
                return action(self, body, **matched.groupdict())
        return self.refuse(404, "NotFound")

    do_GET = do_HEAD = do_POST = do_PUT = handle_request

    def create(self, body: bytes) -> None:
        asked = json.loads(body)
        repo = f"{asked.get('organization') or 'me'}/{asked['name']}"
        if asked.get("type") == "dataset":
            repo = f"datasets/{repo}"
        if repo in self.server.files:
            return self.answer(409, {"error": "exists", "url": f"{self.server.url}/{repo}"})
        self.server.files[repo] = {}
        self.server.commits[repo] = hashlib.sha1(repo.encode()).hexdigest()
        return self.answer(
            200, {"url": f"{self.server.url}/{repo}", "name": repo, "id": repo.removeprefix("datasets/")}
        )

    def validate_card(self, body: bytes) -> None:
        """Reject a card whose base is not a name on the Hub, as the Hub does."""
        base = re.search(r"^base_model: (.*)$", json.loads(body)["content"], re.MULTILINE)
        if base and not re.fullmatch(r"[\w.-]+/[\w.-]+", base[1]):
            errors = [{"message": f'"base_model" with value "{base[1]}" is not valid.'}]
            return self.answer(400, {"errors": errors, "warnings": []})
        return self.answer(200, {"errors": [], "warnings": []})

    def preupload(self, body: bytes, repo: str) -> None:
        files = [
            {
                "path": file["path"],
                "uploadMode": "regular" if file["path"].endswith(REGULAR) else "lfs",
                "shouldIgnore": False,
            }
            for file in json.loads(body)["files"]
        ]
        self.answer(200, {"files": files})

    def lfs_batch(self, body: bytes, repo: str) -> None:
        objects = [
            {**wanted, "actions": {"upload": {"href": f"{self.server.url}/large/{wanted['oid']}"}}}
            for wanted in json.loads(body)["objects"]
        ]
        self.answer(200, {"transfer": "basic", "objects": objects})

    def take_large(self, body: bytes, oid: str) -> None:
        if hashlib.sha256(body).hexdigest() != oid:
            return self.refuse(400, "WrongHash")
        self.server.large[oid] = body
        return self.answer(200)

    def commit(self, body: bytes, repo: str) -> None:
        files = self.server.files[repo]
        for line in body.splitlines():
            operation = json.loads(line)
            value = operation["value"]
            match operation["key"]:
                case "file":
                    files[value["path"]] = base64.b64decode(value["content"])
                case "lfsFile":
                    files[value["path"]] = self.server.large[value["oid"]]
                case "deletedFile":
                    del files[value["path"]]
        commit = hashlib.sha1(self.server.commits[repo].encode() + body).hexdigest()
        self.server.commits[repo] = commit
        self.answer(200, {"commitUrl": f"{self.server.url}/{repo}/commit/{commit}", "commitOid": commit})

    def describe(self, body: bytes, repo: str) -> None:
        if repo not in self.server.files:
            return self.refuse(404, "RepoNotFound")
        siblings = [{"rfilename": path} for path in self.server.files[repo]]
        return self.answer(200, {"id": repo, "modelId": repo, "sha": self.server.commits[repo], "siblings": siblings})

    def tree(self, body: bytes, repo: str, folder: str | None) -> None:
        if repo not in self.server.files:
            return self.refuse(404, "RepoNotFound")
        if folder:  # no model of ours has subfolders
            return self.refuse(404, "EntryNotFound")
        entries = [
            {"type": "file", "path": path, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
            for path, content in self.server.files[repo].items()
        ]
        return self.answer(200, entries)

    def resolve(self, body: bytes, repo: str, file: str) -> None:
        if repo not in self.server.files:
            return self.refuse(404, "RepoNotFound")
        content = self.server.files[repo].get(file)
        if content is None:
            return self.refuse(404, "EntryNotFound")
        etag = f'"{hashlib.sha256(content).hexdigest()}"'
        headers = {"ETag": etag, "X_Repo_Commit": self.server.commits[repo], "X_Linked_Size": str(len(content))}
        return self.answer(200, content, **headers, Content_Type="application/octet-stream")


_REPO = r"(?P<repo>(datasets/)?[\w.-]+/[\w.-]+)"
_ROUTES = [
    (("POST",), "/api/repos/create", _Request.create),
    (("POST",), "/api/validate-yaml", _Request.validate_card),
    (("POST",), rf"/api/(models/)?{_REPO}/preupload/main", _Request.preupload),
    (("POST",), rf"/{_REPO}\.git/info/lfs/objects/batch", _Request.lfs_batch),
    (("PUT",), r"/large/(?P<oid>[0-9a-f]{64})", _Request.take_large),
    (("POST",), rf"/api/(models/)?{_REPO}/commit/main", _Request.commit),
    (("GET", "HEAD"), rf"/api/(models/)?{_REPO}(/revision/[\w.-]+)?", _Request.describe),
    (("GET",), rf"/api/(models/)?{_REPO}/tree/[\w.-]+(/(?P<folder>.+))?", _Request.tree),
    (("GET", "HEAD"), rf"/{_REPO}/resolve/[\w.-]+/(?P<file>.+)", _Request.resolve),
]
