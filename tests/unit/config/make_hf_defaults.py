# SPDX-License-Identifier: Apache-2.0
"""Writes hf_defaults.json: every field of TrainingArguments and LoraConfig with its default, as transformers and peft
have them. Run with the private prefix's Python; the versions are those of cluster/bootstrap/requirements-tests.txt."""

import dataclasses
import json
import pathlib

import peft
import transformers


def defaults(cls):
    result = {}
    for field in dataclasses.fields(cls):
        if field.default is not dataclasses.MISSING:
            value = field.default
        elif field.default_factory is not dataclasses.MISSING:
            value = field.default_factory()
        else:
            continue
        if dataclasses.is_dataclass(value):
            value = {}
        result[field.name] = getattr(value, "value", value)
    return result


document = {
    "versions": {"transformers": transformers.__version__, "peft": peft.__version__},
    "trainer_config": defaults(transformers.TrainingArguments),
    "peft_config": defaults(peft.LoraConfig),
}
path = pathlib.Path(__file__).with_name("hf_defaults.json")
path.write_text(json.dumps(document, indent=1, sort_keys=True) + "\n")
