# SPDX-License-Identifier: Apache-2.0
"""Models of the hub: downloaded into Hugging Face's cache over TLS, checked, resumed, refused with what to do."""

import json

import common
import pytest
import tiny_model
from common import Run
from hub_server import COMMIT, Hub, make_certificates

NAME = "some-org/tiny-neo"
WEIGHTS = 4
TOKEN = "hf_" + "x" * 30


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    return make_certificates(tmp_path_factory.mktemp("tls") / "tls")


@pytest.fixture(scope="module")
def model_files(tmp_path_factory):
    folder = tiny_model.make_model_folder(tmp_path_factory.mktemp("model") / "base", std=0.1)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def hub(model_files, certificates):
    served = Hub(NAME, {**model_files, "README.md": b"# a model", "flax_model.msgpack": b"x" * 9000}, certificates)
    yield served
    served.close()


@pytest.fixture
def online(hub, tmp_path):
    """Variables of a user of this hub."""
    return {"HF_HUB_OFFLINE": "0", "HF_ENDPOINT": hub.endpoint, "SSL_CERT_FILE": hub.authority,
            "HF_HOME": tmp_path / "hf", "HF_TOKEN": "", "no_proxy": "*"}


def download(online, *words, code=0, name=NAME):
    return common.neoloom(0, "download", name, *words, **online).expect(code)


def snapshot(tmp_path):
    return tmp_path / f"hf/hub/models--{NAME.replace('/', '--')}/snapshots/{COMMIT}"


def loads_offline(tmp_path, monkeypatch, revision="main"):
    """What huggingface_hub, the oracle, finds in the cache without a network."""
    from huggingface_hub import snapshot_download

    return snapshot_download(NAME, revision=revision, cache_dir=tmp_path / "hf/hub", local_files_only=True)


def test_the_cache_is_the_one_that_huggingface_hub_reads(hub, online, tmp_path, model_files, monkeypatch):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = download(online).out.strip()
    assert folder == str(snapshot(tmp_path)) == loads_offline(tmp_path, monkeypatch)
    assert {path.name for path in snapshot(tmp_path).iterdir()} == set(model_files)  # no README, no other framework
    for name, content in model_files.items():
        path = snapshot(tmp_path) / name
        assert path.read_bytes() == content and path.is_symlink() and not str(path.readlink()).startswith("/")
        assert path.resolve().name == hub.etag(name)
    for load in (AutoModelForCausalLM, AutoTokenizer):
        load.from_pretrained(NAME, cache_dir=tmp_path / "hf/hub", local_files_only=True)
    hub.requests.clear()
    download(online)
    assert [path for _, _, path, _, _ in hub.requests] == [f"/api/models/{NAME}/revision/main"]


def test_tokenize_takes_a_hub_id(hub, online, tmp_path, model_files):
    from transformers import AutoTokenizer

    printed = common.neoloom(0, "tokenize", "--tokenizer", NAME, "--text", "free cash", **online).expect(0).out
    tokenizer = AutoTokenizer.from_pretrained(NAME, cache_dir=tmp_path / "hf/hub", local_files_only=True)
    assert json.loads(printed) == tokenizer("free cash").input_ids
    assert "model.safetensors" not in {path.name for path in snapshot(tmp_path).iterdir()}
    offline = {**online, "HF_HUB_OFFLINE": "1"}
    assert "was not found" in common.neoloom(0, "tokenize", "--tokenizer", "some-org/other", "--text", "x",
                                             **offline).expect(WEIGHTS).err


def test_revisions_are_pinned(hub, online, tmp_path, monkeypatch):
    download(online, "--revision", "refs/pr/1")
    assert loads_offline(tmp_path, monkeypatch, "refs/pr/1") == str(snapshot(tmp_path))
    download(online, "--revision", COMMIT)
    assert "no such revision" in download(online, "--revision", "v9", code=WEIGHTS).err
    before = len(hub.requests)
    for revision in ("../../../escaped", "main#fragment", "a b"):
        assert "is not a branch, tag or commit" in download(online, "--revision", revision, code=WEIGHTS).err
    assert len(hub.requests) == before and not (tmp_path / "hf/escaped").exists()


def test_interrupted_files_go_on_where_they_ended(hub, online, tmp_path):
    large = hub.files["model.safetensors"]
    hub.cut = {"config.json": [100], "model.safetensors": [2000, 3000]}
    ended = download(online)
    assert ended.err.count("trying again") == 3
    ranges = [asked for server, _, _, _, asked in hub.requests if server == "store" and asked]
    assert ranges == ["bytes=2000-", "bytes=5000-"] and (snapshot(tmp_path) / "model.safetensors").read_bytes() == large


def test_a_killed_download_goes_on(hub, online, tmp_path):
    large = hub.files["model.safetensors"]
    blobs = snapshot(tmp_path).parents[1] / "blobs"
    blobs.mkdir(parents=True)
    (blobs / (hub.etag("model.safetensors") + ".incomplete")).write_bytes(large[:7000])
    download(online)
    assert "bytes=7000-" in [asked for *_, asked in hub.requests]
    assert (snapshot(tmp_path) / "model.safetensors").read_bytes() == large
    assert not list(blobs.glob("*.incomplete"))


def test_a_server_without_ranges_starts_over(hub, online, tmp_path):
    hub.ranges = False
    blobs = snapshot(tmp_path).parents[1] / "blobs"
    blobs.mkdir(parents=True)
    (blobs / (hub.etag("model.safetensors") + ".incomplete")).write_bytes(b"y" * 7000)
    download(online)
    assert (snapshot(tmp_path) / "model.safetensors").read_bytes() == hub.files["model.safetensors"]


@pytest.mark.parametrize("name, hash_name", [("model.safetensors", "SHA-256"), ("config.json", "git hash")])
def test_damage_on_the_way_is_found_and_not_kept(hub, online, tmp_path, name, hash_name):
    hub.damaged = {name}
    ended = download(online, code=WEIGHTS)
    assert name in ended.err and hash_name in ended.err and "try again" in ended.err
    assert not (snapshot(tmp_path) / name).exists()
    hub.damaged = set()
    download(online)


def test_busy_servers_are_asked_again_as_they_say(hub, online):
    hub.failures = [(429, {"Retry-After": "1"}), (503, {})]
    ended = download(online)
    assert "trying again in 1 s" in ended.err and "answer 503" in ended.err
    hub.failures = [(500, {})] * 20
    assert "answers 500" in download(online, code=WEIGHTS).err


def test_a_gated_model_says_what_to_do(hub, online):
    hub.gated = TOKEN
    ended = download(online, code=WEIGHTS)
    assert "is gated (401)" in ended.err and f"{hub.endpoint}/{NAME}" in ended.err and "HF_TOKEN" in ended.err
    assert "is gated (403)" in download({**online, "HF_TOKEN": "hf_other"}, code=WEIGHTS).err


@pytest.mark.parametrize("from_file", [False, True])
def test_the_token_goes_to_the_hub_and_never_further(hub, online, tmp_path, from_file):
    hub.gated = TOKEN
    if from_file:
        (tmp_path / "hf").mkdir()
        (tmp_path / "hf/token").write_text(TOKEN + "\n")
    else:
        online["HF_TOKEN"] = TOKEN
    ended = download(online)
    tokens = {server: {token for where, _, _, token, _ in hub.requests if where == server} for server in ("hub", "store")}
    assert tokens == {"hub": {f"Bearer {TOKEN}"}, "store": {None}}
    assert TOKEN not in ended.out + ended.err


def test_names_that_are_not_there_are_told(hub, online):
    ended = download(online, code=WEIGHTS, name="some-org/other")
    assert "no such model" in ended.err and "private model needs HF_TOKEN" in ended.err


def test_a_certificate_of_an_unknown_authority_is_refused_at_once(hub, online):
    ended = download({**online, "SSL_CERT_FILE": "/etc/ssl/certs/ca-certificates.crt"}, code=WEIGHTS)
    assert "certificate" in ended.err and "trying again" not in ended.err and not hub.requests


def test_a_hub_that_is_not_there_leads_to_the_login_node(hub, online):
    hub.close()
    ended = download(online, code=WEIGHTS)
    assert f"neoloom download {NAME}" in ended.err and "HF_HUB_OFFLINE=1" in ended.err


def test_names_with_dots_never_leave_the_cache(hub, online, tmp_path):
    weights = hub.files.pop("model.safetensors")
    hub.files["../../evil.safetensors"] = weights
    hub.files["model.safetensors.index.json"] = json.dumps({"weight_map": {"a": "../../evil.safetensors"}}).encode()
    ended = download(online, code=WEIGHTS)
    assert "plain name" in ended.err and not list((tmp_path / "hf").rglob("*evil*"))
    for commit in ("../../..", "A" * 40):
        hub.branches["main"] = commit
        assert "names no commit" in download(online, code=WEIGHTS).err


def test_shards_and_pickles_come_in_transformers_order(hub, online, tmp_path, model_files):
    hub.files["pytorch_model.bin"] = b"z" * 6000
    download(online)
    assert not (snapshot(tmp_path) / "pytorch_model.bin").exists()
    del hub.files["model.safetensors"]
    index = {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}
    hub.files |= {"model.safetensors.index.json": json.dumps(index).encode(), "model-1.safetensors": b"1" * 6000,
                  "model-2.safetensors": b"2" * 6000}
    second = {**online, "HF_HOME": tmp_path / "second"}
    folder = download(second).out.strip()
    assert (tmp_path / folder / "model-2.safetensors").read_bytes() == b"2" * 6000
    for name in ("model.safetensors.index.json", "model-1.safetensors", "model-2.safetensors"):
        del hub.files[name]
    folder = download({**online, "HF_HOME": tmp_path / "third"}).out.strip()
    assert (tmp_path / folder / "pytorch_model.bin").exists()


@pytest.mark.parametrize("ranks", [0, 2])
def test_training_downloads_once_a_job_then_needs_no_network(hub, online, tmp_path, cache, ranks):
    tiny_model.write_classification_jsonl(tmp_path / "train.jsonl", 8, seed=1)
    config = {"model_config": {"pretrained_model_name": NAME}, "peft_config": {"r": 2, "task_type": "SEQ_CLS"},
              "tokenizer_config": {"pretrained_tokenizer_name": NAME},
              "trainer_config": {"max_steps": 1, "per_device_train_batch_size": 2},
              "data": {"train": str(tmp_path / "train.jsonl")}, "runtime": {"cache_dir": str(cache), "device": "cpu"}}
    Run(tmp_path / "first", config).train(ranks, **online).expect(0)
    assert len([1 for _, _, path, _, _ in hub.requests if "/api/" in path]) == 1
    hub.requests.clear()
    Run(tmp_path / "second", config).train(ranks, **online).expect(0)
    assert not hub.requests
    ended = Run(tmp_path / "third", config).train(ranks, **{**online, "HF_HUB_OFFLINE": "1", "HF_HOME": tmp_path / "no"})
    ended.expect(WEIGHTS)
    assert f"neoloom download {NAME}" in ended.err
