"""A local stand-in for the Hugging Face Hub: as much of its HTTP API as publishing and loading a dataset needs.

What it holds is in memory. Paths, fields and error codes are those that `huggingface_hub` 2.4 asks for and reads; Git's
digests are computed as Git does. It runs in a thread of its own on a free port of 127.0.0.1.
"""

import asyncio
import base64
import dataclasses
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import yaml
from aiohttp import web

TOKENS = {"hf_writer": ("tester", True), "hf_reader": ("reader", False)}
"""Who each token is of, and whether it may write."""
OWNERS = ("tester", "org")
"""Namespaces that `tester` may write to."""


@dataclasses.dataclass(frozen=True)
class Blob:
    """A file in a commit."""

    content: bytes
    is_large: bool

    @property
    def git(self) -> str:
        """SHA-1 as Git has it: of the pointer, where the file is a large one."""
        data = self.content
        if self.is_large:
            data = f"version https://git-lfs.github.com/spec/v1\noid sha256:{self.sha256}\nsize {len(data)}\n".encode()
        return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()

    def entry(self, path: str) -> dict[str, Any]:
        """As in a listing."""
        found = {"type": "file", "path": path, "size": len(self.content), "oid": self.git}
        if self.is_large:
            found["lfs"] = {"oid": self.sha256, "size": len(self.content), "pointerSize": 130}
        return found


@dataclasses.dataclass
class Repo:
    """A dataset repository. A branch is its newest commit's files; older commits are kept by digest."""

    private: bool
    branches: dict[str, str] = dataclasses.field(default_factory=dict)
    commits: dict[str, dict[str, Blob]] = dataclasses.field(default_factory=dict)

    def commit(self, branch: str, files: dict[str, Blob]) -> str:
        names = json.dumps([len(self.commits), sorted((path, blob.git) for path, blob in files.items())])
        sha = hashlib.sha1(names.encode()).hexdigest()
        self.commits[sha] = files
        self.branches[branch] = sha
        return sha

    def at(self, revision: str) -> tuple[str, dict[str, Blob]]:
        sha = self.branches.get(revision, revision)
        if sha not in self.commits:
            raise _refusal(404, "RevisionNotFound", f"no revision {revision}")
        return sha, self.commits[sha]


@dataclasses.dataclass
class StandIn:
    """The server's memory, and what goes wrong on purpose."""

    url: str = ""
    repos: dict[str, Repo] = dataclasses.field(default_factory=dict)
    objects: dict[str, bytes] = dataclasses.field(default_factory=dict)
    """Large files that have arrived, by SHA-256, committed or not."""
    tried: list[str] = dataclasses.field(default_factory=list)
    """SHA-256 of each large file that was begun to be sent."""
    arrived: list[str] = dataclasses.field(default_factory=list)
    """SHA-256 of each large file that arrived."""
    calls: list[str] = dataclasses.field(default_factory=list)
    """Method and path of each request."""
    faults: dict[int, str] = dataclasses.field(default_factory=dict)
    """By number of the large file, from 1: `503`, `403`, `drop` (the connection) or `hang`."""
    hanging: threading.Event = dataclasses.field(default_factory=threading.Event)
    """Set once an upload hangs."""

    def files(self, repo: str, revision: str = "main") -> dict[str, bytes]:
        return {path: blob.content for path, blob in self.repos[repo].at(revision)[1].items()}


_STATE = web.AppKey("state", StandIn)


def _refusal(status: int, code: str, message: str) -> web.HTTPException:
    kinds = {400: web.HTTPBadRequest, 401: web.HTTPUnauthorized, 403: web.HTTPForbidden, 404: web.HTTPNotFound}
    headers = {"X-Error-Code": code, "X-Error-Message": message}
    return kinds[status](text=json.dumps({"error": message}), content_type="application/json", headers=headers)


def _who(request: web.Request, *, writes: bool) -> str:
    token = request.headers.get("Authorization", "").removeprefix("Bearer ")
    if token and token not in TOKENS:
        raise _refusal(401, "", "Invalid credentials in Authorization header")
    name, may_write = TOKENS.get(token, ("", False))
    if writes and not may_write:
        raise _refusal(403, "", "You don't have the rights to write here")
    return name


def _repo(request: web.Request, *, writes: bool = False) -> Repo:
    name = _who(request, writes=writes)
    repo = request.app[_STATE].repos.get(f"{request.match_info['owner']}/{request.match_info['name']}")
    if repo is None or (repo.private and not name):
        raise _refusal(404, "RepoNotFound", "Repository not found")
    return repo


async def _whoami(request: web.Request) -> web.Response:
    name = _who(request, writes=False)
    if not name:
        raise _refusal(401, "", "Invalid credentials in Authorization header")
    return web.json_response({"type": "user", "name": name, "orgs": [{"name": "org"}]})


async def _create(request: web.Request) -> web.Response:
    name, state, asked = _who(request, writes=True), request.app[_STATE], await request.json()
    owner = asked.get("organization") or name
    if owner not in OWNERS:
        raise _refusal(403, "", f"You don't have the rights to create a dataset under the namespace {owner!r}")
    full = f"{owner}/{asked['name']}"
    if full in state.repos:
        return web.json_response({"error": "You already created this dataset repo"}, status=409)
    state.repos[full] = Repo(private=asked.get("private", asked.get("visibility") == "private"))
    state.repos[full].commit("main", {".gitattributes": Blob(b"*.parquet filter=lfs\n", is_large=False)})
    return web.json_response({"url": f"{state.url}/datasets/{full}", "id": "1", "name": full})


async def _info(request: web.Request) -> web.Response:
    repo = _repo(request)
    sha, files = repo.at(request.match_info.get("revision", "main"))
    full = f"{request.match_info['owner']}/{request.match_info['name']}"
    siblings = [{"rfilename": path} for path in sorted(files)]
    found = {"id": full, "sha": sha, "private": repo.private, "gated": False, "disabled": False, "tags": []}
    times = {"lastModified": "2026-01-01T00:00:00.000Z", "createdAt": "2026-01-01T00:00:00.000Z"}
    return web.json_response(found | times | {"siblings": siblings, "downloads": 0, "likes": 0})


async def _branch(request: web.Request) -> web.Response:
    repo, branch = _repo(request, writes=True), request.match_info["branch"]
    if branch in repo.branches:
        return web.json_response({"error": "Reference already exists"}, status=409)
    repo.branches[branch] = repo.branches["main"]
    return web.json_response({})


async def _tree(request: web.Request) -> web.Response:
    _, files = _repo(request).at(request.match_info["revision"])
    below = request.match_info.get("path", "").strip("/")
    start = f"{below}/" if below else ""
    inside = {path: blob for path, blob in files.items() if path.startswith(start)}
    if below and not inside:
        raise _refusal(404, "EntryNotFound", f"{below} does not exist")
    folders = sorted(
        {path[: len(start)] + path[len(start) :].partition("/")[0] for path in inside if "/" in path[len(start) :]}
    )
    listed: list[dict[str, Any]] = [{"type": "directory", "path": path, "size": 0, "oid": "0" * 40} for path in folders]
    deep = request.query.get("recursive", "false").lower() in ("true", "1")
    listed += [blob.entry(path) for path, blob in sorted(inside.items()) if deep or "/" not in path[len(start) :]]
    return web.json_response(listed)


async def _paths_info(request: web.Request) -> web.Response:
    _, files = _repo(request).at(request.match_info["revision"])
    if request.content_type == "application/json":
        paths = (await request.json())["paths"]
    else:
        paths = (await request.post()).getall("paths")
    listed = []
    for path in paths:
        if path in files:
            listed.append(files[path].entry(path))
        elif any(name.startswith(f"{path}/") for name in files):
            listed.append({"type": "directory", "path": path, "size": 0, "oid": "0" * 40})
    return web.json_response(listed)


async def _validate_yaml(request: web.Request) -> web.Response:
    content = (await request.json())["content"]
    _, _, rest = content.partition("---\n")
    head, mark, _ = rest.partition("\n---\n")
    errors = [] if content.startswith("---\n") and mark else [{"message": "no YAML at the top"}]
    try:
        data = yaml.safe_load(head)
        errors += [] if isinstance(data, dict) and data.get("license") else [{"message": '"license" is required'}]
    except yaml.YAMLError as error:
        errors.append({"message": str(error)})
    return web.json_response({"errors": errors, "warnings": []}, status=400 if errors else 200)


async def _preupload(request: web.Request) -> web.Response:
    _, files = _repo(request, writes=True).at(request.match_info["revision"])
    asked = (await request.json())["files"]
    return web.json_response(
        {
            "files": [
                {
                    "path": file["path"],
                    "uploadMode": "lfs" if file["path"].endswith(".parquet") else "regular",
                    "shouldIgnore": False,
                    "oid": _oid(files.get(file["path"])),
                }
                for file in asked
            ]
        }
    )


def _oid(blob: Blob | None) -> str | None:
    return None if blob is None else blob.sha256 if blob.is_large else blob.git


async def _batch(request: web.Request) -> web.Response:
    state, asked = request.app[_STATE], await request.json()
    _repo(request, writes=True)
    objects = []
    for item in asked["objects"]:
        found = {"oid": item["oid"], "size": item["size"]}
        if item["oid"] not in state.objects:
            upload = {"href": f"{state.url}/lfs/{item['oid']}", "header": {}}
            found["actions"] = {"upload": upload, "verify": {"href": f"{state.url}/lfs-verify"}}
        objects.append(found)
    return web.json_response({"transfer": "basic", "objects": objects}, content_type="application/vnd.git-lfs+json")


async def _put(request: web.Request) -> web.Response:
    state, oid = request.app[_STATE], request.match_info["oid"]
    state.tried.append(oid)
    match state.faults.pop(len(state.tried), ""):
        case "503":
            return web.Response(status=503)
        case "403":
            return web.Response(status=403, text="the signed URL has expired")
        case "drop":
            assert request.transport is not None
            request.transport.abort()
            return web.Response()
        case "hang":
            state.hanging.set()
            await asyncio.sleep(60)
    content = await request.read()
    if hashlib.sha256(content).hexdigest() != oid:
        return web.Response(status=400, text="digest does not match")
    state.objects[oid] = content
    state.arrived.append(oid)
    return web.Response()


async def _verify(request: web.Request) -> web.Response:
    asked = await request.json()
    content = request.app[_STATE].objects.get(asked["oid"])
    return web.Response(status=200 if content is not None and len(content) == asked["size"] else 404)


async def _commit(request: web.Request) -> web.Response:
    repo, state, branch = _repo(request, writes=True), request.app[_STATE], request.match_info["revision"]
    _, before = repo.at(branch)
    files = dict(before)
    for line in (await request.text()).splitlines():
        item = json.loads(line)
        value = item["value"]
        match item["key"]:
            case "file":
                files[value["path"]] = Blob(base64.b64decode(value["content"]), is_large=False)
            case "lfsFile":
                if value["oid"] not in state.objects:
                    raise _refusal(400, "", f"the large file of {value['path']} was never uploaded")
                files[value["path"]] = Blob(state.objects[value["oid"]], is_large=True)
            case "deletedFile":
                if value["path"] not in files:
                    raise _refusal(404, "EntryNotFound", "A file with this name doesn't exist")
                del files[value["path"]]
    sha = repo.commit(branch, files)
    full = f"{request.match_info['owner']}/{request.match_info['name']}"
    return web.json_response(
        {"success": True, "commitOid": sha, "commitUrl": f"{state.url}/datasets/{full}/commit/{sha}"}
    )


async def _resolve(request: web.Request) -> web.StreamResponse:
    sha, files = _repo(request).at(request.match_info["revision"])
    blob = files.get(request.match_info["path"])
    if blob is None:
        raise _refusal(404, "EntryNotFound", "Entry not found")
    headers = {"X-Repo-Commit": sha, "ETag": f'"{_oid(blob)}"', "Accept-Ranges": "bytes"}
    body, status = blob.content, 200
    if "Range" in request.headers:
        part = request.http_range
        body, status = body[part], 206
        start = part.start if part.start >= 0 else len(blob.content) + part.start
        headers["Content-Range"] = f"bytes {start}-{start + len(body) - 1}/{len(blob.content)}"
    return web.Response(body=body, status=status, headers=headers, content_type="application/octet-stream")


@web.middleware
async def _logged(request: web.Request, handler: Any) -> web.StreamResponse:
    request.app[_STATE].calls.append(f"{request.method} {request.path}")
    response: web.StreamResponse = await handler(request)
    return response


def _app(state: StandIn) -> web.Application:
    app = web.Application(middlewares=[_logged], client_max_size=2**30)
    app[_STATE] = state
    api, repo = "/api/datasets/{owner}/{name}", "{owner}/{name}"
    app.router.add_get("/api/whoami-v2", _whoami)
    app.router.add_post("/api/repos/create", _create)
    app.router.add_post("/api/validate-yaml", _validate_yaml)
    app.router.add_get(api, _info)
    app.router.add_get(api + "/revision/{revision}", _info)
    app.router.add_post(api + "/branch/{branch}", _branch)
    app.router.add_get(api + "/tree/{revision}", _tree)
    app.router.add_get(api + "/tree/{revision}/{path:.+}", _tree)
    app.router.add_post(api + "/paths-info/{revision}", _paths_info)
    app.router.add_post(api + "/preupload/{revision}", _preupload)
    app.router.add_post(api + "/commit/{revision}", _commit)
    app.router.add_post(f"/datasets/{repo}.git/info/lfs/objects/batch", _batch)
    app.router.add_put("/lfs/{oid}", _put)
    app.router.add_post("/lfs-verify", _verify)
    app.router.add_get(f"/datasets/{repo}/resolve/{{revision}}/{{path:.+}}", _resolve)
    return app


@contextmanager
def standing_in() -> Iterator[StandIn]:
    """A Hub of its own, empty, for as long as the block runs."""
    state, loop, ready, done = StandIn(), asyncio.new_event_loop(), threading.Event(), asyncio.Event()

    async def serve() -> None:
        runner = web.AppRunner(_app(state), handler_cancellation=True, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        state.url = "http://{}:{}".format(*runner.addresses[0][:2])
        ready.set()
        await done.wait()
        await runner.cleanup()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    try:
        assert ready.wait(10)
        yield state
    finally:
        loop.call_soon_threadsafe(done.set)
        thread.join(10)
        loop.close()
