"""The template of a Modelfile, in the language in which Ollama reads it, Go's: the prompts of our chat template."""

import json
import os
import re
import shutil
import subprocess

import pytest
from transformers import AutoTokenizer, GenerationConfig

from modeling_scratch.tokenization_base import CHAT_TEMPLATE
from training.engines.modelfile import modelfile

# As Ollama's template package does it: the messages under their name, missing keys as empty.
PROGRAM = """
package main

import (
	"encoding/json"
	"os"
	"text/template"
)

type Message struct{ Role, Content string }

func main() {
	text, _ := os.ReadFile("template.txt")
	raw, _ := os.ReadFile("chats.json")
	var chats [][]Message
	if err := json.Unmarshal(raw, &chats); err != nil {
		panic(err)
	}
	prompt := template.Must(template.New("").Option("missingkey=zero").Parse(string(text)))
	for _, chat := range chats {
		if err := prompt.Execute(os.Stdout, map[string]any{"Messages": chat}); err != nil {
			panic(err)
		}
		os.Stdout.WriteString("\\x00")
	}
}
"""
TURNS = [
    ["user: hi"],
    ["system: Be brief.\n", "user: a\nb"],
    ["user: x", "assistant: y <b>&'\"{{ .Role }}", "user:   z \n"],
    ["system: ", "user: ", "assistant: ", "user: é🙂"],
    ["user: 1", "user: 1", "user: 1"],
]


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("go") is None, reason="needs Go, of any version from 1.18")
def test_prompts(tmp_path):
    from tiny_stages import write_tokenizer

    chats = [[dict(zip(("role", "content"), turn.split(": ", 1))) for turn in turns] for turns in TURNS]
    text = modelfile("a.gguf", GenerationConfig(), 64, CHAT_TEMPLATE)
    (tmp_path / "template.txt").write_text(re.search(r'TEMPLATE """(.*?)"""', text, re.DOTALL)[1])
    (tmp_path / "chats.json").write_text(json.dumps(chats))
    (tmp_path / "main.go").write_text(PROGRAM)
    caches = {"GOCACHE": str(tmp_path / "cache"), "GOPATH": str(tmp_path / "path")}
    environment = os.environ | caches | {"CGO_ENABLED": "0", "GO111MODULE": "off"}
    done = subprocess.run(["go", "run", "main.go"], cwd=tmp_path, env=environment, capture_output=True, check=True)
    tokenizer = AutoTokenizer.from_pretrained(write_tokenizer(tmp_path / "tokenizer"))
    expected = [tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True) for chat in chats]
    assert done.stdout.decode().split("\0") == [*expected, ""]
