"""Terms of a distillation loss against their papers' formulas, by hand.

One image of three classes: the student's softmax is (1/2, 1/4, 1/4), the teacher's (1/6, 4/6, 1/6), the label 0.
"""

import math

import pytest
import torch
from pydantic import TypeAdapter

from search.supernet.recipe.terms import (
    AnyTerm,
    Signals,
    attention_loss,
    features_loss,
    learned_temperature,
    predicted_temperature,
    similarity_loss,
)

LN2, LN3 = math.log(2), math.log(3)
STUDENT = torch.tensor([[LN2, 0.0, 0.0]])
TEACHER = torch.tensor([[0.0, 2 * LN2, 0.0]])
OTHER = torch.tensor([[0.0, LN2, 0.0]])
"""Softmax (1/4, 1/2, 1/4): of the last epoch, or of the largest subnet."""

ROOT2 = math.sqrt(2)
AT_2 = [(1 / 4, ROOT2), (1 / 2, 1), (1 / 4, 1)]
"""At temperature 2: the teacher's probability, and the student's times 2 + sqrt(2)."""

G, H = math.exp(math.sqrt(3)), math.exp(math.sqrt(3) / 2)
"""The Z-scores of (x, 0, 0) are (2, -1, -1) / sqrt(3): its softmax is (g, 1, 1) / (g + 2) with g = e^sqrt(3)."""

BY_HAND = {
    "labels": ({"kind": "labels"}, LN2),
    # 1/6 ln(1/3) + 4/6 ln(8/3) + 1/6 ln(2/3)
    "soft": ({"kind": "soft"}, 13 / 6 * LN2 - LN3),
    # 1/2 ln 3 + 1/4 ln(3/8) + 1/4 ln(3/2)
    "reverse": ({"kind": "soft", "direction": "reverse"}, LN3 - LN2),
    # 1 + (3 - 1) * 2/4 of the run
    "scheduled": (
        {"kind": "soft", "tau": 1, "tau_end": 3},
        4 * sum(t * math.log(t * (2 + ROOT2) / s) for t, s in AT_2),
    ),
    # (1/(g+2)) ln(1/g) + (g/(g+2)) ln(g)
    "standardised": ({"kind": "soft", "standardise": True}, math.sqrt(3) * (G - 1) / (G + 2)),
    "hard": ({"kind": "hard"}, 2 * LN2),
    # ((ln 2)^2 + (ln 4)^2 + 0) / 3
    "mse": ({"kind": "mse"}, 5 / 3 * LN2**2),
    # target 1/6 against 1/2; the others 4/5 and 1/5 against 1/2 and 1/2
    "dkd": (
        {"kind": "dkd", "alpha": 2, "beta": 3, "tau": 1},
        2 * (math.log(1 / 3) / 6 + 5 / 6 * math.log(5 / 3))
        + 3 * (4 / 5 * math.log(8 / 5) + 1 / 5 * math.log(2 / 5)),
    ),
    # 1/6 ln 2 for the target; the others' cross-entropy with 1/2 and 1/2 is ln 2, times 2 * 2^2
    "nkd": ({"kind": "nkd", "gamma": 2, "tau": 2}, LN2 / 6 + 8 * LN2),
    # deviations ln 2 / sqrt(3) and ln 4 / sqrt(3), doubled: (h, 1, 1) against (1, h, 1), times (2 ln 4)^2 / 3
    "normkd": (
        {"kind": "normkd", "tau": 2},
        (4 * LN2) ** 2 / 3 * math.sqrt(3) / 2 * (H - 1) / (H + 2),
    ),
    # epoch 3 of 4: a = 0.8 * 3/4; cross-entropy with the last epoch's 1/4 ln 2 + 3/4 ln 4 = 7/4 ln 2
    "last-epoch": ({"kind": "last-epoch", "alpha": 0.8}, 0.4 * LN2 + 0.6 * 7 / 4 * LN2),
    "in-place": ({"kind": "in-place"}, 7 / 4 * LN2),
}


@pytest.mark.parametrize("name", BY_HAND)
def test_terms_of_logits(name):
    fields, expected = BY_HAND[name]
    signals = Signals(
        logits=STUDENT,
        labels=torch.tensor([0]),
        epoch=2.0,
        epochs=4,
        teacher_logits=TEACHER,
        previous_logits=OTHER,
        largest_logits=OTHER,
    )
    term = TypeAdapter(AnyTerm).validate_python(fields)
    assert term.loss(signals).item() == pytest.approx(expected, rel=1e-5)


def test_before_the_first_epoch_ends_there_is_no_last_one():
    term = TypeAdapter(AnyTerm).validate_python({"kind": "last-epoch"})
    loss = term.loss(Signals(logits=STUDENT, labels=torch.tensor([0])))
    assert loss.item() == pytest.approx(LN2)


def test_dist_correlates_rows_and_columns():
    """Probabilities (1/2, 1/4, 1/4), (1/5, 1/5, 3/5) against (1/6, 4/6, 1/6), (1/2, 1/4, 1/4).

    Centred rows are along (2, -1, -1) and (-1, 2, -1), then (-1, -1, 2) and (2, -1, -1): correlation -1/2 twice. Of
    two images a column falls or rises: -1, 1 and 1, a mean distance of 2/3. 2 * 3/2 + 3 * 2/3 = 5.
    """
    student = torch.cat((STUDENT, torch.tensor([[0.0, 0.0, LN3]])))
    teacher = torch.cat((TEACHER, STUDENT))
    term = TypeAdapter(AnyTerm).validate_python({"kind": "dist", "beta": 2, "gamma": 3})
    loss = term.loss(Signals(logits=student, labels=torch.tensor([0, 0]), teacher_logits=teacher))
    assert loss.item() == pytest.approx(5, rel=1e-5)


@pytest.mark.parametrize(("epoch", "gradient"), [(0, 0), (5, -2.5), (10, -5), (20, -5)])
def test_a_learned_temperature_rises_against_the_loss(epoch, gradient):
    """1 + 20 sigmoid(0) = 11; its derivative is 20 / 4 = 5, reversed in part for the first ten epochs."""
    parameter = torch.zeros(1, requires_grad=True)
    temperature = learned_temperature(parameter, epoch, 10)
    temperature.backward()
    assert temperature.item() == pytest.approx(11)
    assert parameter.grad.item() == pytest.approx(gradient, abs=1e-6)


def test_a_temperature_for_each_image():
    """One hidden unit, student's first logit less 1/2 ln 2: 1/2 ln 2 and 0 after the ReLU, so -1 and 0, plus 1.

    Temperatures 1 + 20 sigmoid(0) = 11 and 1 + 20 sigmoid(1); two images whose students are (ln 2, 0, 0) and 0.
    """
    hidden = torch.tensor([[1.0, 0, 0, 0, 0, 0, -LN2 / 2]])
    learned = {"hidden": hidden, "output": torch.tensor([[-2 / LN2]]), "temperature": torch.ones(1)}
    students, teachers = torch.cat((STUDENT, torch.zeros(1, 3))), torch.cat((TEACHER, TEACHER))
    found = predicted_temperature(students, teachers, *learned.values())
    assert found.flatten().tolist() == pytest.approx([0, 1], abs=1e-6)
    term = TypeAdapter(AnyTerm).validate_python({"kind": "soft", "learned": "image"})
    loss = term.loss(
        Signals(logits=students, labels=torch.zeros(2), teacher_logits=teachers, learned=learned)
    )
    taus = 11, 1 + 20 / (1 + math.exp(-1))
    each = [softened(student, tau, tau) for student, tau in zip((LN2, 0), taus, strict=True)]
    assert loss.item() == pytest.approx(
        sum(tau**2 * kl for tau, kl in zip(taus, each, strict=True)) / 2, rel=1e-4
    )


def softened(student, tau, teacher_tau):
    """Divergence of (s, 1, 1) / (s + 2) from (1, t, 1) / (t + 2), with s = exp(student / tau), t = 4^(1 / tau)."""
    s, t = math.exp(student / tau), 4 ** (1 / teacher_tau)
    pairs = [(1, s), (t, 1), (1, 1)]
    return sum(b / (t + 2) * math.log(b * (s + 2) / a / (t + 2)) for b, a in pairs)


def test_temperatures_of_student_and_teacher():
    """1 + 20 sigmoid(0) = 11 of the student, 1 + 20 / 4 = 6 of the teacher."""
    term = TypeAdapter(AnyTerm).validate_python({"kind": "soft", "learned": "meta"})
    learned = {"temperatures": torch.tensor([0.0, -LN3])}
    loss = term.loss(Signals(logits=STUDENT, labels=torch.zeros(1), teacher_logits=TEACHER, learned=learned))
    assert loss.item() == pytest.approx(66 * softened(LN2, 11, 6), rel=1e-4)


def test_similarity_between_images():
    """Products ((1, 1), (1, 2)) of (1, 0) and (1, 1), rows of length 1, against the unit matrix; four elements."""
    rows = [(1 / ROOT2 - 1) ** 2 + 1 / 2, 1 / 5 + (2 / math.sqrt(5) - 1) ** 2]
    student = torch.tensor([[1.0, 0.0], [1.0, 1.0]])[:, :, None, None]
    teacher = torch.eye(2)[:, :, None, None]
    assert similarity_loss(student, teacher).item() == pytest.approx(sum(rows) / 4, rel=1e-5)


def test_attention_is_where_channels_are_large():
    """Squares summed over channels: (9, 16) against (1, 0), each of length 1."""
    student = torch.tensor([[[[3.0, 0.0]], [[0.0, 4.0]]]])
    teacher = torch.tensor([[[[1.0, 0.0]]]])
    expected = math.hypot(9 / math.sqrt(337) - 1, 16 / math.sqrt(337))
    assert attention_loss(student, teacher).item() == pytest.approx(expected, rel=1e-5)


def test_projected_features():
    """(1, 2) becomes (3, 2, 2); differences 2, 1, 1 from ones: half of 6 / 3. A finer student map is averaged."""
    projector = torch.tensor([[1.0, 1.0], [2.0, 0.0], [0.0, 1.0]])
    student = torch.tensor([0.0, 2.0, 1.0, 3.0]).reshape(1, 2, 1, 2)
    assert features_loss(student, torch.ones(1, 3, 1, 1), projector).item() == pytest.approx(1)


def test_relations_of_tokens():
    """Two tokens: q = (1, 0) and k = (ln 2, 0) give rows (2/3, 1/3) and (1/2, 1/2), the teacher's are all 1/2.

    The first row's divergence is 1/2 ln(3/4) + 1/2 ln(3/2), the second's 0; v is the same in both.
    """
    student = torch.tensor([[1.0, 0.0], [LN2, 0.0], [0.0, 0.0]]).reshape(1, 3, 1, 2)
    teacher = torch.tensor([[1.0, 0.0], [0.0, 0.0], [0.0, 0.0]]).reshape(1, 3, 1, 2)
    term = TypeAdapter(AnyTerm).validate_python({"kind": "relations", "heads": 1})
    none = torch.zeros(1, 2)
    loss = term.loss(Signals(logits=none, labels=none, qkv=student, teacher_qkv=teacher))
    assert loss.item() == pytest.approx(math.log(9 / 8) / 4, rel=1e-5)


def test_relations_of_two_heads():
    """Heads of one channel: the first as above at sqrt(1), the second alike in both; the mean halves."""
    student = torch.tensor([[1.0, 0], [0, 0], [LN2, 0], [0, 0], [0, 0], [0, 0]]).reshape(1, 6, 1, 2)
    teacher = torch.zeros(1, 6, 1, 2)
    term = TypeAdapter(AnyTerm).validate_python(
        {"kind": "relations", "heads": 2, "pairs": ["qk", "kk", "vv"]}
    )
    none = torch.zeros(1, 2)
    loss = term.loss(Signals(logits=none, labels=none, qkv=student, teacher_qkv=teacher))
    # k k has the row ((ln 2)^2, 0) instead of (ln 2, 0)
    k = math.exp(LN2**2)
    of_kk = math.log((k + 1) / 2) - LN2**2 / 2
    assert loss.item() == pytest.approx((math.log(9 / 8) / 2 + of_kk) / 4, rel=1e-5)


def test_maps_of_stages_are_averaged():
    """Attention at the last stage is at distance sqrt(2), at the one before at 0."""
    along, across = torch.tensor([[[[1.0, 0.0]]]]), torch.tensor([[[[0.0, 1.0]]]])
    term = TypeAdapter(AnyTerm).validate_python({"kind": "attention", "stages": 2})
    none = torch.zeros(1, 2)
    signals = Signals(
        logits=none, labels=none, features=[across, along], teacher_features=[along, across, across]
    )
    assert term.loss(signals).item() == pytest.approx(ROOT2 / 2)
