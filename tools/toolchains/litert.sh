#!/usr/bin/env bash
# litert-torch, which converts networks to .tflite, into .toolchains/litert: an environment above .venv, whose torch
# and numpy it uses. It can't lie in .venv: xdsl asks for a typing-extensions below 4.13, pydantic for a newer one.
# The newer one serves both, so the packages are installed without looking at what they ask for.
set -euo pipefail
cd "$(dirname "$0")/../.."
dest=$PWD/.toolchains/litert
python=$PWD/.venv/bin/python

packages="litert-torch==0.10.0 litert-converter==0.5.0 ai-edge-quantizer==0.10.0 xdsl==0.28.0 jax==0.10.2 jaxlib==0.10.2
    jaxtyping==0.3.11 wadler-lindig==0.1.8 opt-einsum==3.4.0 absl-py==2.5.1 immutabledict==4.3.1 lark==1.3.1
    multipledispatch==1.0.0 ordered-set==4.1.0"

fail() { echo "litert.sh: $*" >&2; exit 1; }

[ -x "$python" ] || fail "no .venv here; run make setup first"
"$python" -c 'import ai_edge_litert' 2>/dev/null || fail "LiteRT is not installed; pip install -e '.[litert]'"
mkdir -p "$dest"
exec 9>"$dest/.lock"
flock 9
below=$("$python" -c 'import os, sysconfig; print(os.path.realpath(sysconfig.get_paths()["purelib"]))')
if [ "$(cat "$dest/.packages" 2>/dev/null)" = "$packages $below" ]; then exit 0; fi

"$python" -m venv --without-pip "$dest"
echo "$below" >"$("$dest/bin/python" -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])')/below.pth"
# shellcheck disable=SC2086
"$dest/bin/python" -m pip install --quiet --no-deps $packages || fail "pip cannot install $packages"
"$dest/bin/python" -c 'import litert_torch' 2>/dev/null || fail "litert-torch can't be imported above $below"
printf %s "$packages $below" >"$dest/.packages"
