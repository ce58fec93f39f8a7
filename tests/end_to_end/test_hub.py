"""An exported model goes to a hub and comes back, and what goes wrong on the way is said in one line."""

import sys

import pytest
import torch
from hub_server import TOKEN
from safetensors.torch import load

from modeling_scratch import ScratchForCausalLM

FRESH = """
import sys, torch
from transformers import AutoModelForCausalLM, AutoTokenizer
model = AutoModelForCausalLM.from_pretrained(sys.argv[1], trust_remote_code=True)
prompt = AutoTokenizer.from_pretrained(sys.argv[1], trust_remote_code=True)("def read", return_tensors="pt")
assert type(model).__module__.startswith("transformers_modules."), type(model).__module__
with torch.no_grad():
    torch.save((prompt["input_ids"], model(**prompt).logits), sys.argv[2])
"""

PUBLISHED = {
    "README.md",
    "chat_template.jinja",
    "config.json",
    "configuration_scratch.py",
    "decoding_scratch.py",
    "generation_config.json",
    "model.safetensors",
    "loss_scratch.py",
    "originals_scratch.py",
    "prompts_scratch.py",
    "modeling_scratch.py",
    "tokenizer.json",
    "tokenizer_config.json",
}


@pytest.fixture
def online(hub, tmp_path):
    """The environment of somebody who is logged in to the hub and has downloaded nothing yet."""
    return {
        "HF_HUB_OFFLINE": None,
        "HF_ENDPOINT": hub.url,
        "HF_TOKEN": TOKEN,
        "HF_HOME": str(tmp_path / "home"),
        "HF_HUB_DISABLE_XET": "1",  # the hub of the test speaks LFS only
    }


@pytest.fixture(scope="module")
def export(quickstart_run):
    return quickstart_run / "runs" / "quickstart" / "export"


def test_push_and_pull(terminal, hub, online, export, quickstart_run, without_package, tmp_path):
    done = terminal.scratch("push", "runs/quickstart/export", "me/model", cwd=quickstart_run, **online)
    assert done.stdout.splitlines()[-1] == f"push: wrote {hub.url}/me/model"
    uploaded = hub.files["me/model"]
    assert set(uploaded) - {".gitattributes"} == PUBLISHED  # and not the provenance, which names this machine's folders
    assert all(content == (export / name).read_bytes() for name, content in uploaded.items() if name in PUBLISHED)

    command = [sys.executable, "-c", FRESH, "me/model", tmp_path / "logits.pt"]
    terminal.run(command, tmp_path, **(online | without_package))
    prompt, logits = torch.load(tmp_path / "logits.pt")
    with torch.no_grad():
        assert torch.equal(logits, ScratchForCausalLM.from_pretrained(export)(prompt).logits)

    # Again, over what is there: no error, and nothing doubled.
    terminal.scratch("push", "runs/quickstart/export", "me/model", cwd=quickstart_run, **online)
    assert set(hub.files["me/model"]) - {".gitattributes"} == PUBLISHED


def test_plain_push_to_hub(terminal, hub, online, export, without_package, tmp_path):
    """What a user of transformers types, without our verb, here in shards; what comes back needs no package of ours."""
    code = (
        "import sys; from transformers import AutoModelForCausalLM, AutoTokenizer\n"
        "model = AutoModelForCausalLM.from_pretrained(sys.argv[1], trust_remote_code=True)\n"
        "model.push_to_hub('me/plain', max_shard_size='200KB')\n"
        "AutoTokenizer.from_pretrained(sys.argv[1], trust_remote_code=True).push_to_hub('me/plain')"
    )
    terminal.run([sys.executable, "-c", code, export], tmp_path, **online)
    uploaded = hub.files["me/plain"]
    assert {"config.json", "modeling_scratch.py", "configuration_scratch.py", "tokenizer.json"} <= set(uploaded)
    shards = [load(content) for name, content in uploaded.items() if name.endswith(".safetensors")]
    assert len(shards) > 1 and "model.safetensors.index.json" in uploaded
    own, pushed = ScratchForCausalLM.from_pretrained(export), {name: shard[name] for shard in shards for name in shard}
    assert pushed.keys() == own.state_dict().keys()
    assert all(torch.equal(pushed[name], tensor) for name, tensor in own.state_dict().items())

    # In a process and a home that know nothing of it.
    online["HF_HOME"] = str(tmp_path / "another home")
    command = [sys.executable, "-c", FRESH, "me/plain", tmp_path / "logits.pt"]
    terminal.run(command, tmp_path, **(online | without_package))
    prompt, logits = torch.load(tmp_path / "logits.pt")
    with torch.no_grad():
        assert torch.equal(logits, own(prompt).logits)


def refused(terminal, cwd, repo, match, **environment):
    done = terminal.scratch("push", "runs/quickstart/export", repo, cwd=cwd, fails=True, **environment)
    assert done.returncode == 2, done.stderr
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: ") and match in lines[0], done.stderr


@pytest.mark.parametrize(
    ("refusal", "match"),
    [
        (("/", 401), "the Hub answered 401 for me/other; run `hf auth login`"),
        (("/", 403), "the Hub answered 403 for me/other; run `hf auth login`"),
        (("/", 404), "the Hub answered 404 for me/other; check the name"),
        (("/large/", 403), "me/other: the upload failed"),
    ],
)
def test_a_refusal_is_one_line(terminal, hub, online, quickstart_run, monkeypatch, refusal, match):
    monkeypatch.setattr(hub, "refusal", refusal)
    refused(terminal, quickstart_run, "me/other", match, **online)


def test_other_mistakes_are_one_line(terminal, online, quickstart_run):
    refused(terminal, quickstart_run, "me/model", "hf auth login", **(online | {"HF_TOKEN": None}))
    refused(terminal, quickstart_run, "me/my model", "'me/my model'", **online)
    unreachable = online | {"HF_ENDPOINT": "http://127.0.0.1:9"}
    refused(terminal, quickstart_run, "me/model", "cannot be reached", **unreachable)
    refused(terminal, quickstart_run, "me/model", "offline", **(online | {"HF_HUB_OFFLINE": "1"}))
