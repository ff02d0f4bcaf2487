# SPDX-License-Identifier: Apache-2.0
"""Writes hf_defaults.json: every key that TrainingArguments, LoraConfig, from_pretrained of models and tokenizers, and
GPTNeoConfig accept, with its default, as transformers and peft have them. Run with the private prefix's Python; the
versions are those of cluster/bootstrap/requirements-tests.txt. tests/parity/test_keys.py reads the live classes by
the same functions."""

import ast
import dataclasses
import inspect
import json
import pathlib
import textwrap

import peft
import transformers
from transformers.models.auto import auto_factory
from transformers.tokenization_utils_base import PreTrainedTokenizerBase
from transformers.tokenization_utils_tokenizers import TokenizersBackend

# Parameters that are no keys, and the names by which from_pretrained holds its keyword arguments.
NO_KEYS = {"cls", "self", "args", "kwargs", "inputs", "model_args", "init_inputs", "vocab_files"}
KEYWORDS = {"kwargs", "hub_kwargs"}


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


def keywords(*functions):
    """Returns the parameters of the functions with their defaults, and what their bodies take out of their keyword
    arguments. A default that is no literal counts as null, and so does one that a later function changes."""
    result = {}
    for function in functions:
        for name, parameter in inspect.signature(function).parameters.items():
            if name not in NO_KEYS and parameter.default is not parameter.empty:
                result.setdefault(name, parameter.default)
        for node in ast.walk(ast.parse(textwrap.dedent(inspect.getsource(function)))):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in ("pop", "get")):
                continue
            if not (isinstance(node.func.value, ast.Name) and node.func.value.id in KEYWORDS and node.args):
                continue
            name, *default = node.args
            if isinstance(name, ast.Constant) and not name.value.startswith("_"):
                result.setdefault(name.value, literal(*default))
    return {name: value for name, value in result.items() if not name.startswith("_")}


def literal(node=ast.Constant(None)):
    try:
        return ast.literal_eval(node)
    except ValueError:
        return None


def model_keys():
    """Keys of config.json count as null: from_pretrained takes from the model's file what a script does not give."""
    config = transformers.GPTNeoConfig
    names = {*inspect.signature(config).parameters, *config().to_dict(), *config.attribute_map}
    return dict.fromkeys(sorted(name for name in names if not name.startswith("_"))) | keywords(
        auto_factory._BaseAutoModelClass.from_pretrained.__func__, transformers.PreTrainedModel.from_pretrained.__func__,
        transformers.PretrainedConfig.from_pretrained.__func__, transformers.PretrainedConfig._get_config_dict.__func__)


def tokenizer_keys():
    return keywords(transformers.GPT2Tokenizer.__init__, transformers.AutoTokenizer.from_pretrained.__func__,
                    PreTrainedTokenizerBase.from_pretrained.__func__, PreTrainedTokenizerBase.__init__,
                    TokenizersBackend.__init__) | dict.fromkeys(
                        set(PreTrainedTokenizerBase.SPECIAL_TOKENS_ATTRIBUTES) - {"bos_token", "eos_token", "unk_token"})


def document():
    return {
        "versions": {"transformers": transformers.__version__, "peft": peft.__version__},
        "trainer_config": defaults(transformers.TrainingArguments),
        "peft_config": defaults(peft.LoraConfig),
        "tokenizer_config": tokenizer_keys(),
        "model_config": model_keys(),
    }


if __name__ == "__main__":
    path = pathlib.Path(__file__).with_name("hf_defaults.json")
    path.write_text(json.dumps(document(), indent=1, sort_keys=True) + "\n")
