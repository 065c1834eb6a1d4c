# shellcheck shell=bash
# Sourced by the checks. tracked [PATHSPEC…]: NUL-separated files of ours that exist.
# safe.directory: the tests run as root in a tree that may be somebody else's.
tracked() {
  git -c safe.directory='*' rev-parse --is-inside-work-tree >/dev/null 2>&1 || {
    printf 'SKIPPED: not a git work tree, so what is ours is not known\n' >&2
    return 77
  }
  git -c safe.directory='*' ls-files -z -- "$@" |
    while IFS= read -r -d '' file; do
      if [[ -f $file && ! -L $file ]]; then printf '%s\0' "$file"; fi
    done
}

# need TOOL: without it the check says that it was skipped.
need() {
  command -v "$1" >/dev/null || {
    printf 'SKIPPED: %s is not installed\n' "$1"
    exit 77
  }
}
