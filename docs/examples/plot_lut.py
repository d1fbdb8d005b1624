"""A LUT as pictures, cell by cell: a notebook for VS Code or jupytext, or a script: `plot_lut.py [LUT]`."""

# %% The table
import sys

import matplotlib.pyplot as plt

import luts
import search

name = sys.argv[1] if len(sys.argv) > 1 else "linux-x86-64/autovit-xxs/executorch-xnnpack-fp32-t1"
lut = luts.load(name)
entries, models = lut.to_pandas(), lut.to_pandas("models")
print(
    lut.meta.device.model,
    lut.meta.variant,
    lut.meta.measured,
    f"{len(entries)} blocks, {len(models)} networks",
)

# %% Milliseconds against multiply-accumulates: what MACs do not say
figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.5), layout="constrained")
for kind, rows in entries[entries.identified != "prior"].groupby("kind"):
    arms = [rows.ms - rows.ci_low, rows.ci_high - rows.ms]
    left.errorbar(rows.macs / 1e6, rows.ms, yerr=arms, fmt="o", markersize=4, elinewidth=0.7, label=kind)
left.set(xscale="log", yscale="log", xlabel="million MACs", ylabel="ms, 95 % intervals", title="Blocks")
left.legend(fontsize=8)

# %% Networks that no fit has seen: predicted against measured
space = search.get_space(lut.meta.space)
heldout = models[models.split == "heldout"]
predicted = [
    lut.predict(blocks, moved) for blocks, moved in zip(heldout.blocks, heldout.boundary_bytes, strict=True)
]
right.errorbar([p.ms for p in predicted], heldout.ms, xerr=[(p.high - p.low) / 2 for p in predicted], fmt=".")
ends = [heldout.ms.min(), heldout.ms.max()]
right.plot(ends, ends, color="grey", linewidth=0.7)
right.set(
    xlabel="predicted ms", ylabel="measured ms", title=f"{len(heldout)} held-out networks of {space.name}"
)

# %% Keep it
figure.suptitle(f"{lut.meta.device.name}, {lut.meta.variant}")
figure.savefig("lut.png", dpi=110)
