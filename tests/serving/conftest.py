"""A real upstream process and a real gateway process for each module."""

from __future__ import annotations

from collections.abc import Iterator

import openai
import pytest

from tests.serving.gateway import KEY, Running
from tests.serving.ledgers import Postgres
from tests.serving.upstreams import Upstreams


@pytest.fixture(scope="module")
def upstreams() -> Iterator[Upstreams]:
    process = Upstreams()
    yield process
    process.kill()


@pytest.fixture(scope="module")
def second() -> Iterator[Upstreams]:
    process = Upstreams()
    yield process
    process.kill()


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    server = Postgres()
    yield server
    server.stop()


@pytest.fixture
def client(gateway: Running) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=KEY, max_retries=0, timeout=20)
