"""Files go to GitHub's own address for them, and the token with them goes nowhere else."""

from __future__ import annotations

import pytest

from pipelines.core.errors import ConfigError
from pipelines.core.github import uploads
from pipelines.core.github.api import Api
from pipelines.core.github.replies import Refused, Unreachable
from pipelines.core.github.uploads import upload
from tests.standin.github import GitHub


@pytest.mark.parametrize(
    ("api", "address", "is_fine"),
    [
        ("https://api.github.com", "https://uploads.github.com/repos/o/r/releases/1/assets{?name,label}", True),
        ("https://api.acme.ghe.com", "https://uploads.acme.ghe.com/repos/o/r/releases/1/assets", True),
        ("https://git.acme.example/api/v3", "https://git.acme.example/api/uploads/repos/o/r/releases/1/assets", True),
        ("https://api.github.com", "https://uploads.github.com.evil.example/repos/o/r/releases/1/assets", False),
        ("https://api.github.com", "https://uploads.github.com@evil.example/repos/o/r/releases/1/assets", False),
        ("https://api.github.com", "http://uploads.github.com/repos/o/r/releases/1/assets", False),
        ("https://api.github.com", "", False),
    ],
)
def test_which_address_is_githubs(monkeypatch: pytest.MonkeyPatch, api: str, address: str, *, is_fine: bool) -> None:
    sent: list[str] = []
    monkeypatch.setattr(Api, "send_file", lambda self, url, data: sent.append(url) or {"id": 1})
    home = Api("o/r", "token", base_url=api)
    if is_fine:
        upload(home, address, "a b.json", b"{}")
        assert sent == [f"{address.partition('{')[0]}?name=a+b.json"]
    else:
        with pytest.raises(Unreachable, match="is no address of GitHub's for files"):
            upload(home, address, "a.json", b"{}")
        assert sent == []


def test_bytes_arrive_as_they_are_and_a_name_counts_once() -> None:
    with GitHub() as github:
        api = Api("o/r", github.token, base_url=github.url)
        made = api.post("/repos/{repository}/releases", {"tag_name": "v1.0.0", "draft": True})
        data = bytes(range(256))
        asset = upload(api, made["upload_url"], "all.bin", data)
        assert asset["size"] == 256
        with pytest.raises(Refused, match="already_exists"):
            upload(api, made["upload_url"], "all.bin", data)


def test_a_file_that_is_too_large_is_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "MOST_BYTES", 3)
    with pytest.raises(ConfigError, match=r"^big\.json: has 4 bytes, at most 3"):
        upload(Api("o/r", "token"), "https://uploads.github.com/x", "big.json", b"1234")
