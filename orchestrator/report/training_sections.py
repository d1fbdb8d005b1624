"""The section on how training went."""

from __future__ import annotations

from orchestrator.report.inputs import ReportInputs
from orchestrator.report.section import Section, make_section, make_table
from orchestrator.report.training_figure import training_figure


def training(inputs: ReportInputs) -> Section | None:
    """Loss and accuracy of every training whose log is there."""
    curves = inputs.curves
    if not curves:
        return None
    ends = "; ".join(
        f"{name}: {rows[-1].step:,} steps, {rows[-1].epoch} epochs, loss {rows[-1].loss:.3f}, accuracy "
        f"{100 * rows[-1].accuracy:.1f} %"
        for name, rows in curves.items()
    )
    caption = (
        f"{ends} at the end. Both are means over the steps before, of training batches with their augmentation; "
        "of a supernet, of the networks that were drawn then. They say whether training converges, not how good a "
        "network is."
    )
    cells = [
        (
            name,
            f"{row.step:,}",
            str(row.epoch),
            f"{row.learning_rate:.3g}",
            f"{row.loss:.4f}",
            f"{100 * row.accuracy:.2f} %",
        )
        for name, rows in curves.items()
        for row in rows
    ]
    headers = ("training", "step", "epoch", "learning rate", "loss", "accuracy")
    return make_section(
        "training",
        "How training went",
        caption,
        lambda width_px: training_figure(curves, width_px),
        make_table(headers, cells),
    )
