"""Sign a manifest with an SSH key, and verify signatures of manifests and tags before anything uses them."""

from __future__ import annotations

import atexit
import os
import subprocess
import tempfile
from pathlib import Path
from typing import NamedTuple

from pipelines.core import git
from pipelines.core.errors import ConfigError, GateFailed, one_line

NAMESPACE = "gatehouse-manifest"
ALLOWED = ".github/allowed_signers"
SECONDS = 60


class Signing(NamedTuple):
    """What is declared about signatures.

    Attributes:
        key: Private SSH key to sign with, or None where nothing is signed here.
        allowed: Text of `.github/allowed_signers` on the branch, as `ssh-keygen` reads it; empty where there is none.
        is_required: Whether an unsigned tag or manifest is refused.
    """

    key: Path | None = None
    allowed: str = ""
    is_required: bool = False


def private_key(value: str) -> Path:
    """Return the path of the key that GATEHOUSE_SIGNING_KEY names, or holds itself, as a workflow's secret does.

    The text is laid into a file that only this user reads and that goes with this process.
    """
    if "-----BEGIN" not in value:
        return Path(value)
    folder = tempfile.TemporaryDirectory(prefix="gatehouse-")
    atexit.register(folder.cleanup)
    path = Path(folder.name) / "key"
    path.touch(mode=0o600)
    path.write_text(value.replace("\r\n", "\n").rstrip("\n") + "\n", encoding="utf-8")
    return path


def sign(data: bytes, signing: Signing) -> bytes | None:
    """Return the signature of a manifest's bytes, or None where no key is declared.

    Raises:
        ConfigError: The key cannot be used, or a signature is required and there is no key.
    """
    if signing.key is None:
        if signing.is_required:
            raise ConfigError("signatures are required, and there is no key; set GATEHOUSE_SIGNING_KEY to its path")
        return None
    said = _ssh_keygen("-Y", "sign", "-q", "-f", str(signing.key), "-n", NAMESPACE, stdin=data)
    if said.returncode or not said.stdout:
        raise ConfigError(f"GATEHOUSE_SIGNING_KEY: {_first_line(said.stderr)}; give the path of a private SSH key")
    return said.stdout


def verify(data: bytes, signature: bytes | None, signing: Signing, shown: str) -> str:
    """Hold a manifest against its signature.

    Args:
        data: The manifest's bytes.
        signature: What stands beside it, or None.
        signing: What is declared.
        shown: Its name in messages.

    Returns:
        Who signed; empty where nothing was to be verified.

    Raises:
        GateFailed: It is not signed though it must be, or not by a declared signer.
        ConfigError: A signature is required and no signer is declared.
    """
    if signing.is_required and not signing.allowed:
        raise ConfigError(f"{ALLOWED}: signatures are required, and no signer is declared; add the file to main")
    if signature is None:
        if signing.is_required:
            raise GateFailed(f"{shown}: is not signed, and signatures are required")
        return ""
    if not signing.allowed:
        return ""
    with tempfile.TemporaryDirectory() as folder:
        allowed, beside = Path(folder) / "allowed", Path(folder) / "signature"
        allowed.write_text(signing.allowed, encoding="utf-8")
        beside.write_bytes(signature)
        files = ("-f", str(allowed), "-s", str(beside))
        found = _ssh_keygen("-Y", "find-principals", *files, stdin=b"")
        names = found.stdout.decode(errors="replace").split()
        for name in names[:1] if found.returncode == 0 else []:
            said = _ssh_keygen("-Y", "verify", "-q", "-I", name, "-n", NAMESPACE, *files, stdin=data)
            if said.returncode == 0:
                return name
    raise GateFailed(f"{shown}: its signature is not that of a signer in {ALLOWED} over these bytes")


def verify_tag(root: Path, tag_object: str, signing: Signing, shown: str) -> None:
    """Refuse a tag that is not signed by somebody whom Git trusts: an SSH signer of the branch, or a GPG key.

    Raises:
        GateFailed: It is not signed, or by nobody known.
        ConfigError: SSH signers are needed and not declared.
    """
    if not signing.is_required:
        return
    with tempfile.TemporaryDirectory() as folder:
        allowed = Path(folder) / "allowed"
        allowed.write_text(signing.allowed, encoding="utf-8")
        setting = f"gpg.ssh.allowedSignersFile={allowed}"
        try:
            git.git(root, "-c", setting, "verify-tag", tag_object)
        except git.GitFailed as error:
            raise GateFailed(f"tag {shown}: is not signed by a signer in {ALLOWED} ({error}); sign it anew") from None


def _ssh_keygen(*arguments: str, stdin: bytes) -> subprocess.CompletedProcess[bytes]:
    environment = {**os.environ, "SSH_ASKPASS_REQUIRE": "never", "DISPLAY": ""}
    try:
        return subprocess.run(
            ["ssh-keygen", *arguments], input=stdin, capture_output=True, env=environment, timeout=SECONDS, check=False,
            start_new_session=True,  # a key with a passphrase has no terminal to ask at
        )  # fmt: skip
    except FileNotFoundError:
        raise ConfigError("ssh-keygen is not installed; install OpenSSH to sign or verify") from None
    except subprocess.TimeoutExpired:
        raise ConfigError(f"ssh-keygen took more than {SECONDS} s; does the key ask for a passphrase?") from None


def _first_line(said: bytes) -> str:
    lines = said.decode(errors="replace").strip().splitlines()
    return one_line(lines[0], 200) if lines else "ssh-keygen failed"
