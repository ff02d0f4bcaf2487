# SPDX-License-Identifier: Apache-2.0
"""Weighted, smoothed and squared losses of the heads, with their gradients, against live torch and transformers."""

import pytest
import torch
from test_model import SIX, Situation, distance, make_batch, probe
from torch.nn import functional
from transformers.trainer_pt_utils import LabelSmoother

LENGTHS = [9, 1, 16, 7, 8]
LORA = dict(r=4, lora_alpha=8, target_modules=SIX)
WEIGHTS = torch.tensor([0.25, 1.0, 6.5])
VALUES = torch.tensor([0.5, -2.0, 3.25, 0.0, 1.5])


def compare(tmp_path, head, batch, loss_of, num_labels=3, loss_weights=None, **extra):
    """Compares loss and gradients, and shows that without `extra` and weights the loss is another. `loss_of`: from
    logits, the sum over the batch."""
    situation = Situation(tmp_path, head, LORA, num_labels=num_labels)
    ids, mask, labels = batch
    logits = situation.model(input_ids=ids, attention_mask=mask.long()).logits
    loss = loss_of(logits)
    loss.backward()
    case = situation.case("out", *batch, **extra)
    plain = situation.case("plain", *batch)
    if loss_weights is not None:
        case["batch"]["loss_weights"] = loss_weights.flatten().tolist()
    (answer, tensors), (other, _) = probe(tmp_path, [case, plain])
    assert answer["loss"] == pytest.approx(loss.item(), rel=1e-5)
    if extra or loss_weights is not None:
        assert abs(other["loss"] / loss.item() - 1) > 1e-3
    gradients = dict(situation.trainable())
    assert {name for name in tensors if name.startswith("grad.")} == {"grad." + name for name in gradients}
    for name, parameter in gradients.items():
        assert distance(tensors["grad." + name], parameter.grad) <= 1e-4, name
    return answer, loss.item()


def test_classes_count_by_their_weights(tmp_path):
    batch = make_batch("single_label", LENGTHS, 512, 3)
    weights = WEIGHTS[batch[2]]
    answer, loss = compare(tmp_path, "single_label", batch, loss_weights=weights,
                           loss_of=lambda x: functional.cross_entropy(x, batch[2], weight=WEIGHTS, reduction="sum"))
    assert answer["count"] == len(LENGTHS)
    assert answer["eval_loss"] == pytest.approx(loss, rel=1e-5)


def test_labels_that_apply_count_by_their_weights(tmp_path):
    batch = make_batch("multi_label", LENGTHS, 512, 3)
    flags = batch[2].float()
    compare(tmp_path, "multi_label", batch, loss_weights=flags * WEIGHTS + (1 - flags),
            loss_of=lambda x: functional.binary_cross_entropy_with_logits(x, flags, pos_weight=WEIGHTS) * len(LENGTHS))


@pytest.mark.parametrize("head", ["single_label", "causal_lm"])
@pytest.mark.parametrize("chunk_rows", [0, 7])
def test_labels_are_smoothed_as_transformers_smooths_them(tmp_path, head, chunk_rows):
    batch = make_batch(head, LENGTHS, 512, 3)
    lm = head == "causal_lm"
    count = int((batch[2][:, 1:] != -100).sum()) if lm else len(LENGTHS)
    answer, loss = compare(tmp_path, head, batch, label_smoothing=0.1, logits_chunk_rows=chunk_rows,
                           loss_of=lambda x: LabelSmoother(0.1)({"logits": x}, batch[2], shift_labels=lm) * count)
    assert answer["count"] == count
    assert answer["eval_loss"] == pytest.approx(loss, rel=1e-5)


@pytest.mark.parametrize("num_labels", [1, 3])
def test_a_regression_has_the_mean_squared_error_of_transformers(tmp_path, num_labels):
    ids, mask, _ = make_batch("single_label", LENGTHS, 512, 3)
    values = VALUES.unsqueeze(1) * torch.arange(1, num_labels + 1)
    answer, _ = compare(tmp_path, "regression", (ids, mask, values), num_labels=num_labels,
                        loss_of=lambda x: functional.mse_loss(x.squeeze(), values.squeeze()) * len(LENGTHS))
    assert answer["count"] == len(LENGTHS)
