#!/bin/sh
# The whole way on this machine, for a space small enough to take minutes: profile, train, search, measure the
# winner, report. The LUT goes to the user's, as any profile's does, so that other commands find it; the rest goes to
# runs/demo. Run again, it goes on where it was or shows what is there.
set -eu

out=${DEMO_DIR:-runs/demo}
[ ! -d "$out/luts" ] || {
    echo "demo: $out is of an earlier version, which kept its LUT there; move it away, or set DEMO_DIR" >&2
    exit 1
}
mkdir -p "$out"

step() { printf '\n\033[1m$ %s\033[0m\n' "$*"; "$@"; }

lut=host/autovit-nano/executorch-xnnpack-fp32-t1
step bench profile --device host --space autovit-nano --threads 1 --from none --budget 2m --reuse
step bench lut verify "$lut"
echo "$lut" >"$out/lut.txt"
step bench train --space autovit-nano --data digits --recipe demo -o "$out/supernet"
step bench search --lut "$lut" --supernet "$out/supernet" --latency 80% \
    --generations 1 --device host -o "$out/search"
step bench report --run "$out" -o "$out/report.html"
printf '\nThe report: %s\n' "$out/report.html"
