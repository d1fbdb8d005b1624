"""All readers of untrusted data by name; here those of checkpoints, weights, architectures, recipes and files."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import random
import shutil
import zipfile

import numpy as np

from luts.format.errors import BlocktimeError, UsageError
from tests.soak.frame_readers import ClientReader, FrameReader
from tests.soak.journal_readers import BundleReader, JournalReader
from tests.soak.lut_readers import LutReader, SharedReader
from tests.soak.mutations import mutate_bytes, mutate_json, mutate_text, mutate_zip
from tests.soak.reader import FILE, SEALED, SHA, Reader


class CheckpointReader(Reader):
    """A supernet's checkpoint: its description, or its tensors."""

    def make(self) -> None:
        """Write a checkpoint with a few tensors."""
        import torch

        from luts.format.provenance import CodeVersion
        from search.spaces import get_space
        from search.supernet.model.weights_file import tensors_digest
        from search.supernet.train.checkpoint import CheckpointInfo, write_checkpoint
        from tests.support.training import TINY

        space = get_space("autovit-nano")
        self.tensors = {
            "weights/a": torch.arange(6.0).reshape(2, 3),
            "moments/a": torch.ones(2, dtype=torch.int64),
        }
        fields = {
            "step": 2, "steps_per_epoch": 2, "recipe": TINY, "source": "digits", "data_digest": SHA,
            "code": CodeVersion(package="1", commit=None, sources=SHA), "space": space.name,
            "space_digest": space.digest, "classes": ("0", "1"), "loss": 0.5, "split_seed": 0,
            "split_fraction": 0.1, "image_side": 8, "weights_sha256": tensors_digest(self.tensors),
            "scaler": {"scale": 2.0},
        }  # fmt: skip
        self.info = write_checkpoint(self.folder, CheckpointInfo, fields, {"supernet": self.tensors})
        self.names = ["checkpoint.json", self.info.tensors]
        self.files = {name: (self.folder / name).read_bytes() for name in self.names}
        self.corpus = [
            bytes([at | seal]) + self.files[name]
            for at, name in enumerate(self.names)
            for seal in (0, SEALED)
        ]

    def mutate_content(self, file: int, content: bytes, rng: random.Random) -> bytes:
        """Return another description, or tensors with another header."""
        if file % 2 == 0:
            return mutate_json(content, rng)
        return mutate_safetensors(content, rng)

    def read(self, data: bytes) -> str:
        """Read a checkpoint and overwrite tensors by it; without a seal it must be the undamaged one."""
        import torch

        from search.supernet.model.weights_file import copy_into
        from search.supernet.train.checkpoint import read_info, read_tensors

        flags = data[0] if data else 0
        files = {**self.files, self.names[(flags & FILE) % 2]: data[1:]}
        if flags & SEALED:
            files["checkpoint.json"] = _sealed_info(files["checkpoint.json"], files[self.info.tensors])
        for name, content in files.items():
            (self.folder / name).write_bytes(content)
        info = read_info(self.folder)
        tensors = read_tensors(self.folder, info, "supernet")
        targets = {name: torch.zeros_like(value) for name, value in self.tensors.items()}
        copy_into(targets, tensors, "other tensors")
        same = all(torch.equal(targets[name], value) for name, value in self.tensors.items())
        return "" if flags & SEALED or (info == self.info and same) else "a changed checkpoint is accepted"


def _sealed_info(content: bytes, tensors: bytes) -> bytes:
    from search.supernet.train.checkpoint import _digest

    try:
        document = json.loads(content)
        document.pop("sha256", None)
        document["tensors_sha256"] = hashlib.sha256(tensors).hexdigest()
        return json.dumps(document | {"sha256": _digest(document)}).encode()
    except (ValueError, TypeError, AttributeError, RecursionError):
        return content


def mutate_safetensors(content: bytes, rng: random.Random) -> bytes:
    """Return a safetensors file with another header, whose length is right, or other data."""
    size = int.from_bytes(content[:8], "little")
    header = mutate_json(content[8 : 8 + size], rng)
    return len(header).to_bytes(8, "little") + header + content[8 + size :]


class WeightsReader(Reader):
    """Weights of a network: a safetensors file, pickled tensors, or stored logits of a teacher."""

    def make(self) -> None:
        """Write weights of a linear layer, pickled in both formats of torch, and two batches of logits."""
        import torch
        from safetensors.torch import save

        from search.supernet.model.weights_file import tensors_digest
        from search.supernet.train.teacher import LabelHeader, _layout

        self.model = torch.nn.Linear(3, 2)
        state = self.model.state_dict()
        self.labels = LabelHeader(teacher=SHA, data=SHA, images=SHA, classes=10, top_k=2, steps=2, batch=4)
        logits = {
            name: torch.zeros(shape, dtype=kind) for name, (shape, kind) in _layout(self.labels).items()
        }
        heading = {"header": self.labels.model_dump_json(), "sha256": tensors_digest(logits)}
        pickles = []
        for modern in (True, False):
            out = io.BytesIO()
            torch.save(state, out, _use_new_zipfile_serialization=modern)
            pickles.append(out.getvalue())
        files = [save(state), *pickles, save(logits, heading)]
        self.suffixes = [".safetensors", ".pth", ".pth", ".labels"]
        self.corpus = [bytes([at]) + content for at, content in enumerate(files)]

    def mutate_content(self, file: int, content: bytes, rng: random.Random) -> bytes:
        """Return another header, or another entry of the zip that holds pickled tensors."""
        if file % 4 == 1:
            return mutate_zip(content, rng)
        return mutate_bytes(content, rng) if file % 4 == 2 else mutate_safetensors(content, rng)

    def read(self, data: bytes) -> str:
        """Load weights into the layer, or logits."""
        from search.supernet.model.weights_file import read_weights
        from search.supernet.train.teacher import _load_state, _read

        suffix = self.suffixes[(data[0] if data else 0) & 3]
        path = self.folder / f"weights{suffix}"
        path.write_bytes(data[1:])
        if suffix == ".labels":
            _read(path, self.labels)
            return ""
        if suffix == ".safetensors":
            read_weights(path)
        _load_state(self.model, "timm:linear", path, None)
        return ""


class ArchitectureReader(Reader):
    """An architecture's JSON."""

    def make(self) -> None:
        """Write architectures of several spaces."""
        from search.spaces import get_space

        self.path, self.corpus, rng = self.folder / "arch.json", [], random.Random(0)
        for name in ("autovit-nano", "mobilevit", "efficientvit", "nasbench-macro"):
            with contextlib.suppress(BlocktimeError):
                arch = get_space(name).sample(rng)
                self.corpus.append(b"\0" + json.dumps(arch.to_document()).encode())

    def read(self, data: bytes) -> str:
        """Read an architecture and its blocks; written and read again it must be the same."""
        from search.spaces import arch_from_json, load_arch

        self.path.write_bytes(data[1:])
        arch = load_arch(str(self.path))
        arch.keys()
        arch.params()
        return (
            ""
            if arch_from_json(json.dumps(arch.to_document())) == arch
            else "it is not the same when written again"
        )


class RecipeReader(Reader):
    """A recipe of a training."""

    def make(self) -> None:
        """Write the recipes of the package and one with all parts as TOML."""
        from search.supernet.recipe.recipe import RECIPES

        self.path = self.folder / "mine.toml"
        texts = [path.read_text() for path in sorted(RECIPES.glob("*.toml"))]
        extending = (
            'extends = "default"\nepochs = 3\nlearning_rate = 0.1\n[augmentation]\nmixup = 0.2\nerase = 0.1\n'
        )
        self.corpus = [b"\0" + text.encode() for text in (extending, *texts)]

    def mutate_content(self, file: int, content: bytes, rng: random.Random) -> bytes:
        """Return a recipe with another value in one of its lines."""
        del file
        return mutate_text(content, rng)

    def read(self, data: bytes) -> str:
        """Read a recipe, and the part of a space that it trains."""
        from search.spaces import get_space
        from search.supernet.recipe.recipe import Recipe, get_recipe, scope_of

        self.path.write_bytes(data[1:])
        recipe = get_recipe(str(self.path))
        rates = [recipe.learning_rate_at(step, 10) for step in (0, 10 * recipe.epochs - 1)]
        if Recipe.model_validate_json(recipe.model_dump_json()) != recipe:
            return "it is not the same when written again"
        if not all(0 <= rate <= 1 for rate in rates):
            return f"learning rates of {rates}"
        with contextlib.suppress(UsageError):  # most recipes are for other spaces
            scope_of(recipe, get_space("autovit-nano"))
        return ""


class ProgramReader(Reader):
    """A .pte: the agent's summary, and the operators of its delegates."""

    def make(self) -> None:
        """Export a small network, unless an earlier seed has."""
        if not (self.kept / "tiny.pte").exists():
            from tests.support.tiny_model import export_tiny

            export_tiny(self.kept)
        self.path = self.folder / "model.pte"
        self.corpus = [b"\0" + (self.kept / "tiny.pte").read_bytes()]

    def mutate_content(self, file: int, content: bytes, rng: random.Random) -> bytes:
        """Return a program with another word in place of an offset, a length or a number."""
        del file
        for _ in range(rng.choice((1, 1, 2, 3))):
            at = 4 * rng.randrange(max(1, len(content) // 4))
            old = int.from_bytes(content[at : at + 4], "little")
            new = rng.choice(
                (
                    old + 1,
                    old - 1,
                    old + 4,
                    old - 4,
                    old << 8,
                    0,
                    1,
                    2**31 - 1,
                    2**32 - 1,
                    rng.randrange(4096),
                )
            )
            content = content[:at] + (new & 2**32 - 1).to_bytes(4, "little") + content[at + 4 :]
        return content

    def read(self, data: bytes) -> str:
        """Read the summary, then the operators."""
        from orchestrator.agent.runtime import read_pte
        from orchestrator.export.lower.operators import read_operators

        self.path.write_bytes(data[1:])
        with contextlib.suppress(ValueError):  # that is how `read_pte` refuses
            read_pte(self.path)
        read_operators(self.path)
        return ""


class ZipReader(Reader):
    """A packed Core ML package, an .ipa, or an .npz of images."""

    def make(self) -> None:
        """Write one of each."""
        from PIL import Image

        from orchestrator.export.artifacts.artifact import pack
        from tests.support.fake_iphone import package as write_ipa

        model = self.folder / "made" / "model.mlpackage"
        (model / "Data").mkdir(parents=True)
        (model / "Manifest.json").write_text("{}")
        (model / "Data" / "weight.bin").write_bytes(bytes(200))
        pack(model, self.folder / "one.mlpackage.zip")
        write_ipa(self.folder / "one.ipa", devices=["00008101-000000000000001E"])
        images = []
        for shade in range(4):
            out = io.BytesIO()
            Image.new("RGB", (8, 8), (shade, 0, 0)).save(out, "PNG")
            images.append(out.getvalue())
        arrays = {
            "blob": np.frombuffer(b"".join(images), np.uint8),
            "off": np.cumsum([0, *map(len, images)]),
            "y": np.arange(4) % 2,
        }
        np.savez(self.folder / "one.npz", allow_pickle=False, **arrays)
        shutil.rmtree(model)
        self.names = ["one.mlpackage.zip", "one.ipa", "one.npz"]
        self.corpus = [bytes([at]) + (self.folder / name).read_bytes() for at, name in enumerate(self.names)]
        self.corpus[1] = b"\1" + _without_padding(self.corpus[1][1:])

    def mutate_content(self, file: int, content: bytes, rng: random.Random) -> bytes:
        """Return a zip with another entry."""
        del file
        return mutate_zip(content, rng)

    def read(self, data: bytes) -> str:
        """Unpack or read it; nothing may be written outside of the target."""
        from orchestrator.devices.iphone.device import read_ipa
        from orchestrator.export.artifacts.artifact import deliver
        from search.supernet.data.sources import open_npz

        name = self.names[(data[0] if data else 0) % 3]
        path, target = self.folder / name, self.folder / "out" / "model.mlpackage"
        path.write_bytes(data[1:])
        if name == "one.ipa":
            read_ipa(path)
            return ""
        if name == "one.npz":
            open_npz(f"npz:{path}", path).image(0)
            return ""
        shutil.rmtree(target.parent, ignore_errors=True)
        refused: BlocktimeError | None = None
        try:
            deliver(path, target)
        except BlocktimeError as error:
            refused = error
        outside = {each.name for each in self.folder.iterdir()} - {*self.names, "made", "out"}
        outside |= {each.name for each in target.parent.iterdir()} - {target.name}
        if refused is not None and not outside:
            raise refused
        return f"{min(outside)} was written outside of the package" if outside else ""


def _without_padding(ipa: bytes) -> bytes:
    """Return an .ipa without its large program, which only makes inputs long."""
    from tests.soak.mutations import zipped

    with zipfile.ZipFile(io.BytesIO(ipa)) as archive:
        names = [name for name in archive.namelist() if not name.endswith("/Bench")]
        return zipped([(name, archive.read(name)) for name in names])


READERS: dict[str, type[Reader]] = {
    "frames": FrameReader,
    "replies to the client": ClientReader,
    "LUT files": LutReader,
    "shared LUTs": SharedReader,
    "journals": JournalReader,
    "journals of bundles": BundleReader,
    "checkpoints": CheckpointReader,
    "weights": WeightsReader,
    "architectures": ArchitectureReader,
    "recipes": RecipeReader,
    "programs": ProgramReader,
    "zips": ZipReader,
}
