"""The attack's own machinery notices planted faults: a bare exception, a hang, a leak, a file left behind, a damaged one."""

from __future__ import annotations

import ast
import errno
import logging
import os
import random
import socket
import time
from collections import Counter
from pathlib import Path

import pytest
import torch
from attack import isolated
from attack.audit import own_roots, watched
from attack.behaviours import known
from attack.budget import Budget
from attack.file_corpus import ANY_FILE, CANARY, SAFETENSORS
from attack.inprocess import Socket
from attack.isolated import Ended, each
from attack.outcome import CLEAR, classify, place_of
from attack.report import Counts, Finding, grouped, percentile, read, write
from attack.scoreboard import MISSED, failed, rows, written
from attack.sections import direct, disk, files, load
from attack.sections.canary import Records, hits, spellings
from support.host import KEY
from support.openai_server import OpenAIServer

from tools import ROOT

forks = pytest.mark.skipif(not isolated.POSSIBLE, reason=isolated.WHY_NOT)


class TestOutcome:
    @pytest.mark.parametrize(
        ("kind", "message", "outcome"),
        [
            ("ValueError", "steps must be a whole number from 1 to 999, got -1", "named"),
            ("llmga.chat.engines.endpoint.EndpointError", "endpoint 'a' (steps): no reply", "named"),
            ("EndpointError", "endpoint 'demo' broke the connection after 0 characters", "named"),
            ("EndpointError", "broke the connection after 0 characters", "unnamed"),
            ("ValueError", "endpoint 'demo' broke the connection after 0 characters", "unnamed"),
            ("ValueError", "the numbers do not fit", "unnamed"),
            ("ValueError", "the footsteps do not fit", "unnamed"),
            ("ValueError", "too many values to unpack (expected 2): steps", "bare"),
            ("KeyError", "'steps'", "bare"),
            ("IndexError", "tuple index out of range", "bare"),
            ("RuntimeError", "expected dtype float for `weight` but got dtype c10::Half", "bare"),
            ("ZeroDivisionError", "division by zero", "bare"),
            ("ValueError", "", "bare"),
            ("ValueError", "steps is not JSON: number out of range at line 1", "named"),
        ],
    )
    def test_of_an_exception(self, kind: str, message: str, outcome: str) -> None:
        assert classify(kind, message, ["steps"]) == outcome

    def test_the_place_is_the_innermost_line_of_ours(self) -> None:
        try:
            raising_node({})
        except KeyError as error:
            assert place_of(error, [Path(__file__).parent]).startswith("KeyError at test_attack.py:")
            assert place_of(error, [Path(__file__).parent]).endswith("(raising_node)")


def test_every_error_of_the_library_that_a_node_may_raise_counts_as_clear() -> None:
    """Over HTTP only the name of its class is seen."""
    beside_nodes = {"client.py", "data", "evaluate", "train"}  # what no node runs
    bases = {"ValueError", "RuntimeError"}
    found = {
        node.name
        for path in (ROOT / "llmga").rglob("*.py")
        if path.relative_to(ROOT / "llmga").parts[0] not in beside_nodes
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ClassDef) and bases & {getattr(base, "id", "") for base in node.bases}
    }
    assert "ScenePlanError" in found
    assert {name for name in found if not name.startswith("_")} <= {*CLEAR}


def raising_node(inputs: dict[str, int]) -> int:
    return inputs["steps"]


@forks
class TestIsolated:
    def test_a_hang_a_crash_and_memory_end_their_child_alone(self) -> None:
        def work(case: str) -> str:
            if case == "hang":
                time.sleep(60)
            if case == "exit":
                os._exit(3)
            if case == "memory":
                try:
                    bytearray(8 * 2**30)
                except MemoryError:
                    return "no memory"
            return case

        cases = ["a", "hang", "b", "exit", "memory", "c"]
        found = dict(each(cases, work, Budget(60), limit=2.0, memory=2**30, together=3))
        assert found["hang"] == Ended("hang", "still running after 2 s")
        assert found["exit"] == Ended("exit", "the process ended with code 3")
        assert [found[case] for case in ("a", "b", "memory", "c")] == ["a", "b", "no memory", "c"]

    def test_what_computes_is_given_its_time_on_a_processor(self) -> None:
        def work(seconds: float) -> float:
            began = time.process_time()
            while time.process_time() - began < seconds:
                pass
            return seconds

        assert dict(each([60.0], work, Budget(60), limit=0.5)) == {
            60.0: Ended("hang", "still running after 0.5 s")
        }

    def test_what_is_slow_because_others_compute_is_no_hang(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """As on a busy machine: after the limit the child has had a little of a processor, and goes on."""
        had = iter(range(1000))
        monkeypatch.setattr(isolated, "_processor_time", lambda pid: 0.001 * next(had))
        assert dict(each(["a"], lambda case: time.sleep(1.2) or case, Budget(60), limit=0.5)) == {"a": "a"}

    def test_a_spent_budget_ends_it(self) -> None:
        assert list(each(["a"], str, Budget(0), limit=1.0)) == []


class TestAudit:
    def test_it_sees_an_open_outside_and_a_connect_and_a_command(self, tmp_path: Path) -> None:
        outside = tmp_path / "secret"
        outside.write_text("x", encoding="utf-8")
        with watched() as seen:
            outside.read_text(encoding="utf-8")
            with socket.socket() as probe:
                probe.settimeout(0.01)
                with pytest.raises(OSError):
                    probe.connect(("127.0.0.1", 9))
            os.system("true")  # the fault that is planted
        assert str(outside.resolve()) in seen.outside([str(ROOT)])
        assert seen.outside([str(tmp_path.resolve())]) == [] and seen.outside_loopback() == []
        assert len(seen.started) == 1

    def test_it_sees_nothing_afterwards(self) -> None:
        with watched() as seen:
            pass
        (ROOT / "dev.py").read_text(encoding="utf-8")
        assert seen.opened == []
        assert str(ROOT) in own_roots(ROOT)


class TestCanary:
    @pytest.mark.parametrize("spelling", spellings(KEY))
    def test_every_spelling_is_a_hit(self, spelling: str) -> None:
        assert hits(f"a log line with {spelling} in it", "server.log")
        assert hits("a log line", "server.log") == []

    def test_a_key_that_any_logger_writes_is_found(self) -> None:
        root = logging.getLogger()
        before = root.handlers[:], root.level
        try:
            records = Records()
            logging.getLogger("httpx.of.others").debug("HTTP Request: 401 %s", KEY)
            assert hits(records.take(), "loggers")
            assert records.take() == ""
        finally:
            root.handlers, root.level = before[0], before[1]

    def test_every_behaviour_can_be_played(self) -> None:
        known(random.Random(1))
        with OpenAIServer("a reply") as server:
            server.behave("key_in_reply", "letters_16k", "chance_0")


@forks
class TestFiles:
    @pytest.fixture
    def good(self, tmp_path: Path) -> Path:
        import torch
        from safetensors.torch import save_file

        (tmp_path / "good").mkdir()
        save_file({"a": torch.ones(3, 3)}, tmp_path / "good" / "w.safetensors")
        return tmp_path

    def attempt(self, good: Path, read, change: str) -> list[Finding]:
        loader = files.Loader("Planted Loader", "good/w.safetensors", read)
        case = files.Case(loader.name, "w.safetensors", change, 1)
        apply = {**ANY_FILE, **SAFETENSORS}[change]
        counts = Counts()
        return files.judged(case, files.attempt(loader, good, case, apply), counts)

    def test_a_loader_that_takes_anything(self, good: Path) -> None:
        kinds = [one.kind for one in self.attempt(good, lambda path: None, "NaN weight")]
        assert kinds == ["wrongly accepted"]

    def test_a_loader_with_a_bare_error(self, good: Path) -> None:
        def read(path: Path) -> None:
            raise KeyError("a")

        assert [one.kind for one in self.attempt(good, read, "cut")] == ["bare"]

    def test_a_loader_that_names_the_file(self, good: Path) -> None:
        def read(path: Path) -> None:
            raise ValueError(f"{path.name} is cut off")

        assert self.attempt(good, read, "cut") == []

    def test_a_loader_that_runs_code(self, good: Path) -> None:
        import pickle

        def read(path: Path) -> None:
            pickle.loads(path.read_bytes())  # noqa: S301 - the fault that is planted

        assert "code ran" in [one.kind for one in self.attempt(good, read, "code in a pickle")]
        assert not list(good.rglob(CANARY))

    def test_a_loader_that_reads_elsewhere(self, good: Path) -> None:
        def read(path: Path) -> None:
            Path("/etc/passwd").read_bytes()

        assert "open outside" in [one.kind for one in self.attempt(good, read, "flipped bits")]

    def test_every_loader_reads_its_good_input(self, tmp_path: Path) -> None:
        for loader in files.write_good(tmp_path).values():
            loader.read(tmp_path / loader.place)

    def test_the_good_file_stays_good(self, good: Path) -> None:
        before = (good / "good" / "w.safetensors").read_bytes()
        for change in ("cut", "flipped bits", "FIFO", "scalars", "missing"):
            self.attempt(good, lambda path: None, change)
        assert (good / "good" / "w.safetensors").read_bytes() == before


class PlantedRunner:
    """One node with one input, as ``inprocess.NodeRunner`` offers nodes."""

    def __init__(self, execute) -> None:
        self._execute = execute
        self.nodes = {"Planted": self}
        self.sockets = {"Planted": (Socket("steps", "INT", False, (), 1, 1, 9),)}

    def good(self, socket: Socket, rng: random.Random) -> int:
        return 1

    def execute(self, node: str, given: dict) -> tuple:
        return self._execute(given)


def clear_error(given: dict) -> tuple:
    raise ValueError(f"steps must be a whole number, got {given['steps']!r}")


def stopped(given: dict) -> tuple:
    raise SystemExit(3)


class TestDirect:
    @pytest.mark.parametrize(
        ("execute", "kinds"),
        [
            (lambda given: (given["steps"],), []),
            (clear_error, []),
            (lambda given: (raising_node(given),), []),
            (lambda given: raising_node({}), ["bare"]),
            (lambda given: ({}["x"],), ["bare"]),
            (lambda given: (torch.ones(2)[5],), ["bare"]),
            (lambda given: (torch.tensor(float("nan")),), ["not equal"]),
            (stopped, ["bare"]),
        ],
    )
    def test_a_node(self, execute, kinds: list[str]) -> None:
        runner = PlantedRunner(execute)
        call = direct.Call("Planted", 1, (("steps", "negative"),))
        counts = Counts()
        assert [one.kind for one in direct.judged(call, direct.perform(runner, call), counts)] == kinds  # type: ignore[arg-type]
        assert "Planted.execute with steps = 'negative' (seed 1)" == str(call)


@forks
class TestDisk:
    """Save History's place is taken by a writer with a fault."""

    def attempt(self, write, fault: str = "fsync") -> list[str]:
        case = disk.Case("Save History", fault, errno.ENOSPC, 100)
        return [one.kind for one in disk._judged(case, disk.attempt(write, case), Counts())]

    def test_a_file_left_behind(self) -> None:
        def write(text: str, folder: Path) -> None:
            (folder / f"{len(text)}.part").write_text(text, encoding="utf-8")
            raise ValueError("history cannot be saved: the disk is full")

        with pytest.raises(ValueError):  # the first save must work
            self.attempt(write)

        def second(text: str, folder: Path) -> None:
            if text != "before":
                write(text, folder)

        assert self.attempt(second) == ["left file"]

    def test_a_file_written_in_place_is_damaged(self) -> None:
        def write(text: str, folder: Path) -> None:
            with (folder / "a.json").open("w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())

        assert "damaged file" in self.attempt(write)

    def test_a_writer_that_tells(self) -> None:
        def write(text: str, folder: Path) -> None:
            try:
                os.fsync(0) if text != "before" else None
            except OSError as error:
                raise ValueError(f"history cannot be saved under this name: {error.strerror}") from error

        assert self.attempt(write) == []


class TestReport:
    def test_there_and_back(self, tmp_path: Path) -> None:
        counts = Counts(Counter({"kills": 3}), {"cancel of decode": [0.5]}, ["no browser"])
        findings = [Finding("bare", "x", "case", "said")]
        write(tmp_path / "r.json", findings, counts)
        assert read(tmp_path / "r.json") == (findings, counts)

    def test_groups_are_worst_first_with_the_shortest_case(self) -> None:
        found = [
            Finding("bare", "a", "long case"),
            Finding("bare", "a", "case"),
            Finding("secret", "log", "c"),
        ]
        assert [(group.first.case, group.count) for group in grouped(found)] == [("c", 1), ("case", 2)]

    def test_an_unknown_kind_is_refused(self) -> None:
        with pytest.raises(ValueError, match="kind"):
            Finding("odd", "", "")

    @pytest.mark.parametrize(("share", "value"), [(0.5, 2), (0.95, 4), (0.25, 1), (1.0, 4)])
    def test_percentiles(self, share: float, value: float) -> None:
        assert percentile([4, 1, 3, 2], share) == value

    def test_slope(self) -> None:
        run = [(0, 10), (10, 60), (20, 110)]
        assert load.slope([run]) == pytest.approx(5)
        other = [(x + 200, y + 10**9) for x, y in run]  # another model is loaded
        assert load.slope([run, [], other]) == pytest.approx(5)
        assert load.slope([[(0, 7)]]) == 0


PLANTED = {
    "S1": (Finding("exit", "the server ended", "x"), {"prompts": 5}),
    "S3": (Finding("bare", "LLMGA_Chat: KeyError", "x"), {"direct named": 5, "direct bare": 1}),
    "S4": (Finding("wrongly accepted", "DiffRIR Loader: NaN weight", "DiffRIR: a with 'NaN'"), {"hostile files": 5}),
    "S5": (Finding("open outside", "LLMGA_LoadHistory: x", "x"), {"path payloads": 5, "open outside (paths)": 1}),
    "S6": (Finding("secret", "server.log: the key", "x"), {"secret scenarios": 5}),
    "S8": (Finding("hang", "endpoint: drip", "x"), {"endpoint faults": 5}),
    "S8c": (Finding("lost reply", "the panel's pictures: fsync", "x"), {"disk faults": 5}),
    "S8d": (Finding("left file", "Save History: fsync", "x"), {"disk faults": 5, "files left by a failing disk": 1}),
    "S10": (Finding("damaged file", "Save History killed", "x"), {"kills": 5, "partial files": 1}),
    "S10b": (Finding("left file", "Save History killed", "x"), {"kills": 5, "temporary files after the next start": 2}),
    "S11": (Finding("stuck", "a full queue", "x"), {"queued prompts": 5}),
    "S13": (Finding("not equal", "chat", "chat in process 1, run 0, with x"), {"repeats": 5}),
}  # fmt: skip


class TestScoreboard:
    @pytest.mark.parametrize("key", PLANTED)
    def test_a_planted_fault_misses_its_goal(self, key: str) -> None:
        finding, ran = PLANTED[key]
        table = {row.goal.key: row for row in rows([finding], Counts(Counter(ran)))}
        assert table[key].verdict == MISSED
        assert table[key].goal in [row.goal for row in failed(list(table.values()), timing=False)]
        clean = {
            row.goal.key: row
            for row in rows([], Counts(Counter({name: n for name, n in ran.items() if n == 5})))
        }
        assert clean[key].verdict == "met"

    def test_what_did_not_run_is_neither_met_nor_missed(self) -> None:
        table = rows([], Counts())
        assert {row.verdict for row in table} == {"not run"} and failed(table, timing=True) == []

    def test_time_fails_only_a_run_that_is_told_to(self) -> None:
        counts = Counts(measured={"cancel of decode": [0.2] * 10 + [9.0] * 10})
        table = rows([], counts)
        assert [row.goal.key for row in failed(table, timing=True)] == ["S9"]
        assert failed(table, timing=False) == []
        assert "reported" in written(table, timing=False) and "MISSED" in written(table, timing=True)

    def test_memory_beside_the_control(self) -> None:
        counts = Counts(measured={"kB a prompt with the pack": [20.0], "kB a prompt with no pack": [4.0]})
        assert [row.goal.key for row in failed(rows([], counts), timing=True)] == ["S12"]
