"""Data for the tests of this process."""

import joblib
import pytest

from lab.processes.prepare_data.cancer_data import load_cancer_data, prepare_cancer_data
from lib.preparation import Shares


@pytest.fixture(name="temp_data_dir", scope="module")
def temporary_cancer_data_directory(tmp_path_factory):
    """A directory with the splits and the scaler, as prepare_data leaves them."""
    folder = tmp_path_factory.mktemp("data")
    shares = Shares(test_size=0.15, validation_size=0.2, random_seed=0)
    prepared = prepare_cancer_data([load_cancer_data()], folder, shares)
    joblib.dump(prepared.scaler, folder / "scaler.joblib")
    return folder
