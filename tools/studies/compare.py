"""EfficientNet-Lite and two search winners, fine-tuned on the same images: accuracy as exported against latency."""

from __future__ import annotations

from pathlib import Path

from luts.format.files import write_text
from orchestrator.journal.runs import runs_root
from orchestrator.report.figures import save_pareto as save
from orchestrator.tasks.compare import compare_networks
from orchestrator.tasks.evaluation_options import CompareOptions, OptionalTarget
from orchestrator.tasks.search import find_network
from orchestrator.tasks.search_options import SearchCommand, SettingOptions, TargetOptions
from search.spaces import Arch
from search.spaces.registry import timm_arch
from search.supernet.recipe.recipe import changed, get_recipe
from tools.studies.shared import Options
from tools.studies.trainings import Training
from tools.tables import Interval, Tables, log

SPACE = "autovit-cifar"
LITES = ("tf_efficientnet_lite0", "tf_efficientnet_lite1", "tf_efficientnet_lite2")
SIDE = 64
"""Image side of timm's networks in pixels: twice that of the images, so that maps do not vanish."""
PERCENTS = (40, 80)
"""Latency limits of the winners, in percent of the LUT's reference."""
LEARNING_RATE = 1e-3
"""Peak of fine-tuning; the recipe's own is for many more epochs."""
SUPERNET_EPOCHS = 40
QUICK_IMAGES = 100


def main(options: Options) -> Tables:
    """Train, search, fine-tune and compare on validation images; accuracies in percent, Wilson's 95 % intervals."""
    folder = runs_root() / "studies" / ("compare-quick" if options.quick else "compare")
    lites = [timm_arch(f"timm:{name}@{SIDE}") for name in LITES]
    networks = [f"{arch.space}:{_fine_tuned(arch, f'timm:{arch.space[5:-3]}', options)}" for arch in lites]
    comparison = CompareOptions(
        networks=(*networks, *_winners(options, folder)),
        data=options.images,
        images=QUICK_IMAGES if options.quick else None,
        processes=options.jobs,
        target=OptionalTarget(**vars(options.target)),
        budget_s=options.budget_s,
        output=folder / "table",
    )
    compared = compare_networks(comparison, log)
    images = f"{(compared.data or {})['images']} images"
    options.pictures.mkdir(parents=True, exist_ok=True)
    save(options.pictures / "compare.png", compared.rows, options.device, images, compared.simulated)
    rows = [
        {
            "network": Path(row["model"].partition(":/")[0].removeprefix("timm:")).stem,
            "top-1": Interval(100 * row["top1"], 100 * row["top1_low"], 100 * row["top1_high"]),
            "PyTorch": 100 * row["pytorch_top1"],
            "agreement": 100 * row["agreement"],
            "ms": Interval(row["ms"], row["ci_low"], row["ci_high"]),
            "p90 ms": row["p90_ms"],
            "load ms": row["load_ms"],
            "file MiB": row["file_bytes"] / 2**20,
            "peak MiB": row["peak_memory_bytes"] and row["peak_memory_bytes"] / 2**20,
            "parameters": row["params"],
            "MACs": row["conv_linear_macs"],
            "on the front": row["pareto"],
        }
        for row in compared.rows
    ]
    return {"EfficientNet-Lite and search winners": rows}


def _fine_tuned(arch: Arch, init: str, options: Options) -> Path:
    """Return the folder of a network's training from weights."""
    values = {
        "arch": arch.to_json(),
        "epochs": options.epochs,
        "precision": "bf16",
        "learning_rate": LEARNING_RATE,
        "warmup_epochs": 0.1 * options.epochs,
    }
    recipe = changed(get_recipe("finetune"), values, {})
    classes = 10 if init.startswith("timm:") else None
    return Training(arch.space, recipe, options.images, init=init, classes=classes).run(options.on)


def _winners(options: Options, folder: Path) -> list[str]:
    """Return the most accurate networks of a supernet within two latencies, fine-tuned, as `NETWORK:WEIGHTS`."""
    epochs = options.epochs if options.quick else SUPERNET_EPOCHS
    recipe = changed(get_recipe("cifar10"), {"epochs": epochs, "precision": "bf16"}, {})
    supernet = Training(SPACE, recipe, options.images).run(options.on)
    settings = SettingOptions(generations=3)
    if options.quick:
        settings = SettingOptions(population=4, generations=1, draws=100)
    texts = []
    for percent in PERCENTS:
        command = SearchCommand(
            targets=TargetOptions(lut=options.lut, latency=f"{percent}%"),
            supernet=supernet,
            settings=settings,
            on=options.on,
            output=folder / f"search-{percent}",
        )
        found = find_network(command, log)
        arch, file = found.winner.architecture(), folder / f"winner-{percent}.json"
        write_text(file, arch.to_json())
        texts.append(f"{file}:{_fine_tuned(arch, f'supernet:{supernet}', options)}")
    return texts
