"""S20 in short: every target of ``make fuzz`` for a few seconds, and what the fuzzer found before."""

from __future__ import annotations

import json
import os
import signal
import tempfile
import time
import warnings
from pathlib import Path
from random import Random

import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dicomnode.config import Condition, parse_config
from dicomnode.config.matching import unmet
from dicomnode.deliver.sending import OutboundFile
from dicomnode.deliver.stow_answer import judge, told
from dicomnode.deliver.web import HttpAnswer
from dicomnode.errors import ConfigError
from tests.fuzz.__main__ import main
from tests.fuzz.engine import TARGETS, repeat, run
from tests.fuzz.images import Images
from tests.fuzz.many import run_all
from tests.fuzz.network import NETWORK
from tests.fuzz.pure import PURE, Commitment, HeaderBytes, StowAnswer
from tests.fuzz.target import Finding, Target, bounded
from tests.fuzz.watched import Node

SECONDS = 1.5
SEED = 20


@pytest.fixture(scope="module")
def node():
    """One node for all targets that need one: it has to bear them all."""
    with tempfile.TemporaryDirectory(prefix="dicomnode-fuzz-") as folder:
        started = Node(Path(folder))
        try:
            yield started
        finally:
            if started.process.poll() is None:
                started.close()


@pytest.mark.parametrize("target", [*PURE, Images], ids=lambda target: target.name)
def test_readers_bear_hostile_input(target: type[Target], tmp_path: Path) -> None:
    """S20: readers answer or refuse, within CPU time and memory, whatever the bytes are."""
    least = len(target().valid) + 5 if target.pure else 4
    outcome = run(target(), SEED, SECONDS, tmp_path, least=least)
    assert not outcome.failures
    assert outcome.inputs >= least


def test_a_node_bears_hostile_peers_and_serves_honest_ones(node: Node, tmp_path: Path) -> None:
    """S20: damaged associations, PDUs, commands, data sets, reports and requests: no crash, no hang, no leak."""
    for warm_up in range(3):
        assert node.serve_an_honest_peer() < 45, warm_up
    before = node.held()
    for target in NETWORK:
        outcome = run(target(node), SEED, SECONDS * 1.5, tmp_path, least=8)
        assert not outcome.failures
        assert outcome.inputs >= 8
    node.serve_an_honest_peer()
    node.require_flat(before)
    node.close()
    node.require_clean_log()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(st.sampled_from([HeaderBytes, Commitment, StowAnswer]), st.randoms(use_true_random=False))
def test_mutants_drawn_by_hypothesis_shrink(target: type[Target], random: Random) -> None:
    """S20: the same mutants under a generator that shrinks what fails."""
    made = target()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made.check(made.draw(random))


class Fragile(Target):
    """Breaks on one byte in two hundred and fifty-six."""

    name = "fragile"

    def seeds(self):
        return [b"abcdefgh"]

    def check(self, data: bytes) -> None:
        assert b"\xff" not in data


def test_a_broken_promise_is_found_kept_and_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The fuzzer is no check that cannot fail: a fault is found, once, and its file brings it back."""
    monkeypatch.setitem(TARGETS, "fragile", Fragile)
    outcome = run(Fragile(), 1, 0.0, tmp_path, least=2000)
    [failure] = outcome.failures
    assert "AssertionError" in repeat(Path(failure.file))
    kept = json.loads(Path(failure.file).read_text())
    assert (kept["target"], kept["seed"]) == ("fragile", 1)
    said = CliRunner().invoke(main, ["--repeat", failure.file])
    assert (said.exit_code, "AssertionError" in said.output) == (1, True)


def test_the_same_seed_draws_the_same_inputs() -> None:
    """What a seed found, it finds again."""
    one, other = HeaderBytes(), HeaderBytes()
    assert [one.input_number(5, n) for n in range(60)] == [other.input_number(5, n) for n in range(60)]
    assert one.input_number(5, 40) != one.input_number(6, 40)


def spin() -> None:
    while True:
        pass


def test_a_hang_and_a_flood_of_memory_are_findings() -> None:
    """An input may take neither the processor nor the memory."""
    with pytest.raises(Finding, match="hang"), bounded(cpu_s=0.2):
        spin()
    with pytest.raises(Finding, match="memory"), bounded(memory=2**20):
        bytearray(os.urandom(2**16)) * 4096


def test_what_the_process_had_before_hides_no_flood() -> None:
    """The peak of its memory counts from the begin of the input: other tests of this process may have had more."""
    bytearray(os.urandom(2**16)) * 6000
    with pytest.raises(Finding, match="memory"), bounded(memory=2**20):
        bytearray(os.urandom(2**16)) * 4096


def test_a_process_that_dies_is_a_finding(tmp_path: Path) -> None:
    """A crash in C takes the process along; the input that did it is known all the same."""
    from tests.fuzz import many

    class Died:
        exitcode = -signal.SIGSEGV

        def join(self, _: float = 0) -> None:
            pass

    reader, writer = many._SPAWN.Pipe(duplex=False)
    writer.close()
    one = many._Running(Died(), reader, many._SPAWN.Value("q", 30), 30, time.monotonic())
    [failure] = many._look("header", one, 1, tmp_path).failures
    assert failure.error == "the process: died of SIGSEGV"
    assert failure.number == 30
    assert repeat(Path(failure.file)) == ""


def test_the_command_runs_and_tells_its_seed(tmp_path: Path) -> None:
    """S20: what ``make fuzz`` calls, on two targets in processes of their own."""
    outcomes = run_all(["rules", "commitment"], 7, 0.5, 2, tmp_path)
    assert {outcome.target for outcome in outcomes} == {"rules", "commitment"}
    assert all(outcome.inputs and not outcome.failures for outcome in outcomes)


@pytest.mark.parametrize(
    "text",
    ["a = " + "[" * 3000, "a = " + "9" * 5000, "a." * 3000 + "b = 1", '[[route]]\nname = "' + "\\" * 3001],
    ids=["nested", "digits", "dotted", "backslashes"],
)
def test_s20_found_settings_that_ended_in_another_error(text: str) -> None:
    """S20: nesting beyond Python's stack and numbers beyond its digits are ConfigError."""
    with pytest.raises(ConfigError):
        parse_config(text)


def test_s20_found_a_number_beyond_a_float_in_a_rule() -> None:
    """S20: a rule with a number of 400 digits says no; it did end the routing of every series."""
    condition = Condition.model_validate({"equals": [int("9" * 400)]})
    assert "is not" in unmet(condition, ("5", 7))


def test_s20_found_a_warning_among_the_failures_of_a_stow_answer() -> None:
    """S20: what a peer lists as failed is not delivered, whatever its reason says; 0x0111 means that it is there."""
    file = OutboundFile(Path("x"), "1.2", "1.2.4", "1.2.840.10008.1.2", True)

    def accepted(reason: int) -> bool:
        failed = {"00081155": {"Value": ["1.2.4"]}, "00081197": {"Value": [reason]}}
        content = json.dumps({"00081198": {"Value": [failed]}}).encode()
        answer = HttpAnswer(409, content, 0.0, "application/dicom+json")
        return judge(answer, told(answer), file).accepted

    assert not accepted(0x0116)
    assert not accepted(0xB000)
    assert accepted(0x0111)
