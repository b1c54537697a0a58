"""The state and the histories as files: what is written is read again, and a broken one is one line."""

from __future__ import annotations

import pytest

from pipelines.core.errors import ConfigError
from pipelines.release.history import Event, History, read_history
from pipelines.release.state import Held, Pause, Release, State, read_state, release_path, rollout_id

RELEASE = Release(
    version="1.10.0", tag="v1.10.0", tag_object="1" * 40, commit="12e45" * 8, input_digest="a" * 64,
    model_digest="b" * 64, content_digest="c" * 64, rollout_id="1234567e12345678", manifest="0" * 64,
    registry_version="7",
)  # fmt: skip
STATE = State(
    stable=RELEASE, candidate=RELEASE, rollout_id="1234567e12345678", attempt=2, step="canary", stage=1, weight=0.05,
    since="2026-11-21T15:20:00Z", earlier=(RELEASE,), newest="1.10.0", gates_sha256="9" * 64,
    pause=Pause(by="no", at="2026-11-21T15:20:00Z", why="yes: # 'it' \"is\" ✓\nnull"),
    held=(Held(content_digest="1e5", tag="v1.9.0", rollout_id="0x1", why="~", at=""),),
)  # fmt: skip


def test_a_state_comes_back_as_it_was_written_whatever_yaml_takes_for_a_number() -> None:
    assert read_state(STATE.as_file(), "release.yaml") == STATE
    assert read_state(None, "release.yaml") == State()


def test_a_broken_state_names_its_line() -> None:
    text = STATE.as_file().replace(b"weight: 0.05", b"weigth: 0.05")
    with pytest.raises(ConfigError, match=r"^release\.yaml:[0-9]+: weigth: unknown key .*did you mean 'weight'"):
        read_state(text, "release.yaml")


def test_a_broken_history_names_its_key() -> None:
    event = Event(at="2026-11-21T15:20:00Z", attempt=1, step="verify", action="begin", said="Begin", by="rita")
    history = History(
        rollout_id="r", tag="v1.0.0", tag_object="1", version="1.0.0", commit="c", model_digest="m", gates_sha256="g",
        target="scripted", events=(event,),
    )  # fmt: skip
    assert read_history(history.as_file(), "h.json") == history
    with pytest.raises(ConfigError, match=r"^h\.json: events\.0\.attempt: "):
        read_history(history.as_file().replace(b'"attempt": 1', b'"attempt": "one"'), "h.json")


@pytest.mark.parametrize("name", ["../x", "Production", "", "a/b"])
def test_an_environment_cannot_lead_elsewhere(name: str) -> None:
    with pytest.raises(ConfigError, match=r"^environment "):
        release_path(name)


def test_a_rollout_is_named_by_tag_commit_and_model_alone() -> None:
    first = rollout_id("v1.0.0", "c", "m")
    assert first == rollout_id("v1.0.0", "c", "m")
    assert (
        len({first, rollout_id("v1.0.1", "c", "m"), rollout_id("v1.0.0", "d", "m"), rollout_id("v1.0.0", "c", "n")})
        == 4
    )
