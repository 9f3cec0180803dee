"""Sweeps as users run them: on any number of workers and nodes, and after kills."""

import collections
import os
import signal
import time

import pytest

from tests.conftest import ROOT, Project, wait_for

pytestmark = pytest.mark.integration

TRIALS = 16
SWEEP = ("tools/within", "lab/tuning", "python", "-m", "tests.sweep")


def swept(folder, *arguments, seconds="0.02"):
    """The bytes of trials.csv, and what was computed: begins or ends, x, node."""
    folder.mkdir(exist_ok=True)
    workers, *rest = arguments
    output = Project.at(ROOT).run(*SWEEP, str(folder), workers, seconds, *rest)
    lines = [line.split() for line in (folder / "computed").read_text().splitlines()]
    assert len(lines) >= 2 * TRIALS, output
    return (folder / "trials.csv").read_bytes(), lines


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    """trials.csv of a sweep with one worker."""
    content, lines = swept(tmp_path_factory.mktemp("one"), "1")
    assert len(lines) == 2 * TRIALS
    return content


def test_two_workers_give_the_same_bytes_in_another_order(one, tmp_path):
    content, lines = swept(tmp_path, "2")
    assert content == one
    order = [x for line, x, _ in lines if line == "ends"]
    tried = [row.split(b",")[4].decode() for row in content.splitlines()[1:]]
    assert sorted(order) == sorted(tried)
    assert order != tried


def test_a_sweep_with_a_killed_driver_resumes_and_repeats_no_finished_trial(one, tmp_path):
    with Project.at(ROOT).start(*SWEEP, str(tmp_path), "2", "0.2") as process:
        deadline = time.monotonic() + 120
        while len(kept := list(tmp_path.glob("trials/*/*.json"))) < 5:
            assert process.poll() is None, process.stdout.read()
            assert time.monotonic() < deadline
            time.sleep(0.01)
        # The process that is started becomes python: tools/within is replaced by it.
        os.kill(process.pid, signal.SIGKILL)
    kept = list(tmp_path.glob("trials/*/*.json"))
    assert len(kept) < TRIALS
    content, lines = swept(tmp_path, "2", seconds="0.2")
    assert content == one
    begun = collections.Counter(x for line, x, _ in lines if line == "begins")
    assert len(begun) == TRIALS
    again = [x for x, times in begun.items() if times > 1]
    assert len(again) <= 2, "the unfinished trials of the two workers"
    done = " ".join(file.read_text() for file in kept)
    assert not any(x in done for x in again)


def test_ctrl_c_ends_the_workers_silently_and_tells_that_trials_are_kept(tmp_path):
    with Project.at(ROOT).start(*SWEEP, str(tmp_path), "2", "0.2") as process:
        wait_for(lambda: len([*tmp_path.glob("trials/*/*.json")]) >= 2)
        os.killpg(process.pid, signal.SIGINT)
        output, _ = process.communicate(timeout=60)
    assert "Interrupted: finished trials are kept, and the next start goes on there." in output
    assert output.count("Traceback") == 1, "this program's own"
    assert "LokyProcess" not in output


@pytest.mark.parametrize("nodes", ["1", "2"])
def test_a_cluster_gives_the_same_bytes(one, tmp_path, nodes):
    content, lines = swept(tmp_path, "1", nodes)
    assert content == one
    assert len({node for _, _, node in lines}) == int(nodes), "each node has work"
    assert len(lines) == 2 * TRIALS


def test_a_killed_node_loses_no_trial(one, tmp_path):
    # Long enough for the kill to come before the end, also on a busy machine.
    content, lines = swept(tmp_path, "1", "2", "kill", seconds="1.5")
    assert content == one
    ended = collections.Counter(x for line, x, _ in lines if line == "ends")
    assert len(ended) == TRIALS
    begun = collections.Counter(node for line, _, node in lines if line == "begins")
    assert len(begun) == 2, "both nodes had work"
    assert sum(begun.values()) > TRIALS, "lost trials were computed again"
