"""A build that is interrupted: failed questions, stops, kills, and what the next run asks again."""

import hashlib
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from PIL import Image
from support.data_building import (
    COLOURS,
    caption,
    coloured_pictures,
    engine,
    read_json,
    seen,
    short_captions_of,
)
from support.openai_server import OpenAIServer

from llmga.chat.endpoints import Endpoint
from llmga.chat.engines.endpoint import EndpointEngine, EndpointError
from llmga.data.asking import MAX_FAILURES
from llmga.data.building import Options, build_captions, build_refinements
from llmga.data.schemas import Caption, Records, Refinement, write_records

ROOT = Path(__file__).parents[2]


@pytest.fixture
def folder(tmp_path) -> Path:
    return coloured_pictures(tmp_path / "pictures")


def test_a_rate_limit_is_waited_out(folder, tmp_path):
    with OpenAIServer(seen) as server:
        server.behave("http_429_1s", "normal")
        manifest = build_captions(folder, engine(server), tmp_path / "out", Options(concurrency=1))
        assert len(server.requests) == 5
    assert manifest.kept == 4


def test_a_question_that_failed_is_asked_again_by_the_next_run(folder, tmp_path):
    with OpenAIServer(seen) as server:
        server.behave("normal", "http_429_600s", "normal", "not_json", "normal")
        first = build_captions(folder, engine(server), tmp_path / "out", Options(concurrency=1))
        second = build_captions(folder, engine(server), tmp_path / "out", Options(concurrency=1))
    assert set(first.failed) == {"olive.png", "sub/violet.png"} and first.kept == 2 and not first.rejected
    assert "429" in first.failed["olive.png"]
    assert not second.failed and second.kept == 4


def test_an_endpoint_that_is_down_ends_the_build_and_what_was_answered_stays(tmp_path):
    source = tmp_path / "short.json"
    write_records(source, [Caption(f"{i}.png", f"a bus of kind {i}") for i in range(20)])
    with OpenAIServer(caption("red")) as server:
        server.behave("normal", "normal", "http_401")
        with pytest.raises(EndpointError, match="401"):
            build_refinements(source, engine(server), tmp_path / "out", Options(concurrency=1))
        assert len(server.requests) == 2 + MAX_FAILURES
    assert len((tmp_path / "out" / "answers.jsonl").read_text().splitlines()) == 1 + 2


def test_no_more_requests_run_at_a_time_than_asked_for(tmp_path):
    source = tmp_path / "short.json"
    write_records(source, [Caption(f"{i}.png", f"a bus of kind {i}") for i in range(12)])
    most, lock = [0], threading.Lock()
    together = threading.Barrier(3)

    def reply(body: dict) -> str:
        with lock:
            most[0] = max(most[0], server.active)
        together.wait(600)  # as long as it takes; with fewer at a time it breaks
        time.sleep(0.05)  # a fourth has time to come
        return caption("red")

    with OpenAIServer(reply) as server:
        manifest = build_refinements(source, engine(server), tmp_path / "out", Options(concurrency=3))
    assert most[0] == 3 and manifest.failed == {}
    with pytest.raises(ValueError, match="'concurrency'"):
        build_refinements(source, engine(server), tmp_path / "out2", Options(concurrency=0))


class NotingEngine(EndpointEngine):
    """Notes how each request ended: "" with a reply, else the name of what was raised."""

    def __init__(self, endpoint: Endpoint) -> None:
        super().__init__(endpoint)
        self.endings: list[str] = []

    def generate(self, *arguments, **named):
        try:
            reply = super().generate(*arguments, **named)
        except BaseException as error:
            self.endings.append(type(error).__name__)
            raise
        self.endings.append("")
        return reply


def test_whoever_watches_can_stop_the_build_at_once(tmp_path):
    """The second reply would drip until the endpoint's own time limit, which is an error of another name."""
    source = tmp_path / "short.json"
    write_records(source, [Caption(f"{i}.png", f"a bus of kind {i}") for i in range(9)])

    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with OpenAIServer(caption("red")) as server:
        server.behave("normal", "drip")
        noting = NotingEngine(Endpoint("test", server.url, "vision", deadline_s=60))
        with pytest.raises(KeyboardInterrupt):
            build_refinements(source, noting, tmp_path / "out", Options(concurrency=2, on_step=stop))
    assert noting.endings == ["", "_Stopped"]
    assert len((tmp_path / "out" / "answers.jsonl").read_text().splitlines()) == 2


def test_a_question_whose_picture_is_missing_fails_and_is_asked_when_it_is_there(folder, tmp_path):
    source, out = short_captions_of(tmp_path / "short.json"), tmp_path / "out"
    (folder / "olive.png").rename(tmp_path / "olive.png")
    with OpenAIServer(seen) as server:
        first = build_refinements(source, engine(server), out, images=folder)
        assert first.kept == 1 and not first.rejected
        [(key, error)] = first.failed.items()
        assert (
            key.startswith("olive.png#") and "the picture cannot be read: " in error and "olive.png" in error
        )
        (tmp_path / "olive.png").rename(folder / "olive.png")
        second = build_refinements(source, engine(server), out, images=folder)
        assert second.kept == 2 and not second.failed and len(server.requests) == 2


def test_an_answer_about_another_picture_is_asked_again(folder, tmp_path):
    """Equal names in another folder are other pictures; those that are the same files are not asked again."""
    source, out, other = short_captions_of(tmp_path / "short.json"), tmp_path / "out", tmp_path / "other"
    other.mkdir()
    Image.new("RGB", (32, 24), COLOURS["violet"]).save(other / "crimson.png")
    (other / "olive.png").write_bytes((folder / "olive.png").read_bytes())

    def reply(body: dict) -> str:
        return caption("unseen") if isinstance(body["messages"][-1]["content"], str) else seen(body)

    def captions(images: Path | None) -> list[str]:
        build_refinements(source, engine(server), out, images=images)
        return [record.caption for record in Records(out / "train.json", Refinement)]

    with OpenAIServer(reply) as server:
        assert captions(folder) == [caption("crimson"), caption("olive")] and len(server.requests) == 2
        assert captions(other) == [caption("violet"), caption("olive")] and len(server.requests) == 3
        assert captions(other) == [caption("violet"), caption("olive")] and len(server.requests) == 3
        assert captions(None) == [caption("unseen")] and len(server.requests) == 5  # two say the same
        assert captions(folder) == [caption("crimson"), caption("olive")] and len(server.requests) == 7


def test_an_answer_about_another_picture_is_no_record_where_asking_again_failed(folder, tmp_path):
    with OpenAIServer(seen) as server:
        build_captions(folder, engine(server), tmp_path / "out")
        Image.new("RGB", (32, 24), (0, 0, 0)).save(folder / "olive.png")
        server.behave("http_429_600s")
        manifest = build_captions(folder, engine(server), tmp_path / "out")
    assert list(manifest.failed) == ["olive.png"] and manifest.kept == 3
    assert "olive.png" not in [record.image for record in Records(tmp_path / "out" / "train.json", Caption)]


def test_a_folder_begun_with_other_settings_or_damaged_is_refused(folder, tmp_path):
    out = tmp_path / "out"
    with OpenAIServer(seen) as server:
        build_captions(folder, engine(server), out)
        with pytest.raises(ValueError, match="other settings"):
            build_captions(folder, engine(server), out, Options(language="zh"))
        lines = (out / "answers.jsonl").read_text().splitlines()
        (out / "answers.jsonl").write_text("\n".join([lines[0], "{nonsense", *lines[1:]]) + "\n")
        with pytest.raises(ValueError, match="damaged in line 2"):
            build_captions(folder, engine(server), out)


CHILD = """
import sys
from pathlib import Path
from llmga.chat.endpoints import Endpoint
from llmga.chat.engines.endpoint import EndpointEngine
from llmga.data.building import build_refinements, Options
url, source, out = sys.argv[1:]
build_refinements(Path(source), EndpointEngine(Endpoint("test", url, "vision")), Path(out), Options(concurrency=3))
"""


def test_a_killed_build_goes_on_and_ends_as_if_it_had_not_been(tmp_path):
    source = tmp_path / "short.json"
    write_records(source, [Caption(f"{i}.png", f"a bus of kind {i}") for i in range(60)])

    def reply(body: dict) -> str:
        return caption("k" + hashlib.sha256(body["messages"][-1]["content"].encode()).hexdigest()[:6])

    def child(server: OpenAIServer) -> subprocess.Popen:
        env = {**os.environ, "PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-c", CHILD, server.url, str(source), str(tmp_path / "killed")]
        return subprocess.Popen(command, env=env)

    log = tmp_path / "killed" / "answers.jsonl"
    with OpenAIServer(reply, pace=0.0005) as server:
        for answers in (3, 20, 41):
            process = child(server)
            while not log.exists() or log.read_bytes().count(b"\n") <= answers:
                assert process.poll() is None
                time.sleep(0.005)
            process.send_signal(signal.SIGKILL)
            process.wait()
            with log.open("ab") as file:  # and the worst moment: in the middle of a line
                file.write(b'{"key": "half an an')
        assert child(server).wait() == 0
        # A kill costs no more than what was in the air.
        assert len(server.requests) <= 60 + 3 * 3
        build_refinements(source, engine(server), tmp_path / "whole", Options(concurrency=3))
    killed, whole = (tmp_path / name / "train.json" for name in ("killed", "whole"))
    assert killed.read_bytes() == whole.read_bytes()
    assert read_json(tmp_path / "killed" / "manifest.json")["kept"] == 60
