# SPDX-License-Identifier: Apache-2.0
"""Logits processors and greedy decoding against transformers."""

import sys
from pathlib import Path

import pytest
import torch
from transformers import GPTNeoForCausalLM
from transformers.generation import (
    LogitsProcessorList,
    MinPLogitsWarper,
    NoRepeatNGramLogitsProcessor,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))
import tiny_model  # noqa: E402
from model_files_tool import call  # noqa: E402

VOCABULARY = 300


def random_logits(rows, seed):
    """Returns random logits. Half of the rows lie on a coarse grid, so that there are ties at every cut."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(rows, VOCABULARY, generator=generator) * 4
    logits[::2] = (logits[::2] * 2).round() / 2
    context = torch.randint(0, VOCABULARY, (rows, 40), generator=generator)
    context[:, ::3] = context[:, :1]  # repeats
    return logits, context


@pytest.mark.parametrize("top_k,top_p,temperature,penalty,min_p,ngram", [
    (50, 1.0, 1.0, 1.0, 0.0, 0),
    (7, 1.0, 0.7, 1.0, 0.0, 0),
    (0, 0.9, 1.0, 1.0, 0.0, 1),
    (0, 0.3, 1.7, 1.2, 0.0, 0),
    (20, 0.8, 0.5, 1.3, 0.1, 2),
    (1, 0.01, 3.0, 0.8, 0.0, 0),
    (1000, 1.0, 1.0, 1.5, 0.02, 3),
    (0, 1.0, 1.3, 1.0, 1.0, 0),
])
def test_processed_logits_equal_those_of_transformers(top_k, top_p, temperature, penalty, min_p, ngram):
    logits, context = random_logits(12, seed=top_k)
    processors = LogitsProcessorList()
    if penalty != 1.0:
        processors.append(RepetitionPenaltyLogitsProcessor(penalty))
    if ngram:
        processors.append(NoRepeatNGramLogitsProcessor(ngram))
    processors.append(TemperatureLogitsWarper(temperature))
    if top_k:
        processors.append(TopKLogitsWarper(top_k))
    if top_p < 1.0:
        processors.append(TopPLogitsWarper(top_p))
    if min_p:
        processors.append(MinPLogitsWarper(min_p))
    expected = processors(context, logits.clone())
    answer = call("process_logits", logits=logits.tolist(), context=context.tolist(), top_k=top_k, top_p=top_p,
                  temperature=temperature, repetition_penalty=penalty, repetition_penalty_range=-1, min_p=min_p,
                  no_repeat_ngram_size=ngram)
    found = torch.tensor([[float("-inf") if v is None else v for v in row] for row in answer["logits"]])
    if top_p < 1.0:  # torch.sort leaves open which of equal logits at the cut stays
        found, expected = found.sort(-1).values, expected.sort(-1).values
    assert torch.equal(found, expected)


def test_a_range_penalises_as_if_the_context_began_there():
    logits, context = random_logits(6, seed=3)
    expected = RepetitionPenaltyLogitsProcessor(1.4)(context[:, -10:], logits.clone())
    answer = call("process_logits", logits=logits.tolist(), context=context.tolist(), temperature=0,
                  repetition_penalty=1.4, repetition_penalty_range=10)
    assert torch.equal(torch.tensor(answer["logits"]), expected)


PENALTIES = dict(repetition_penalty=1.1, no_repeat_ngram_size=3, min_new_tokens=12)


def differs_by_more_than_rounding(found, expected, scores):
    """`scores`: of the oracle, by position. After two tokens that fp32 can't tell apart the texts go separate ways."""
    for position, (mine, theirs) in enumerate(zip(found, expected)):
        if mine != theirs:
            return scores[position][theirs] - scores[position][mine] > 2e-5
    return len(found) != len(expected)


@pytest.mark.parametrize("options", [{}, PENALTIES])
def test_greedy_texts_of_200_prompts_equal_those_of_transformers(tmp_path, options):
    folder = tiny_model.make_model_folder(
        tmp_path / "base", num_layers=3, hidden_size=32, window_size=8, std=0.3, tokenizer=False)
    model = GPTNeoForCausalLM.from_pretrained(folder, attn_implementation="eager").double()
    eos = model.config.eos_token_id
    generator = torch.Generator().manual_seed(7)
    prompts = [torch.randint(0, 90, (1 + i % 30,), generator=generator).tolist() for i in range(200)]
    found = call("generate", folder=folder, cache=tmp_path / "cache", prompts=prompts, temperature=0, max_tokens=20,
                 repetition_penalty_range=-1, eos_token_id=eos, batch_size=7, **options)["ids"]
    varied = 0
    for prompt, ids in zip(prompts, found, strict=True):
        oracle = model.generate(torch.tensor([prompt]), attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
                                do_sample=False, max_new_tokens=20, pad_token_id=0, return_dict_in_generate=True,
                                output_scores=True, **options)
        expected = oracle.sequences[0, len(prompt):].tolist()
        ended = [*ids, eos] if expected[-1] == eos else ids
        assert not differs_by_more_than_rounding(ended, expected, [scores[0] for scores in oracle.scores]), prompt
        varied += len(set(expected)) > 3
    assert varied > 150, "constant texts would prove little"


def test_generation_ends_at_the_last_position(tmp_path):
    folder = tiny_model.make_model_folder(tmp_path / "base", max_position_embeddings=16, tokenizer=False)
    found = call("generate", folder=folder, cache=tmp_path / "cache", prompts=[[1, 2, 3]], temperature=0)
    assert len(found["ids"][0]) == 13


def test_sampling_depends_on_the_seed_alone(tmp_path):
    folder = tiny_model.make_model_folder(tmp_path / "base", tokenizer=False)

    def sample(**options):
        return call("generate", folder=folder, cache=tmp_path / "cache", prompts=[[1, 2, 3]], max_tokens=20,
                    temperature=1.5, **options)["ids"]

    assert sample(seed=1) == sample(seed=1)
    assert sample(seed=1) != sample(seed=2)
