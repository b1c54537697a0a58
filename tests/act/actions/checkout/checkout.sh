set -euo pipefail
if [ "$PERSIST" != false ]; then
  echo "checkout would leave the token in .git/config: persist-credentials must be false" >&2
  exit 1
fi
git init --quiet --initial-branch=main "$FOLDER"
cd "$FOLDER"
git remote add origin "$GATEHOUSE_ORIGIN"
if [ "$DEPTH" = 0 ]; then
  git fetch --quiet origin '+refs/heads/*:refs/remotes/origin/*' '+refs/tags/*:refs/tags/*'
  git fetch --quiet origin "$REF"
else
  git fetch --quiet --no-tags --depth="$DEPTH" origin "$REF"
fi
git checkout --quiet --force --detach FETCH_HEAD
case "$GITHUB_REF" in refs/heads/*) git checkout --quiet -B "${GITHUB_REF#refs/heads/}" ;; esac
# Else a scenario would run another commit than it says; a branch is taken as it is now.
[[ ! "$REF" =~ ^[0-9a-f]{40}$ ]] || test "$(git rev-parse HEAD)" = "$REF"
