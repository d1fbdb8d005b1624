# Sourced by the scripts that build or check in build/: each thing is made once for the digest of all that decides it,
# beside its place, and renamed when it is whole. So a build may end at any point, and whoever uses what was built
# before keeps that.
# shellcheck shell=bash
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

die() {
  echo "$(basename "$0" .sh): $*" >&2
  exit 1
}

# digest PATHS...: of the names and contents of all files there; PATHS are relative to the clone, wherever that lies
digest() {
  (cd "$root" && find "$@" -type f ! -path '*/build/*' -print0 | LC_ALL=C sort -z | xargs -0 sha256sum | sha256sum | cut -c1-16)
}

digest_of() { # FILES...: of their contents alone
  cat "$@" | sha256sum | cut -c1-16
}

# jdk: the place and the version of the JDK that is found first; nothing where there is none
jdk() {
  local home
  home=$(command -v javac) || return 0
  home=$(readlink -f "$home")
  home=${home%/bin/javac}
  echo "$home $(digest_of "$home/release")"
}

# locked FOLDER: makes it, and waits for another script that builds there
locked() {
  command -v flock >/dev/null || die "flock is not installed (Debian: util-linux)"
  mkdir -p "$1"
  exec 9>"$1/.lock"
  flock 9
}

# quietly COMMAND...: shows its output only where it fails
quietly() {
  local log
  log=$(mktemp)
  if ! "$@" >"$log" 2>&1; then
    cat "$log" >&2
    rm "$log"
    die "$(basename "$1") failed, its output stands above"
  fi
  rm "$log"
}

# once FILE INPUTS COMMAND...: has COMMAND, whose last argument is where, make FILE (or folder), unless it was made of the same INPUTS
once() {
  local file=$1 inputs=$2 stamp=${1%/*}/.${1##*/}.inputs new=${1%/*}/.new
  [[ ! -e $file || ! -f $stamp || $(<"$stamp") != "$inputs" ]] || return 0
  rm -rf "$stamp" "$new"
  mkdir "$new"
  "${@:3}" "$new/${1##*/}"
  [[ ! -d $file ]] || rm -r "$file"
  mv "$new/${1##*/}" "$file"
  echo "$inputs" >"$stamp"
  rm -rf "$new"
}
