"""Voters in place of people: reward functions, a reward model, and endpoints, honest and lying ones."""

import asyncio
import contextlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch
from arenas import battle, conversation, make_store
from character_tokenizers import character_tokenizer
from messages import refused
from transformers import LlamaConfig, LlamaForSequenceClassification

from training.arena.agreement import consistency, position_bias
from training.arena.store import Vote
from training.arena.tournament import vote_on
from training.arena.voters import NoVote, as_answer, open_voter
from training.commands.arena import main
from training.eval.measures.records import Question, read_questions
from training.eval.measures.reward_model import score_conversations

TEMPLATE = "{% for message in messages %}[{{ message.role }}] {{ message.content }}<|im_end|>{% endfor %}"


def of(first, second, prompt="Why?"):
    answers = (conversation(prompt, first), conversation(prompt, second))
    return battle(prompt=prompt, conversation_a=answers[0], conversation_b=answers[1])


def votes(voter, *battles):
    return [[(vote.winner, vote.swapped) for vote in asyncio.run(voter.votes(each))] for each in battles]


def winners(voter, *battles):
    return [vote for each in votes(voter, *battles) for vote, _ in each]


def test_reward_functions_vote_by_their_sum(tmp_path):
    records = [{"prompt": "Write f.", "name": "f"}, {"prompt": "Write g.", "name": "g"}]
    file = tmp_path / "prompts.jsonl"
    file.write_text("".join(json.dumps(record) + "\n" for record in records))
    voter = open_voter(["parses", "defines"], read_questions(str(file), "prompts"), str(file))
    f, g = "def f(): return 1", "def g(): return 1"
    pairs = [(f, g), (g, "x = 1"), ("x = 1", f), ("1 +", "def"), ("1 +", "x = 1")]
    found = winners(voter, *(of(*pair, "Write f.") for pair in pairs), of(f, g, "Write g."))
    assert found == ["model_a", "tie", "model_b", "both_bad", "model_b", "model_b"]
    assert (voter.rater, voter.kind) == ("parses+defines", "rule")
    with pytest.raises(NoVote, match="not in the file of prompts"):
        votes(voter, of(f, g, "Write h."))
    with pytest.raises(NoVote, match="without answers"):
        votes(voter, battle(conversation_a=[], conversation_b=[]))


@pytest.mark.parametrize(
    "words, key, facts",
    [
        (["defines"], "voter", ["column name", "--prompts have no columns"]),
        (["parse"], "voter", ["'parse'", "did you mean 'parses'"]),
        (["runs/reward"], "voter", ["runs/reward", "no such folder"]),
        (["http://127.0.0.1:1/v1", "parses"], "voter", ["votes alone"]),
        (["http://127.0.0.1:1/v1"], None, ["no models listed there"]),
        (["."], "voter", ["holds no model"]),
    ],
)
def test_voters_that_cannot_vote(words, key, facts):
    with refused(key, *facts):
        open_voter(words, [], None)


def test_a_record_that_a_rule_cannot_read_is_found_before_any_work():
    question = Question("How many?", None, {"answer": "none", "record_number": 1})
    with refused("voter", "number failed on record 1"):
        open_voter(["number"], [question], "prompts.jsonl")


@pytest.fixture(scope="module")
def scorer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scorers") / "scorer"
    tokenizer = character_tokenizer(folder, unknown=True)
    torch.manual_seed(1)
    sizes = {"vocab_size": len(tokenizer), "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
    config = LlamaConfig(
        **sizes, num_attention_heads=2, max_position_embeddings=90, num_labels=1, pad_token_id=1, initializer_range=0.5
    )
    LlamaForSequenceClassification(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    return str(folder)


def test_a_reward_model_votes_for_the_higher_score(scorer):
    voter = open_voter([scorer], [], None)
    prompt, texts = [{"role": "user", "content": "Why?"}], ["Because.", "No.", "Ask somebody else."]
    scores = score_conversations(scorer, [(prompt, as_answer(text)) for text in texts], 1)
    pairs = [(0, 1), (1, 2), (2, 0), (1, 1)]
    expected = [("tie" if a == b else "model_a" if scores[a] > scores[b] else "model_b") for a, b in pairs]
    assert winners(voter, *(of(texts[a], texts[b]) for a, b in pairs)) == expected
    assert voter.kind == "model" and voter.rater.startswith(f"{scorer} (")
    with pytest.raises(NoVote, match="context"):
        votes(voter, of("x" * 100, "No."))


@contextlib.contextmanager
def endpoint(reply):
    """The address of a server whose model replies with what `reply(prompt)` says, in pieces; it may be no event.

    An exception is an error response with its text.
    """

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            said = reply(body["messages"][0]["content"])
            self.send_response(400 if isinstance(said, Exception) else 200 if said is not None else 500)
            self.end_headers()
            if isinstance(said, Exception):
                self.wfile.write(json.dumps({"error": {"message": str(said)}}).encode())
                return
            for letter in said or "":
                event = {"choices": [{"delta": {"content": letter}}]}
                self.wfile.write(b"data: " + json.dumps(event).encode() + b"\n\n")
            self.wfile.write(b"data: [DONE]\n\n")

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1#referee"
    finally:
        server.shutdown()
        server.server_close()


def longer(prompt):
    """The longer answer; the reply is not equally terse for both."""
    first, second = (prompt.split(f"[Assistant {side}]")[1].split("[End of")[0] for side in "AB")
    return " A.\n" if len(first) > len(second) else "b" if len(second) > len(first) else "**Tie**"


def test_an_endpoint_is_asked_in_both_orders():
    pairs = [("Because I say so.", "No."), ("No.", "Because I say so."), ("No.", "Si.")]
    with endpoint(longer) as address:
        found = votes(open_voter([address], [], None), *(of(*pair) for pair in pairs))
    assert found == [
        [("model_a", False), ("model_a", True)],
        [("model_b", False), ("model_b", True)],
        [("tie", False), ("tie", True)],
    ]


def test_an_endpoint_that_prefers_a_side_is_found_out(tmp_path):
    with endpoint(lambda prompt: "A") as address, make_store(tmp_path / "a.sqlite") as store:
        for _ in range(4):
            store.begin(of("Because I say so.", "No."))
        tally = asyncio.run(vote_on(store, open_voter([address], [], None), print))
        assert tally.voted == 4 and position_bias(store, "model").value == 1 and consistency(store, "model").value == 0


@pytest.mark.parametrize("reply", ["C", "", "A or B", "Both are good, but A is better.", None, "x" * 30_000])
def test_an_endpoint_that_lies_gets_no_vote(tmp_path, reply):
    """It answers properly in the first order only."""
    asked, reports = [], []

    def say(prompt):
        asked.append(prompt)
        return "A" if len(asked) % 2 else reply

    with endpoint(say) as address, make_store(tmp_path / "a.sqlite") as store:
        store.begin(battle())
        tally = asyncio.run(vote_on(store, open_voter([address], [], None), reports.append))
        assert not store.votes() and tally.voted == 0 and sum(tally.without_vote.values()) == 1
    assert len(asked) == 2 and len(reports) == 1 and "referee" in reports[0]


def test_an_endpoint_that_rejects_a_battle_is_quoted_once(tmp_path):
    """As `scratch serve` rejects answers that are longer than the model's context."""
    reports = []
    with (
        endpoint(lambda prompt: ValueError(f"the prompt has {len(prompt)} tokens;\n\x1b[2Jshorten it")) as address,
        make_store(tmp_path / "a.sqlite") as store,
    ):
        store.begin(of("Because I say so.", "No."))
        store.begin(of("No.", "No."))
        tally = asyncio.run(vote_on(store, open_voter([address], [], None), reports.append))
    assert tally.without_vote == {"referee: answered 400": 2} and len(reports) == 1
    assert "referee: answered 400 (the prompt has " in reports[0] and "tokens; [2Jshorten it)" in reports[0]


def test_a_store_is_voted_on_once(tmp_path, monkeypatch, capsys):
    """And the agreement with people is printed."""
    monkeypatch.chdir(tmp_path)
    outcomes = [(of("x = 1", "1 +"), "model_a"), (of("1 +", "x = 1"), "model_b"), (of("1 +", "1 +"), "both_bad")]
    with make_store(tmp_path / "arena.sqlite", *outcomes) as store:
        store.vote(Vote(outcomes[0][0].id, "somebody else", "model_b", "rule"))  # another rule
    main(["arena.sqlite", "--voter", "parses"])
    printed = capsys.readouterr().out
    assert "parses voted on 3 battles (rule); no vote: none" in printed
    assert "alpha with human votes is 1.00, over 3 battles" in printed and "shown first won 50 %" in printed
    main(["arena.sqlite", "--voter", "parses", "--leaderboard", "--kind", "rule"])
    printed = capsys.readouterr().out
    assert "voted on 0 battles" in printed and "votes: 4" in printed
