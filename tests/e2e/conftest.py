# SPDX-License-Identifier: Apache-2.0
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))
import common  # noqa: E402


@pytest.fixture(scope="session")
def cache(tmp_path_factory):
    """One cache of token stores and converted weights for all runs of a file."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def data(tmp_path_factory):
    return common.make_data(tmp_path_factory.mktemp("data"))
