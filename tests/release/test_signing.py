"""Signatures of manifests and tags: made with real keys, verified before anything is used."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from pipelines.core.errors import ConfigError, GateFailed
from pipelines.release import machine
from pipelines.release.signing import Signing, private_key, sign, verify
from tests.release.site import Site, git

DATA = b'{"version":"1.1.0"}\n'


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("keys")
    for name in ("bot", "stranger"):
        subprocess.run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", str(folder / name)], check=True
        )
    return folder


def allowed(keys: Path, name: str = "bot") -> str:
    return f"{name}@example.com {(keys / f'{name}.pub').read_text()}"


def test_a_manifest_signed_by_a_declared_signer_is_accepted_and_an_altered_one_is_not(keys: Path) -> None:
    signing = Signing(keys / "bot", allowed(keys), is_required=True)
    signature = sign(DATA, signing)
    assert verify(DATA, signature, signing, "m.json") == "bot@example.com"
    with pytest.raises(GateFailed, match=r"^m\.json: its signature is not that of a signer"):
        verify(DATA + b" ", signature, signing, "m.json")


def test_a_key_may_be_given_as_its_text_as_a_secret_holds_it(keys: Path) -> None:
    assert private_key(str(keys / "bot")) == keys / "bot"
    text = (keys / "bot").read_text()
    for given in (text, text.rstrip("\n"), text.replace("\n", "\r\n")):
        path = private_key(given)
        assert path.stat().st_mode & 0o077 == 0, "nobody else reads it"
        signature = sign(DATA, Signing(path))
        assert verify(DATA, signature, Signing(None, allowed(keys)), "m.json") == "bot@example.com"


def test_a_signature_of_somebody_else_is_refused(keys: Path) -> None:
    signature = sign(DATA, Signing(keys / "stranger"))
    with pytest.raises(GateFailed, match="is not that of a signer"):
        verify(DATA, signature, Signing(None, allowed(keys)), "m.json")


def test_where_signatures_are_required_an_unsigned_manifest_and_a_missing_key_are_refused(keys: Path) -> None:
    with pytest.raises(GateFailed, match=r"^m\.json: is not signed, and signatures are required$"):
        verify(DATA, None, Signing(None, allowed(keys), is_required=True), "m.json")
    with pytest.raises(ConfigError, match="set GATEHOUSE_SIGNING_KEY"):
        sign(DATA, Signing(None, allowed(keys), is_required=True))
    with pytest.raises(ConfigError, match="no signer is declared"):
        verify(DATA, None, Signing(None, "", is_required=True), "m.json")


def test_where_nothing_is_declared_nothing_is_signed() -> None:
    assert sign(DATA, Signing()) is None
    assert verify(DATA, None, Signing(), "m.json") == ""


def test_a_release_with_a_required_signature_needs_a_signed_tag_and_signs_its_manifest(site: Site, keys: Path) -> None:
    site.commit({".github/allowed_signers": allowed(keys)}, "Declare who signs")
    with pytest.raises(GateFailed, match=r"^tag v1\.1\.0: is not signed by a signer"):
        machine.release(site.world(is_signed_required=True, key=keys / "bot"), "v1.1.0")
    sign_with = ("-c", "gpg.format=ssh", "-c", f"user.signingkey={keys / 'bot'}")
    git(site.root, *sign_with, "tag", "--sign", "--message", "signed", "v1.2.0")
    git(site.root, "push", "--quiet", "origin", "refs/tags/v1.2.0")
    world = site.world(is_signed_required=True, key=keys / "bot")
    assert machine.release(world, "v1.2.0", once=True).result == "waiting"
    assert any(line.endswith("signed by bot@example.com") for line in site.subjects())


def test_a_manifest_that_was_altered_on_the_branch_is_never_deployed(site: Site) -> None:
    site.release("v1.1.0", once=True)
    state = site.state()
    path = f"k8s/overlays/production/manifests/{state.candidate.manifest if state.candidate else ''}.json"
    git(site.root, "pull", "--quiet", "origin", "main")
    text = (site.root / path).read_text()
    site.commit({path: text.replace('"verdict":"pass"', '"verdict":"fine"')}, "Alter it")
    site.file.change(lambda world: world.update(deployed={}))
    with pytest.raises(ConfigError, match="its SHA-256 is not its name"):
        machine.reconcile(site.world())
