"""What a bundle runs on is said once, and decides how much of it is run at once."""

import json
import logging

import pytest

from pipeline.bundle import open_bundle
from pipeline.runtime import CPU
from service import models
from service.logs import JsonFormatter
from service.metrics import Metrics
from service.settings import Settings
from tests.bundles import tiny_bundle


@pytest.fixture
def bundle(tmp_path):
    return open_bundle(tiny_bundle(tmp_path / "tiny", kind="native", side=16, frames=3, grid=3))


def load(bundle, caplog, **settings):
    """The bundle at work, and the one line that was logged of it."""
    with caplog.at_level(logging.INFO, "service"):
        served = models.load(bundle, Settings(provider="cpu", **settings), Metrics())
    (line,) = (json.loads(JsonFormatter().format(r)) for r in caplog.records if r.name == "service.models")
    return served, line


def test_what_a_bundle_runs_on_is_logged_once(bundle, caplog):
    served, line = load(bundle, caplog, threads=2)
    assert line["message"] == "bundle loaded"
    assert line["bundle"] == "tiny"
    assert line["digest"] == bundle.digest
    assert (line["precision"], line["provider"], line["threads"]) == ("fp32", CPU, 2)
    assert (served.engine.provider, served.engine.threads) == (CPU, 2)
    assert line["open_s"] >= 0
    assert line["warm_up_s"] >= 0


@pytest.mark.parametrize(("given", "expected"), [({}, 18), ({"max_batch": 5}, 5)])
def test_the_largest_batch_fits_the_provider_unless_it_is_set(bundle, caplog, given, expected):
    served, line = load(bundle, caplog, threads=1, **given)
    assert line["max_batch"] == expected
    assert served.encoder._max_batch == expected


def test_settings_of_the_device_reach_the_engine(bundle, caplog, monkeypatch):
    asked = []

    class Asked(models.Engine):
        def __init__(self, bundle, **named):
            asked.append(named)
            super().__init__(bundle, **named)

    monkeypatch.setattr(models, "Engine", Asked)
    load(bundle, caplog, threads=1, gpu_memory_bytes=2**30)
    assert asked == [{"provider": "cpu", "threads": 1, "parallel": True, "gpu_memory_bytes": 2**30}]
