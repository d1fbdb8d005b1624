"""EfficientNet-Lite and two search winners, fine-tuned on the same images: accuracy as exported, beside latency."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from luts.format.errors import UsageError
from luts.format.files import write_text
from orchestrator.journal.runs import runs_root
from orchestrator.report.figures import save_pareto as save
from orchestrator.tasks.compare import Compared, compare_networks
from orchestrator.tasks.judge import Question
from orchestrator.tasks.latencies import Timing
from orchestrator.tasks.phones import budget_of, open_phone
from orchestrator.tasks.search import find_network
from orchestrator.tasks.target import Target
from orchestrator.tasks.train import train_supernet
from search.algorithms import SearchSettings
from search.spaces import Arch
from search.spaces.whole import timm_arch
from search.supernet.recipe.recipe import changed, get_recipe
from tools.studies._options import Options

SPACE = "autovit-cifar"
LITES = ("tf_efficientnet_lite0", "tf_efficientnet_lite1", "tf_efficientnet_lite2")
SIDE = 64
"""Pixels that timm's networks are fine-tuned at: twice those of the images, so that maps are not spent at once."""
SHARES = (40, 80)
"""Latency that each winner may have, percent of that of the LUT's reference."""
THREADS = 1
PRECISION = "bf16"
"""Of all trainings: little over half of fp32's time a step on a CPU that multiplies it."""
WARMUP = 0.1
"""Share of fine-tuning in which the learning rate rises."""
LEARNING_RATE = 1e-3
"""At its peak; the recipe's is for many more epochs."""
SUPERNET_EPOCHS = 40
"""It begins from random weights."""
GENERATIONS = 3
"""Of each search, after its first 50 evaluations: 200 of up to 6,432 networks."""
QUICK_IMAGES = 100


def main(options: Options) -> str:
    """Train, search and fine-tune what is not there yet, compare; the section's text."""
    if options.data is None:
        raise UsageError("this study trains networks; give --data, such as cifar10:FILE.npz")
    folder = runs_root() / "studies" / ("compare-quick" if options.quick else "compare")
    networks = []
    for name in LITES:
        arch = timm_arch(f"timm:{name}@{SIDE}")
        networks.append(f"{arch.space}:{_fine_tuned(arch, f'timm:{name}', options, folder)}")
    networks += _winners(options, folder)
    compared = compare_networks(
        networks,
        Question(options.data, images=QUICK_IMAGES if options.quick else None, processes=options.jobs),
        Timing(Target(options.device, threads=THREADS), options.budget_s),
        folder=folder / "table",
        progress=print,
    )
    options.pictures.mkdir(parents=True, exist_ok=True)
    images = f"{(compared.data or {})['images']} images"
    save(options.pictures / "compare.png", compared.rows, options.device, images, compared.simulated)
    return section(compared, options)


def _fine_tuned(arch: Arch, init: str, options: Options, folder: Path) -> Path:
    """The folder of a network's training; goes on where it was cut off."""
    assert options.data is not None
    told = {
        "arch": arch.to_json(),
        "epochs": options.epochs,
        "precision": PRECISION,
        "learning_rate": LEARNING_RATE,
        "warmup_epochs": WARMUP * options.epochs,
    }
    output = folder / f"{arch.digest}-{options.epochs}"
    train_supernet(
        None,
        options.data,
        output,
        changed(get_recipe("finetune"), told, {}),
        init=init,
        classes=10 if init.startswith("timm:") else None,
        on=options.on,
        progress=print,
    )
    return output


def _winners(options: Options, folder: Path) -> list[str]:
    """The most accurate networks of a supernet within two latencies, fine-tuned, as a comparison takes them."""
    assert options.data is not None
    epochs = options.epochs if options.quick else SUPERNET_EPOCHS
    supernet = folder / f"supernet-{epochs}"
    recipe = changed(get_recipe("cifar10"), {"epochs": epochs, "precision": PRECISION}, {})
    train_supernet(SPACE, options.data, supernet, recipe, on=options.on, progress=print)
    settings = (
        SearchSettings(population=4, generations=1, draws=100)
        if options.quick
        else SearchSettings(generations=GENERATIONS)
    )
    texts = []
    for percent in SHARES:
        phone = open_phone(options.lut, reference_percent=percent)
        found = find_network(
            supernet,
            [phone],
            folder / f"search-{percent}",
            budget=budget_of([phone]),
            settings=settings,
            on=options.on,
            progress=print,
        )
        arch, network = found.winner.architecture(), folder / f"winner-{percent}.json"
        write_text(network, arch.to_json())
        texts.append(f"{network}:{_fine_tuned(arch, f'supernet:{supernet}', options, folder)}")
    return texts


def section(compared: Compared, options: Options) -> str:
    """The table, with its picture."""
    setup, data = compared.setup or {}, compared.data or {}
    made_up = "SIMULATED milliseconds, not measured on any device. " if compared.simulated else ""
    failed = "".join(f"\n{name} is missing: {reason}\n" for name, reason in compared.failures.items())
    return f"""### EfficientNet-Lite and two search winners

{made_up}EfficientNet-Lite0, -Lite1 and -Lite2 with ImageNet weights at {SIDE} px, and the best of `{SPACE}` by
`{options.lut}` within {" and ".join(map(str, SHARES))} % of its reference's latency. Training was not equal, so no
accuracy here says which architecture is better: the winners' supernet began from random weights and saw
{SUPERNET_EPOCHS} epochs of these images and no others. All five were fine-tuned for {options.epochs}
epoch{"s" if options.epochs > 1 else ""} at the same learning rate, {LEARNING_RATE:g}, the Lites on images of
twice the side. {setup["variant"]}. Top-1 in percent on {data["images"]} {data["split"]} images, with
Wilson's 95 % interval: of the .pte as ExecuTorch runs it, and of PyTorch; agreement is the share of images with the
same first guess. Peak memory is the agent's with the model alone. Best: no other is as accurate and as fast.

| network | as exported | PyTorch | agreement | ms | p90 | load ms | MiB | peak MiB | parameters | MACs | best |
|---|---|---|---|---|---|---|---|---|---|---|---|
{_rows(compared.rows)}
{failed}
![Top-1 against milliseconds](pictures/compare.png)
"""


def _rows(rows: Sequence[Mapping[str, Any]]) -> str:
    return "\n".join(f"| {' | '.join(_cells(row))} |" for row in rows)


def _cells(row: Mapping[str, Any]) -> list[str]:
    def number(name: str, digits: int, scale: float = 1.0) -> str:
        value = row.get(name)
        return "-" if value is None else f"{scale * value:.{digits}f}"

    def between(name: str, low: str, high: str, digits: int, scale: float = 1.0) -> str:
        if row.get(name) is None:
            return "-"
        return (
            f"{number(name, digits, scale)} ({number(low, digits, scale)} to {number(high, digits, scale)})"
        )

    network = Path(str(row["model"]).partition(":/")[0].removeprefix("timm:")).stem
    return [
        network,
        between("top1", "top1_low", "top1_high", 2, 100),
        number("pytorch_top1", 2, 100),
        number("agreement", 2, 100),
        between("ms", "ci_low", "ci_high", 3),
        number("p90_ms", 3),
        number("load_ms", 1),
        number("file_bytes", 1, 2**-20),
        number("peak_memory_bytes", 1, 2**-20),
        f"{row['params'] / 1e6:.2f} M" if row.get("params") else "-",
        f"{row['conv_linear_macs'] / 1e6:.1f} M" if row.get("conv_linear_macs") else "-",
        {True: "yes", False: "no", None: "-"}[row["pareto"]],
    ]
