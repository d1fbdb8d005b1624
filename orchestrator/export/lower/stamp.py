"""What a model's file says of its weights, under `blocktime.weights`: named data of a `.pte`, metadata of an
`.mlpackage`, which Xcode shows. No runtime reads it."""

from __future__ import annotations

from pathlib import Path

KEY = "blocktime.weights"


def stamp_program(data: bytes, weights: str) -> bytes:
    """The `.pte` with the line; nothing else of it changes."""
    from executorch.exir import ExecutorchBackendConfig
    from executorch.exir._serialize._named_data_store import NamedDataStore
    from executorch.exir._serialize._program import deserialize_pte_binary, serialize_pte_binary
    from executorch.exir._serialize.data_serializer import DataEntry

    file = deserialize_pte_binary(data)
    named = file.named_data or NamedDataStore().get_named_data_store_output()
    named.pte_data[KEY] = DataEntry(buffer_index=len(named.buffers), alignment=1, tensor_layout=None)
    named.buffers.append(weights.encode())
    file.named_data = named
    config = ExecutorchBackendConfig()
    stamped = serialize_pte_binary(
        file,
        extract_delegate_segments=config.extract_delegate_segments,
        segment_alignment=config.segment_alignment,
        constant_tensor_alignment=config.constant_tensor_alignment,
        delegate_alignment=config.delegate_alignment,
    )
    return bytes(stamped)


def stamp_package(package: Path, weights: str) -> None:
    """Write the line into the model of an `.mlpackage`."""
    from coremltools.proto import Model_pb2

    path = package / "Data" / "com.apple.CoreML" / "model.mlmodel"
    model = Model_pb2.Model()
    model.ParseFromString(path.read_bytes())
    model.description.metadata.userDefined[KEY] = weights
    path.write_bytes(model.SerializeToString(deterministic=True))
