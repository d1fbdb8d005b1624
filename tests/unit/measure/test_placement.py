"""Which operations a removal moved: hand-made programs, and properties of any."""

from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.journal.conditions import migrated_operations

UNITS = ("cpu", "gpu", "neural_engine")
OPERATIONS = st.lists(
    st.tuples(st.sampled_from(["conv", "silu", "linear"]), st.sampled_from(UNITS)), max_size=12
)


def on(unit, *types):
    return [(kind, unit) for kind in types]


NE, CPU, GPU = "neural_engine", "cpu", "gpu"
STEM, LAYER, HEAD = (
    ("conv", "silu"),
    ("layer_norm", "linear", "matmul", "softmax", "add"),
    ("reduce_mean", "linear"),
)


def test_a_removal_that_moves_nothing():
    base = on(NE, *STEM, *LAYER, *HEAD)
    assert migrated_operations(base, on(NE, *STEM, *HEAD)) == 0
    assert migrated_operations(base, base) == 0
    assert migrated_operations(base, []) == 0


def test_a_block_that_held_others_on_the_cpu():
    base = on(NE, *STEM) + on(CPU, *LAYER, *HEAD)
    assert migrated_operations(base, on(NE, *STEM, *HEAD)) == 2
    assert migrated_operations(base, on(NE, *STEM) + on(GPU, *HEAD)) == 2


def test_everything_that_is_left_moves():
    assert migrated_operations(on(NE, *STEM, *LAYER, *HEAD), on(CPU, *STEM, *HEAD)) == 4


def test_equal_layers_do_not_migrate():
    base = on(NE, *STEM) + on(CPU, *LAYER) + on(NE, *LAYER, *HEAD)
    assert migrated_operations(base, on(NE, *STEM, *LAYER, *HEAD)) == 0
    assert migrated_operations(base, on(NE, *STEM) + on(CPU, *LAYER) + on(NE, *HEAD)) == 0
    assert migrated_operations(base, on(NE, *STEM) + on(GPU, *LAYER) + on(NE, *HEAD)) == len(LAYER)


def test_seam_operations_do_not_migrate():
    base = on(NE, *STEM) + on(CPU, "transpose", *LAYER) + on(NE, *HEAD)
    removal = on(NE, *STEM) + on(GPU, "reshape", "cast") + on(NE, *HEAD)
    assert migrated_operations(base, removal) == 0


def exhaustive(base, removal):
    """The definition itself: all alignments, by recursion."""

    def best(i, j):
        if i == len(base) or j == len(removal):
            return (0, 0)
        found = max(best(i + 1, j), best(i, j + 1))
        if base[i][0] == removal[j][0]:
            pairs, unmoved = best(i + 1, j + 1)
            found = max(found, (pairs + 1, unmoved + (base[i] == removal[j])))
        return found

    pairs, unmoved = best(0, 0)
    return pairs - unmoved


@settings(max_examples=150, deadline=None)
@given(OPERATIONS.map(lambda operations: operations[:6]), OPERATIONS.map(lambda operations: operations[:6]))
def test_it_is_what_its_definition_says(base, removal):
    assert migrated_operations(base, removal) == exhaustive(base, removal)


@settings(max_examples=100, deadline=None)
@given(OPERATIONS, st.data())
def test_removed_blocks_move_no_operations(base, data):
    start = data.draw(st.integers(0, len(base)))
    end = data.draw(st.integers(start, len(base)))
    assert migrated_operations(base, base[:start] + base[end:]) == 0


def test_the_largest_programs_of_the_protocol_are_compared():
    base = on(NE, *STEM) + on(CPU, *["conv"] * 8000) + on(NE, *HEAD)
    assert migrated_operations(base, on(NE, *STEM) + on(GPU, *["conv"] * 8000) + on(NE, *HEAD)) == 8000
