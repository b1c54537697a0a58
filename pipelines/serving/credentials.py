"""Secrets by their form: keys and tokens with known prefixes, private keys, passwords in URLs and assignments."""

from __future__ import annotations

from pipelines.serving.detectors import Detector, compiled
from pipelines.serving.exchange import Action

TOKEN = r"[A-Za-z0-9_-]"  # noqa: S105 - a character class
PREFIXED = (
    rf"(?<!\w)sk-{TOKEN}{{20,200}}",  # OpenAI, Anthropic, others
    rf"(?<!\w)gh-{TOKEN}{{43}}",  # our own
    r"(?<!\w)gh[pousr]_[A-Za-z0-9]{36,251}",
    r"(?<!\w)github_pat_\w{22,90}",
    rf"(?<!\w)glpat-{TOKEN}{{20,64}}",
    r"(?<!\w)(?:AKIA|ASIA)[0-9A-Z]{16}(?!\w)",
    r"(?<!\w)xox[abeoprs]-[A-Za-z0-9-]{10,250}",
    rf"(?<!\w)AIza{TOKEN}{{35}}",
    r"(?<!\w)[rs]k_(?:live|test)_[0-9A-Za-z]{10,99}",
    r"(?<!\w)hf_[A-Za-z0-9]{30,60}",
    r"(?<!\w)npm_[A-Za-z0-9]{36}",
    rf"(?<!\w)SG\.{TOKEN}{{16,32}}\.{TOKEN}{{16,64}}",
    rf"(?<!\w)eyJ{TOKEN}{{8,1000}}\.eyJ{TOKEN}{{8,2000}}\.{TOKEN}{{0,1000}}",
)
PRIVATE_KEY = r"-----BEGIN [A-Z ]{0,24}PRIVATE KEY-----[A-Za-z0-9+/=\s:,\\-]{0,8000}"
URL = r"[a-z][a-z0-9+.-]{1,20}://[^\s:/@]{1,64}:[^\s/@]{1,128}@"
ASSIGNED = (
    r"(?:password|passwd|pwd|secret|api[ _-]?key|access[ _-]?key|auth[ _-]?token|access[ _-]?token)"
    r"[\"'\\]{0,4}\s{0,3}[:=]\s{0,3}[\"'\\]{0,4}[^\s\"',;\\<>\[\]]{6,128}"
)


def detectors(action: Action) -> list[Detector]:
    """Return what looks for secrets."""
    found = [Detector("secrets", action, "[SECRET]", compiled(pattern, 0)) for pattern in (*PREFIXED, PRIVATE_KEY)]
    found.append(Detector("secrets", action, "[SECRET]@", compiled(URL)))
    found.append(Detector("secrets", action, "[SECRET]", compiled(ASSIGNED)))
    return found
