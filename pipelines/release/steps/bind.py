"""Bind a tag to its manifest: written, signed where a key is declared, and read back before anything uses it."""

from __future__ import annotations

from pipelines.core.errors import GateFailed, one_line
from pipelines.release import clock, manifest, signing, tags
from pipelines.release.state import manifest_path
from pipelines.release.version import parse_tag
from pipelines.release.world import Change, Seen


def run(seen: Seen) -> Change:
    """Return the commit that holds the manifest.

    Raises:
        GateFailed: The release is no longer what it was when it began.
        ConfigError: The signing key cannot be used.
    """
    world, candidate = seen.world, seen.candidate
    input_digest, record = tags.decision_of(world.root, candidate.commit, world.record_of, shown=f"tag {candidate.tag}")
    created = tags.created_of(world.root, candidate.tag_object)
    version = parse_tag(candidate.tag)
    tagged = tags.Tagged(version, candidate.tag_object, candidate.commit, created, input_digest, record)
    built = manifest.build(world.root, tagged, world.images)
    if built.model_digest != candidate.model_digest:
        raise GateFailed(f"{candidate.tag}: its models are not those that its release began with; roll it back")
    if built.content_digest != candidate.content_digest:  # prompts and serving file are the commit's, which is the same
        images = ", ".join(f"{name}={one_line(value, 60)}" for name, value in sorted(world.images.items())) or "none"
        raise GateFailed(
            f"{candidate.tag}: its release began with other images than these ({images}): content digest "
            f"{candidate.content_digest[:12]}, found {built.content_digest[:12]}; run it with those, or roll it back"
        )
    data = built.as_file()
    declared = world.signing(seen.tip)
    signature = signing.sign(data, declared)
    path = manifest_path(world.environment, built.name)
    by = signing.verify(data, signature, declared, path)
    signed = f", signed by {by}" if by else ""
    state = seen.state.changed(
        candidate=candidate.model_copy(update={"manifest": built.name}),
        step="register",
        since=clock.written(seen.now),
    )
    said = f"Bind {candidate.tag} to its manifest {built.name[:12]}{signed}"
    files = {path: data} | ({f"{path}.sig": signature} if signature else {})
    observed = {"manifest": built.name, "signer": by, "images": dict(world.images)}
    return Change(state, seen.event("done", said, observed=observed), seen.told, files)
