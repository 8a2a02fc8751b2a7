"""Download of published models on request: with progress, resumed where it stopped, checked at the end.

Nothing here runs by itself. The repositories are fixed: the four UNets of ``PUBLISHED`` here, the language models of
``llmga.chat.published``; nothing else can be fetched.

``huggingface_hub`` would be less code, but it lacks two of the promises (version 2.4.0, tried against a server on
loopback): a file of the announced size with another SHA-256 is accepted, and a download that the progress bar's
exception stops (the cancel button) is thrown away, so that the next one starts at zero.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from .chat.engines.background import spawn
from .files.writing import put_in_place, what_to_do
from .quiet import no_http_logs

_T = TypeVar("_T")

PUBLISHED = {
    "llmga-sd15-t2i-v2": "binxia/llmga-sd15-t2i-v2",
    "llmga-sd15-inpainting-v2": "binxia/llmga-sd15-inpainting-v2",
    "llmga-sdxl-t2i": "binxia/llmga-sdxl-t2i",
    "llmga-sdxl-inpainting-v2": "binxia/llmga-sdxl-inpainting-v2",
}
"""A folder's name, and the repository it comes from (LLMGA 7e32eb6, README.md)."""
HUB = "https://huggingface.co"
CHUNK = 1 << 20
STALL_SECONDS, STALL_BYTES = 120.0, 100_000
"""A line that brings less than so much in so long has stalled."""
POLL = 0.2  # seconds between two chances to stop
_SHA256, _SHA1 = re.compile(r"[0-9a-f]{64}"), re.compile(r"[0-9a-f]{40}")
SPARE = 1_000_000_000  # bytes that stay free on the disk
_WANTED = ("unet", "scheduler")
_PART = ".part"

OnBytes = Callable[[int, int], Any]
"""``on_bytes(done, total)`` in bytes; may raise, which stops the download and keeps what is there."""


@dataclass(frozen=True)
class Remote:
    """A file of a repository."""

    path: str
    size: int
    sha256: str
    """Empty for small files, which the hub keeps in git."""
    git_id: str = ""
    """SHA-1 of a small file as git takes it, with its kind and size before it; empty where the hub does not say."""


@dataclass(frozen=True)
class Repository:
    """What is fetched from where.

    Attributes:
        name: on the hub, ``owner/repository``.
        choose: the files that are wanted, of those that the repository has; they are fetched in this order.
        folder: where they go below ComfyUI's folder, for the advice to do it by hand.
        revision: the commit, by which git fixes every file; empty takes the newest.
    """

    name: str
    choose: Callable[[list[Remote]], list[Remote]]
    folder: str
    revision: str = ""


def download_unet(name: str, folder: Path, on_bytes: OnBytes, hub: str = "") -> Path:
    """Fetch a published UNet and its scheduler into ``folder / name``.

    Args:
        name: a key of ``PUBLISHED``.
        folder: for example ``models/diffusion_models``.
        hub: the server; by default ``HF_ENDPOINT`` or Hugging Face.

    Raises:
        ValueError: the name is not published; and as ``fetch``.
        ConnectionError: as ``fetch``.
    """
    if name not in PUBLISHED:
        raise ValueError(f"{name!r} is not published; known are {', '.join(PUBLISHED)}")
    repository = Repository(PUBLISHED[name], chosen, "models/diffusion_models")
    return fetch(repository, folder / name, on_bytes, hub)


def fetch(repository: Repository, target: Path, on_bytes: OnBytes, hub: str = "") -> Path:
    """Fetch the wanted files of a repository into the folder ``target``.

    Every file goes to ``….part`` first and gets its name when its size and its hash are right. A download that was
    stopped goes on where it was, if the repository has not changed.

    Args:
        hub: the server; by default ``HF_ENDPOINT`` or Hugging Face.

    Raises:
        ValueError: the server sends something else than it announced, ``HF_HUB_OFFLINE`` is set, or the disk is too full.
        ConnectionError: the server cannot be reached or refuses.
    """
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
        raise ValueError(
            "HF_HUB_OFFLINE is set in ComfyUI's environment: nothing may be downloaded; turn 'download' off"
        )
    import httpx

    hub = (hub or os.environ.get("HF_ENDPOINT") or HUB).rstrip("/")
    try:
        with no_http_logs(), httpx.Client(follow_redirects=True, timeout=httpx.Timeout(30.0)) as client:
            revision, files = _listed(client, hub, repository, lambda: on_bytes(0, 1))
            _check_room(target, files)
            total, before = sum(file.size for file in files), 0
            for file in files:
                _fetch(
                    client,
                    f"{hub}/{repository.name}/resolve/{revision}/{file.path}",
                    file,
                    target / file.path,
                    lambda done, before=before: on_bytes(before + done, total),
                    repository,
                )
                before += file.size
    except httpx.HTTPError as error:
        raise ConnectionError(
            f"the download of {target.name} stopped: {type(error).__name__} {error}; run again, it goes on where it was"
        ) from error
    except ConnectionError:
        raise
    except OSError as error:
        raise ValueError(
            f"the download of {target.name} cannot be written into {target}: {what_to_do(error)}, then run again; it "
            "goes on where it was"
        ) from error
    return target


def chosen(files: list[Remote]) -> list[Remote]:
    """The UNet in half precision if there is one, else in full; its config, index and scheduler.

    Raises:
        ValueError: the repository holds no UNet in safetensors.
    """
    ours = [file for file in files if file.path.split("/")[0] in _WANTED and file.path.count("/") == 1]
    weights = [file for file in ours if file.path.endswith(".safetensors") and "non_ema" not in file.path]
    half = [file for file in weights if ".fp16" in file.path]
    if not weights:
        raise ValueError(
            f"the repository holds no unet/*.safetensors, only {[file.path for file in files][:8]}"
        )
    return [file for file in ours if file.path.endswith(".json")] + (half or weights)


def _listed(
    client: Any, hub: str, repository: Repository, on_wait: Callable[[], object]
) -> tuple[str, list[Remote]]:
    """The revision that is fetched, and its files that are wanted."""
    revision = repository.revision or _newest(client, hub, repository, on_wait)
    api = f"{hub}/api/models/{repository.name}"
    listed = _json(client, f"{api}/tree/{revision}?recursive=true", on_wait, repository)
    try:
        files = [_remote(one) for one in listed if one["type"] == "file"]
    except (TypeError, KeyError, ValueError, AttributeError) as error:
        raise ValueError(f"{repository.name}: the server's list of files cannot be read ({error})") from error
    for file in files:
        if ".." in file.path.split("/") or file.path.startswith("/") or "\\" in file.path or ":" in file.path:
            raise ValueError(
                f"{repository.name}: the server names {file.path!r}, which is not a path inside a repository"
            )
    files = repository.choose(files)
    for file in files:
        if not _can_be_checked(file, bool(repository.revision)):
            raise ValueError(
                f"{repository.name}: the server names no SHA-256 for {file.path}, so that what arrives could not be "
                f"checked; download the folder by hand into {repository.folder}"
            )
    return revision, files


def _can_be_checked(file: Remote, pinned: bool) -> bool:
    """Weights by SHA-256; small files by git's SHA-1, which must be there where a revision is pinned."""
    if _SHA256.fullmatch(file.sha256):
        return True
    weights = file.path.endswith(".safetensors")
    return not weights and (bool(_SHA1.fullmatch(file.git_id)) or not pinned)


def _newest(client: Any, hub: str, repository: Repository, on_wait: Callable[[], object]) -> str:
    named = _json(client, f"{hub}/api/models/{repository.name}", on_wait, repository)
    revision = named.get("sha") if isinstance(named, dict) else None
    if not isinstance(revision, str) or not revision.isalnum():
        raise ValueError(f"{repository.name}: the server named no revision; try again later")
    return revision


def _remote(entry: dict[str, Any]) -> Remote:
    large = entry.get("lfs") or {}
    git_id = "" if large else str(entry.get("oid", ""))
    return Remote(str(entry["path"]), int(entry["size"]), str(large.get("oid", "")), git_id)


def _json(client: Any, url: str, on_wait: Callable[[], object], repository: Repository) -> Any:
    answer = _waited(lambda: client.get(url), on_wait)
    _check_status(answer, repository)
    try:
        return answer.json()
    except (ValueError, RecursionError) as error:  # ValueError: also a number of 5,000 digits
        raise ValueError(f"{url} did not answer with valid JSON") from error


def _check_status(answer: Any, repository: Repository) -> None:
    if answer.status_code in (401, 403, 404):
        raise ConnectionError(
            f"{answer.request.url.path} cannot be downloaded ({answer.status_code}): it was moved or needs a login; "
            f"download the folder by hand into {repository.folder}"
        )
    answer.raise_for_status()


def _check_room(target: Path, files: list[Remote]) -> None:
    free = shutil.disk_usage(next(path for path in (target, *target.parents) if path.exists())).free
    missing = sum(file.size for file in files) - sum(path.stat().st_size for path in _present(target, files))
    if missing + SPARE > free:
        raise ValueError(
            f"{target.name} needs {missing / 1e9:.1f} GB more, and 1 GB is to stay free; there are {free / 1e9:.1f} GB"
        )


def _present(target: Path, files: list[Remote]) -> Iterator[Path]:
    for file in files:
        for path in (target / file.path, (target / file.path).with_name(Path(file.path).name + _PART)):
            if path.is_file():
                yield path
                break


def _fetch(
    client: Any,
    url: str,
    file: Remote,
    path: Path,
    on_bytes: Callable[[int], Any],
    repository: Repository,
) -> None:
    if path.is_file() and _is_whole(path, file, on_bytes):
        on_bytes(file.size)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + _PART)
    done = part.stat().st_size if part.is_file() else 0
    if done > file.size:  # of another revision
        part.unlink()
        done = 0
    if done < file.size or not part.exists():
        _append(client, url, file, part, done, on_bytes, repository)
    if not _is_whole(part, file, on_bytes):
        part.unlink()
        raise ValueError(
            f"{file.path} arrived damaged (its size or its hash is not as announced) and was removed; run again"
        )
    put_in_place(part, path)


def _append(
    client: Any,
    url: str,
    file: Remote,
    part: Path,
    done: int,
    on_bytes: Callable[[int], Any],
    repository: Repository,
) -> None:
    asked = {"Range": f"bytes={done}-"} if done else {}
    request = client.build_request("GET", url, headers={**asked, "Accept-Encoding": "identity"})
    answer = _waited(lambda: client.send(request, stream=True), lambda: on_bytes(done))
    try:
        if not answer.is_success:
            _waited(answer.read, lambda: on_bytes(done))
        _check_status(answer, repository)
        if done and answer.status_code != 206:  # it sends all of it again
            done = 0
        chunks = answer.iter_bytes()  # as they arrive: a slow line may take minutes for CHUNK
        stall, since = done, time.monotonic()
        with part.open("ab" if done else "wb") as out:
            while (
                chunk := _waited(lambda: next(chunks, None), lambda so_far=done: on_bytes(so_far))
            ) is not None:
                done += len(chunk)
                if done > file.size:
                    break
                out.write(chunk)
                on_bytes(done)
                if done - stall >= STALL_BYTES:
                    stall, since = done, time.monotonic()
                elif time.monotonic() - since > STALL_SECONDS and done < file.size:
                    raise ConnectionError(
                        f"the download of {file.path} stopped: less than {STALL_BYTES // 1000} kB came in "
                        f"{STALL_SECONDS:.0f} s; run again, it goes on where it was"
                    )
    finally:
        answer.close()


def _waited(work: Callable[[], _T], on_wait: Callable[[], object]) -> _T:
    """The result of ``work``, which runs in a thread of its own while ``on_wait`` is the chance to stop.

    Who stops leaves the thread behind; it ends with the client's connections.
    """

    def quietly() -> _T:
        with no_http_logs():
            return work()

    _, result = spawn(quietly)
    while True:
        try:
            return result.result(timeout=POLL)
        except FutureTimeout:
            if result.done():  # the work's own
                raise
            on_wait()


def _is_whole(path: Path, file: Remote, on_bytes: Callable[[int], Any]) -> bool:
    """Whether a file has the announced size and hash; ``on_bytes`` is only the chance to stop."""
    size = path.stat().st_size
    if size != file.size:
        return False
    if not file.sha256 and not file.git_id:
        return True
    digest = hashlib.sha256() if file.sha256 else hashlib.sha1(usedforsecurity=False)
    if not file.sha256:
        digest.update(f"blob {size}\0".encode())
    with path.open("rb") as source:
        while chunk := source.read(CHUNK):
            digest.update(chunk)
            on_bytes(size)
    return digest.hexdigest() == (file.sha256 or file.git_id)
