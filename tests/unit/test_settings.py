"""Settings come from DETECTOR_* alone, and what is wrong with them is said in one line."""

import os
import re

import pytest
from pydantic import ValidationError

from service.settings import Settings, SettingsError, load_settings, settings_table, variables


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch):
    for name in list(os.environ):
        if name.upper().startswith("DETECTOR_"):
            monkeypatch.delenv(name)


def test_environment_sets_and_command_line_wins(monkeypatch):
    monkeypatch.setenv("DETECTOR_PORT", "9001")
    monkeypatch.setenv("DETECTOR_ALLOW_UNTRAINED", "true")
    assert load_settings().port == 9001
    assert load_settings().allow_untrained is True
    assert load_settings(port=9002).port == 9002


def test_settings_are_frozen():
    with pytest.raises(ValidationError, match="frozen"):
        load_settings().port = 1


def test_unknown_variable_is_an_error_with_a_hint(monkeypatch):
    monkeypatch.setenv("DETECTOR_PROT", "9001")
    with pytest.raises(
        SettingsError, match=r"^DETECTOR_PROT is not a setting; did you mean DETECTOR_PORT\?$"
    ):
        load_settings()


def test_unknown_variable_without_anything_close(monkeypatch):
    monkeypatch.setenv("DETECTOR_ZZZZZZZZZZZZ", "1")
    with pytest.raises(SettingsError, match=r"^DETECTOR_ZZZZZZZZZZZZ is not a setting$"):
        load_settings()


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("PORT", "http", "DETECTOR_PORT=http: input should be a valid integer"),
        ("PORT", "70000", "DETECTOR_PORT=70000: input should be less than or equal to 65535"),
        ("PROVIDER", "tpu", "DETECTOR_PROVIDER=tpu: input should be 'cpu', 'prefer' or 'require'"),
        ("REQUEST_TIMEOUT_S", "nan", "DETECTOR_REQUEST_TIMEOUT_S=nan: input should be a finite number"),
        ("SCRATCH_DIR", "/no/such/place", "DETECTOR_SCRATCH_DIR /no/such/place is not a directory"),
        ("FACE_DETECTOR", "insightface", "DETECTOR_FACE_MODEL must name a file"),
    ],
)
def test_bad_value_names_its_variable_in_one_line(monkeypatch, name, value, says):
    monkeypatch.setenv(f"DETECTOR_{name}", value)
    with pytest.raises(SettingsError) as caught:
        load_settings()
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_table_has_a_described_row_for_every_variable():
    rows = re.findall(r"^\| `(DETECTOR_\w+)` \| (.+?) \| (.+?) \|$", settings_table(), flags=re.MULTILINE)
    assert [name for name, _, _ in rows] == variables()
    assert all(meaning != "None" for _, _, meaning in rows)


def test_defaults_in_the_table_are_those_in_force():
    settings = Settings()
    for name, default, _ in re.findall(r"\| `(DETECTOR_\w+)` \| `(.+?)` \| (.+?) \|", settings_table()):
        field = name.removeprefix("DETECTOR_").lower()
        assert getattr(load_settings(**{field: default}), field) == getattr(settings, field), name
