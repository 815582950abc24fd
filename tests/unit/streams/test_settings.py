"""One model of settings: defaults, file, environment, flags; all faults at once; secrets stay secret."""

from pathlib import Path

import pytest

from hydrophone.schemas.errors import SettingsError
from hydrophone.streams.settings import load_settings


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_flags_win_over_environment_over_file_over_defaults(
    empty_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (empty_folder / "hydrophone.toml").write_text('group = "file"\nk = 100\nwindow_ms = 5000\n')
    monkeypatch.setenv("HYDROPHONE_GROUP", "environment")
    monkeypatch.setenv("HYDROPHONE_K", "200")
    settings = load_settings(group="flag", k=None)
    assert (settings.group, settings.k, settings.window_ms, settings.idle_ms) == ("flag", 200, 5000, 5000)


def test_all_faults_are_told_together() -> None:
    with pytest.raises(SettingsError) as refusal:
        load_settings(k=1, window_ms=0, guarantee="maybe", unheard_of=1)
    for name in ("k", "window_ms", "guarantee", "unheard_of"):
        assert f"`{name}`" in str(refusal.value)


def test_faults_of_single_settings_do_not_hide_rules_across_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HYDROPHONE_LATENESS_MS", "10")
    with pytest.raises(SettingsError) as refusal:
        load_settings(k=1)
    assert "`k`" in str(refusal.value)
    assert "`lateness_ms` must be at least" in str(refusal.value)


@pytest.mark.parametrize("text", ["k = ", "unheard_of = 1", 'k = "many"'])
def test_file_that_cannot_be_read_is_a_fault_of_the_settings(empty_folder: Path, text: str) -> None:
    (empty_folder / "hydrophone.toml").write_text(text)
    with pytest.raises(SettingsError):
        load_settings()


def test_variable_that_is_no_json_is_a_fault_of_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HYDROPHONE_KAFKA", "not json")
    with pytest.raises(SettingsError, match="kafka"):
        load_settings()


def test_rules_across_settings_hold() -> None:
    with pytest.raises(SettingsError, match="lateness_ms"):
        load_settings(lateness_ms=1000, future_skew_ms=900, expected_delay_ms=200)


def test_no_broker_is_a_fault_that_says_what_to_do() -> None:
    with pytest.raises(SettingsError, match="--bootstrap"):
        _ = load_settings().kafka_properties


def test_kafka_properties_pass_through_untouched() -> None:
    kafka = {"security.protocol": "SASL_SSL", "sasl.password": "s3cret"}
    settings = load_settings(bootstrap="b:1", kafka=kafka)
    assert settings.kafka_properties == {**kafka, "bootstrap.servers": "b:1"}


def test_secrets_are_masked_wherever_settings_are_shown() -> None:
    settings = load_settings(sampling_key="hush-hush", kafka={"sasl.password": "s3cret", "ssl.key.pem": "PEM"})
    shown = f"{settings.redacted()} {settings!r} {settings}"
    for secret in ("hush-hush", "s3cret", "PEM'"):
        assert secret not in shown


def test_a_bad_secret_does_not_stand_in_the_error() -> None:
    with pytest.raises(SettingsError) as refusal:
        load_settings(sampling_key=["not", "text-s3cret"])
    assert "s3cret" not in str(refusal.value)


def test_the_sampling_key_is_named_without_being_told() -> None:
    one, same, other = (load_settings(sampling_key=key) for key in ("one", "one", "other"))
    assert one.sampling_key_id == same.sampling_key_id != other.sampling_key_id
    assert one.sampling_key_bytes != other.sampling_key_bytes
