"""What a bundle for a kind of device is made of."""

import pytest

from luts.format.errors import UsageError
from orchestrator.tasks.bundle import variant_for


def test_which_variants_there_are():
    assert variant_for("android").name == "executorch-xnnpack-fp32-t0"
    assert variant_for("iphone").name == "coreml-fp16-all"
    assert variant_for("iphone").load_options == {"compute_units": "all"}
    with pytest.raises(UsageError, match="expected android, iphone, linux"):
        variant_for("windows")
    with pytest.raises(UsageError, match="Core ML is Apple's"):
        variant_for("android", "coreml")
