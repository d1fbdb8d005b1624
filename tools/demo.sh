#!/bin/sh
# The whole way on this machine, for a space small enough to take minutes: profile, train, search, measure the
# winner, report. Run again, it goes on where it was or shows what is there.
set -eu

out=${DEMO_DIR:-runs/demo}
export BLOCKTIME_RUNS="$out/runs" BLOCKTIME_LUTS="$out/luts"
mkdir -p "$out"

step() { printf '\n\033[1m$ %s\033[0m\n' "$*"; "$@"; }

step bench profile --device host --space autovit-nano --threads 1 --budget 2m --reuse
step bench lut verify host/autovit-nano
echo host/autovit-nano >"$out/lut.txt"
step bench train --space autovit-nano --data digits --recipe demo -o "$out/supernet"
step bench search --lut host/autovit-nano --supernet "$out/supernet" --latency 80% \
    --population 20 --generations 3 --parents 6 --crossovers 8 --mutations 8 --device host -o "$out/search"
step bench report --run "$out" -o "$out/report.html"
printf '\nThe report: %s\n' "$out/report.html"
