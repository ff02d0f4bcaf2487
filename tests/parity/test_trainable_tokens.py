# SPDX-License-Identifier: Apache-2.0
"""trainable_token_indices: rows of the embedding that train, against live peft."""

import pytest
import test_model
import torch
from safetensors.torch import load_file, save_file

TOKENS = [65, 3, 400, 7]  # 400 is in no sample


@pytest.mark.parametrize("kind", ["causal_lm", "single_label", "untied", "head apart"])
@pytest.mark.parametrize("lora", [dict(), dict(use_dora=True, bias="all", modules_to_save=["ln_f"])], ids=["lora", "dora and more"])
def test_rows_of_tokens_equal_peft(tmp_path, kind, lora):
    head = "single_label" if kind == "single_label" else "causal_lm"
    lora = dict(r=2, lora_alpha=3, target_modules=["v_proj"], trainable_token_indices=TOKENS, **lora)
    situation = test_model.Situation(tmp_path, head, lora, num_layers=3, tie_word_embeddings=kind != "untied")
    if kind == "head apart":  # config.json ties the head, but the file has one of its own
        path = situation.folder / "model.safetensors"
        tensors = load_file(path)
        own = torch.randn(512, 16, generator=torch.Generator().manual_seed(2))
        save_file({**tensors, "lm_head.weight": own}, path, {"format": "pt"})
        situation.model.base_model.model.lm_head.token_adapter.base_layer.weight = torch.nn.Parameter(own, False)
    ids, mask, labels = test_model.make_batch(head, [11, 4, 16], 512, 3, seed=5)
    ids[0, 2:4] = ids[1, 1] = 7
    ids[2, 3] = 65
    ids[2, 9] = 3
    if head == "causal_lm":
        labels = torch.where(labels == -100, labels, ids)
    batch = ids, mask, labels
    decoded = dict(decode=ids[2, :12].tolist(), decode_prompt=4) if head == "causal_lm" else {}
    case = situation.case("out", *batch, **decoded)
    ((answer, tensors), (_, in_chunks)) = test_model.probe(
        tmp_path, [case, {**case, "logits_chunk_rows": 5, "output": str(tmp_path / "chunks.safetensors")}])
    test_model.compare(situation, batch, answer, tensors)
    name = "grad.base_model.model.transformer.wte.token_adapter.trainable_tokens_delta"
    assert tensors[name].shape == (len(TOKENS), 16)
    assert (tensors[name][2].abs().max() == 0) == (kind in ("single_label", "untied"))
    assert test_model.distance(in_chunks[name], tensors[name]) < test_model.TOLERANCE
    if decoded:
        with torch.no_grad():
            logits = situation.model(input_ids=ids[2:, :12]).logits[0, 3:]
        assert test_model.distance(tensors["decoded"], logits) < 10 * test_model.TOLERANCE


def test_rows_of_tokens_take_the_noise_of_neftune_and_the_dropout_of_embeddings(tmp_path):
    """As other words do: with the same masks and noise, gradients equal transformers'."""
    lora = dict(r=2, target_modules=["v_proj"], trainable_token_indices=TOKENS)
    situation = test_model.Situation(tmp_path, "single_label", lora, num_layers=2, embed_dropout=0.3)
    ids, mask, labels = batch = test_model.make_batch("single_label", [16], 512, 3, seed=5)
    ids[0, 3:7] = torch.tensor(TOKENS)
    alpha = 20.0
    case = situation.case("out", *batch, dropout_seed=7, neftune_noise_alpha=alpha)
    ((answer, tensors),) = test_model.probe(tmp_path, [case])
    largest = alpha / (ids.numel() * 16) ** 0.5
    noise, factors = test_model.padded(tensors["noise"], mask), test_model.padded(tensors["mask.transformer.drop"], mask)
    situation.model.train()
    embedding = situation.model.get_input_embeddings()
    embedding.register_forward_hook(lambda module, inputs, output: output + (noise * largest).to(output.dtype))
    situation.model.base_model.model.transformer.drop = test_model.Masked(factors)
    test_model.compare_in_training(situation, batch, answer, tensors)
