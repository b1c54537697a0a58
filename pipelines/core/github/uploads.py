"""Send a file to GitHub, which takes files at an address of its own and tells it in the release's `upload_url`."""

from __future__ import annotations

from urllib.parse import urlencode, urlsplit

from pipelines.core.errors import ConfigError, one_line
from pipelines.core.github.api import Api
from pipelines.core.github.replies import Unreachable

MOST_BYTES = 64 * 1024 * 1024


def upload(api: Api, upload_url: str, name: str, data: bytes) -> dict[str, object]:
    """Add a file to a release.

    Args:
        api: On whose behalf.
        upload_url: As GitHub's answer about the release has it; `{?name,label}` at its end is a template.
        name: File name.
        data: Content.

    Returns:
        The asset as GitHub shows it.

    Raises:
        ConfigError: The file is too large.
        Unreachable: The address is none of GitHub's, or gave no usable answer.
        Refused: GitHub says no, 422 where a file of this name is there.
    """
    if len(data) > MOST_BYTES:
        raise ConfigError(f"{name}: has {len(data):,} bytes, at most {MOST_BYTES:,} go to a release page")
    url = upload_url.partition("{")[0]
    if not _is_githubs(api.base_url, url):
        raise Unreachable(f"{one_line(url, 100)!r} is no address of GitHub's for files; is GITHUB_API_URL right?")
    answer = api.send_file(f"{url}?{urlencode({'name': name})}", data)
    if not isinstance(answer, dict):
        raise Unreachable("GitHub's answer to a file is no object; run again later")
    return answer


def _is_githubs(base_url: str, url: str) -> bool:
    """Tell whether an address is the API's own host, or the one beside it: the token goes nowhere else."""
    home, there = urlsplit(base_url), urlsplit(url)
    beside = f"uploads.{home.netloc.removeprefix('api.')}"
    return there.scheme == home.scheme and there.netloc in (home.netloc, beside) and "@" not in there.netloc
