# SPDX-License-Identifier: Apache-2.0
"""Chats (data.messages_column) against transformers' apply_chat_template with a Jinja template that writes the same
text, and its mask of what the assistant says."""
import json
import random
import subprocess
import sys
from pathlib import Path

import h5py
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))
import tiny_model  # noqa: E402
from test_token_store import PROBE  # noqa: E402
from transformers import AutoTokenizer  # noqa: E402

OWN = "{?system}<<{system}>>\n{/system}{?user}Human: {user}\n{/user}{?assistant}Robot: {assistant} ;\n{/assistant}"
JINJA = {  # the text after a last answer is left out
    "chat": "{% for m in messages %}{% if m.role == 'assistant' %}### Assistant:\n{% generation %}{{ m.content }}"
            "{{ eos_token }}{% endgeneration %}{% if not loop.last %}{{ '\n\n' }}{% endif %}{% else %}"
            "### {{ m.role | capitalize }}:\n{{ m.content }}{{ '\n\n' }}{% endif %}{% endfor %}",
    OWN: "{% for m in messages %}{% if m.role == 'assistant' %}{{ 'Robot: ' }}{% generation %}{{ m.content }}"
         "{{ eos_token }}{% endgeneration %}{% if not loop.last %}{{ ' ;\n' }}{% endif %}{% elif m.role == 'user' %}"
         "Human: {{ m.content }}{{ '\n' }}{% else %}<<{{ m.content }}>>{{ '\n' }}{% endif %}{% endfor %}",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    tiny_model.make_tokenizer(folder, texts=tiny_model.sample_texts() + ["### Assistant:\n", "### User:\n\n"] * 9)
    return folder


@pytest.fixture(scope="module")
def chats():
    generator = random.Random(6)
    lines = tiny_model.sample_texts(200, seed=9)

    def message(role):
        return {"role": role, "content": generator.choice(lines)}

    chats = []
    for _ in range(100):
        chat = [message("system")] if generator.random() < 0.5 else []
        for _ in range(generator.randint(1, 4)):
            chat += [message("user")] * generator.randint(0, 2) + [message("assistant")]
        if generator.random() < 0.2:
            chat.append(message("user"))
        chats.append(chat)
    return chats


def build(folder, path, chats, *options):
    """Returns for each chat its ids, and the positions of targets."""
    path.write_text("".join(json.dumps({"messages": chat}) + "\n" for chat in chats))
    output = path.with_suffix(".h5")
    done = subprocess.run([PROBE, "store", folder, path, output, "task=causal", "messages=messages", *options],
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    with h5py.File(output) as file:
        ids, offsets = file["ids"][:].tolist(), file["offsets"][:]
        spans, begins = file["target_spans"][:].tolist(), file["span_offsets"][:].tolist()
        counts = file["target_counts"][:].tolist()
    found = []
    for i in range(len(chats)):
        own = spans[begins[i] : begins[i + 1]]
        targets = {at for a, b in zip(own[::2], own[1::2]) for at in range(max(1, a), b)}
        assert len(targets) == counts[i]
        found.append((ids[offsets[i] : offsets[i + 1]], targets))
    return found


@pytest.mark.parametrize("form", JINJA, ids=["chat", "own"])
@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("max_length", [20, 2048])
def test_ids_and_targets_are_those_of_a_jinja_template(folder, chats, tmp_path, form, side, max_length):
    found = build(folder, tmp_path / "rows.jsonl", chats, f"template={form}", f"side={side}", f"max_length={max_length}")
    tokenizer = AutoTokenizer.from_pretrained(folder, truncation_side=side)
    # A space in front of an answer belongs to the template's text: answers are encoded apart.
    for chat, (ids, targets) in zip(chats, found):
        whole = tokenizer.apply_chat_template(chat, chat_template=JINJA[form], tokenize=True, return_dict=True,
                                              return_assistant_tokens_mask=True)
        if form == OWN:
            pieces = tokenizer.apply_chat_template(chat, chat_template=JINJA[form].replace("{% generation %}", "\0")
                                                   .replace("{% endgeneration %}", "\0"), tokenize=False).split("\0")
            parts = [tokenizer(piece, add_special_tokens=False).input_ids for piece in pieces]
            expected = [token for part in parts for token in part]
            mask = [i % 2 for i, part in enumerate(parts) for _ in part]
        else:
            expected, mask = whole["input_ids"], whole["assistant_masks"]
        kept = slice(0, max_length) if side == "right" else slice(-max_length, None)
        assert ids == expected[kept]
        assert targets == {at for at, own in enumerate(mask[kept]) if own and at > 0}


def test_all_tokens_are_targets_without_completion_only_loss(folder, chats, tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps({"messages": chat}) + "\n" for chat in chats))
    subprocess.run([PROBE, "store", folder, path, tmp_path / "s.h5", "task=causal", "messages=messages",
                    "loss_on_prompt=true"], check=True, capture_output=True)
    with h5py.File(tmp_path / "s.h5") as file:
        assert (file["target_counts"][:] == file["lengths"][:] - 1).all()
        assert not file["prompt_tokens"][:].any() and len(file["target_spans"]) == 0
