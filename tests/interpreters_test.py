"""A network in several interpreters: killed and continued, dumped and loaded."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import joblib
import numpy as np
import pytest

from lib.pytorch_test import assert_same_state, make_data, make_predictor, one_thread, run

pytestmark = pytest.mark.integration
__all__ = ["one_thread"]  # a fixture of every test here


def start_python(
    code: str, folder: Path, *arguments: str, hash_seed: str = "0"
) -> subprocess.Popen[str]:
    folder.mkdir(exist_ok=True)
    return subprocess.Popen(
        [sys.executable, "-W", "error::UserWarning", "-c", code, *arguments],
        cwd=folder,
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(sys.path),
            "PYTHONHASHSEED": hash_seed,
            "OMP_NUM_THREADS": "1",  # as here
        },
        stdout=subprocess.PIPE,
        text=True,
    )


def test_a_killed_training_continues_to_the_same_result(tmp_path):
    code = (
        "import pathlib, sys, time\n"
        "from lib.pytorch_test import run\n"
        "def on_epoch(record):\n"
        "    print(record.epoch, flush=True)\n"
        "    time.sleep(60 if record.epoch == 8 else 0)\n"
        "run(checkpoint=pathlib.Path(sys.argv[1]), on_epoch=on_epoch)\n"
    )
    checkpoint = tmp_path / "checkpoint.pt"
    with start_python(code, tmp_path, str(checkpoint)) as process:
        assert process.stdout
        while process.stdout.readline().strip() != "8":
            assert process.poll() is None, "the training ended before it could be killed"
        process.kill()
    assert process.returncode == -signal.SIGKILL
    expected_network, expected_history = run()
    seen = []
    network, history = run(checkpoint=checkpoint, on_epoch=seen.append)
    assert [record.epoch for record in seen] == [7, 8, 9, 10, 11, 12]
    assert history == expected_history
    assert_same_state(network, expected_network)


def test_interpreters_dump_the_same_bytes_and_load_the_same_probabilities(tmp_path):
    dump = (
        "import joblib\n"
        "from lib.pytorch_test import make_predictor, run\n"
        "joblib.dump(make_predictor(run()[0]), 'network.joblib')\n"
    )
    load = (
        "import sys, joblib, numpy as np\n"
        "predictor = joblib.load(sys.argv[1])\n"
        "assert not [name for name in sys.modules if name.split('.')[0] == 'lab']\n"
        "np.save('probabilities.npy', predictor.predict_proba(np.load('X.npy')))\n"
    )
    X, _ = make_data()
    np.save(tmp_path / "X.npy", X)
    predictor = make_predictor(run()[0])
    here = tmp_path / "network.joblib"
    joblib.dump(predictor, here)
    processes = [
        start_python(dump, tmp_path / "another folder", hash_seed="1"),
        start_python(load, tmp_path, str(here), hash_seed="2"),
    ]
    assert [process.communicate() and process.returncode for process in processes] == [0, 0]
    assert (tmp_path / "another folder" / "network.joblib").read_bytes() == here.read_bytes()
    assert np.array_equal(np.load(tmp_path / "probabilities.npy"), predictor.predict_proba(X))


def test_the_settings_of_a_training_are_the_same_in_each_interpreter(tmp_path):
    """Otherwise no checkpoint would be used: no addresses, no order of sets."""
    code = """
import torch
from torch import nn
from functools import partial
from lib.checkpoints import description, settings_of
network = nn.Sequential(nn.LSTM(3, 4), nn.Linear(4, 1))
network.names, network.other, network.module = {"a", "b", "c"}, object(), [nn.ReLU()]
network.again = lambda: network.again
def itself(n): return itself(n - 1)
print(description(network), settings_of((itself, partial(torch.optim.Adam, fused=True))))
"""
    started = [start_python(code, tmp_path, hash_seed=seed) for seed in ("1", "2")]
    one, other = (process.communicate(timeout=120)[0] for process in started)
    assert "LSTM" in one
    assert one == other
