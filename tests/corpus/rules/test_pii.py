import time
import typing

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from training.common.errors import UserError
from training.corpus.rules import pii
from training.corpus.rules.pii import Kind, PIIConfig, Redactor
from training.stages.recipe import build

KINDS = list(typing.get_args(Kind))
REDACT = Redactor(PIIConfig(KINDS))
TOKEN = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N"
PRIVATE_KEY = "-----BEGIN RSA PRIVATE KEY-----\n" + "MIIEpAIBAAKCAQEA7bq1\n" * 4 + "-----END RSA PRIVATE KEY-----\n"
MASKED_KEY = "-----BEGIN RSA PRIVATE KEY-----\nXXXXXXXX\n-----END RSA PRIVATE KEY-----\n"


@pytest.mark.parametrize(
    ("name", "text", "redacted"),
    [
        ("email", "Write to Jane.Doe+news@mail.uni-ulm.de.", "Write to email@example.com."),
        ("email", "<joe_1@gmail.com>", "<email@example.com>"),
        ("ipv4", "from 83.12.7.99 at noon", "from 192.0.2.1 at noon"),
        ("ipv4", "http://203.12.114.5:8080/x", "http://192.0.2.1:8080/x"),
        ("ipv6", "host 2a02:8108:8180:1c::7 is up", "host 2001:db8::1 is up"),
        ("phone", "call +49 (0)170 123-4567 now", "call 555-0100 now"),
        ("phone", "call +491701234567.", "call 555-0100."),
        ("phone", "Tel: (212) 456-7890", "Tel: 555-0100"),
        ("phone", "212-456-7890 or 212.456.7891", "555-0100 or 555-0100"),
        ("card", "card 4111 1111 1111 1111, valid", "card XXXX XXXX XXXX XXXX, valid"),
        ("card", "3782-822463-10005", "XXXX XXXX XXXX XXXX"),
        ("aws_key", "id=AKIAQ3EGV5HK2M7PLZ4X", "id=AKIAXXXXXXXX"),
        ("github_token", f"ghp_{'a1' * 18}", "ghp_XXXXXXXX"),
        ("github_token", f"github_pat_{'a1' * 18}_b", "github_pat_XXXXXXXX"),
        ("slack_token", "xoxb-123456789012-abcdef", "xoxb-XXXXXXXX"),
        ("google_key", f"AIza{'Sy-_7' * 7}", "AIzaXXXXXXXX"),
        ("huggingface_token", f"hf_{'aB' * 17}", "hf_XXXXXXXX"),
        ("jwt", f"Bearer {TOKEN}", "Bearer eyJXXXXXXXX"),
        ("private_key", PRIVATE_KEY, MASKED_KEY),
        ("password", 'DB_PASSWORD = "hunter22"', 'DB_PASSWORD = "XXXXXXXX"'),
        ("password", "{'api_key': 'a1b2c3d4'}", "{'api_key': 'XXXXXXXX'}"),
    ],
)
def test_replaces_by_the_same_kind_and_counts(name, text, redacted):
    result = REDACT(text)
    assert result.text == redacted
    assert result.counts == {name: redacted.count("555-0100") if name == "phone" else 1}


@pytest.mark.parametrize(
    "text",
    [
        "x@self.weight and y @ z",
        "@property\ndef mail(self): ...",
        "git@github.com:owner/name.git",
        "someone@example.com, me@localhost.test",
        "version 4.0.30319.42000, v10.0.19.123 and numpy==1.26.240.7",
        "127.0.0.1, 10.1.2.200, 192.168.0.77, 0.0.0.0, 300.1.2.3, 1.2.3.4.55",
        "section 1.2.3.4 and 2.10.11.12",
        "std::vector, dead::beef, 12:34:56, fe80::1, ::1, 2001:db8::7",
        "1914-1918, 2024-01-31, 3.14159265358979, 1234567890123",
        "call 555-0123 or (212) 555-0199",
        "+1 and + 1234567890 and a+1234567890",
        "4111 1111 1111 1112",
        "AKIASHORT, ghp_short, hf_model, xoxo-kisses, eyJust.eyJust.eyJust",
        "the key: 'monkeys', password = 'password', token = os.environ['TOKEN_1']",
        "-----BEGIN PUBLIC KEY-----\n" + "MIIEpAIBAAKCAQEA7bq1\n" * 4,
    ],
)
def test_leaves_alone(text):
    assert REDACT(text) == (text, {})


@pytest.mark.parametrize("kind", KINDS)
def test_kinds_are_switched_singly(kind):
    text = 'joe@gmail.com 83.12.7.99 (212) 456-7890, 4111 1111 1111 1111 secret = "a1b2c3d4"'
    counts = Redactor(PIIConfig([kind]))(text).counts
    assert counts == {{"ip": "ipv4", "secret": "password"}.get(kind, kind): 1}


def test_a_kind_that_is_none_is_a_line_to_the_user():
    with pytest.raises(UserError, match="email, ip, phone, card, secret, not 'mail'"):
        build(PIIConfig, {"kinds": ["mail"]}, "prepare.yaml")


PARTS = st.sampled_from(
    'joe @ gmail .com . , : - + ( ) 212 456 7890 83. 12 7.99 4111 1111 2a02: :: 8108 AKIA ghp_ eyJ xoxb- password = "'
    " ' a1b2c3d4 555-0100 email@example.com 192.0.2.1 2001:db8::1 XXXXXXXX +49 170 \n".split(" ")
)


@settings(deadline=None, max_examples=400)
@given(st.lists(PARTS | st.just(" "), max_size=30).map("".join))
def test_a_second_time_finds_nothing(text):
    once = REDACT(text)
    assert REDACT(once.text) == (once.text, {})
    assert bool(once.counts) == (once.text != text)


def test_a_replaced_number_makes_no_new_one_with_its_neighbours():
    once = REDACT("+4912345 212-456-7890")
    assert once.text == "+4912345 555-0100"
    assert REDACT(once.text) == (once.text, {})


@settings(deadline=None, max_examples=400)
@given(st.lists(PARTS | st.just(" "), max_size=30).map("".join))
@example("a@b.de 83.1.7.99 2a02::7 +4917012345678 212.456.7890 password='a1b2c3'")
def test_hints_miss_nothing(text):
    for pattern in pii._PATTERNS:
        found = any(pattern.replacement(match) for match in pattern.expression.finditer(text))
        assert pattern.hint(text) or not found


@settings(deadline=None)
@given(st.text(st.characters(exclude_characters="@+0123456789_-:=", exclude_categories=["Cs"])))
def test_touches_no_text_without_a_hit(text):
    assert REDACT(text) == (text, {})


# Something of every kind, so that no pattern is passed over.
HINTS = "joe@gmail.com 83.12.7.99 +49 170 1234567 4111 1111 1111 1111 AKIA ghp_ hf_ eyJ AIza xoxb- :: ='aaaaaa' "
HOSTILE = (
    *("a", "1", ".", "-", " ", "@", "a@", "a.", "a@a.", "1.", "1-", "1.1.1.1.", "212-", "(212) ", "+1 ", "+"),
    *("2a02:", "2a02::", "4111 ", "4111-1111-", "AKIA", "ghp_", "ghp_a", "xoxb-", "AIza", "hf_"),
    *("eyJ", "eyJaaaaaaaaaa.", "eyJaaaaaaaaaa.eyJaaaaaaaaaa.", "password", "password=", "='", "password='a1", ": '"),
    *("-----BEGIN PRIVATE KEY-----", "-----BEGIN RSA ", "-----BEGIN PRIVATE KEY-----\na: "),
)


@pytest.mark.parametrize("part", HOSTILE)
def test_work_grows_with_the_text_and_no_faster(part):
    """Linear work is 4 times as much for 4 times the text, quadratic work 16 times."""

    def seconds(size: int) -> float:
        text = HINTS + part * (size // len(part))
        times = []
        for _ in range(2):
            start = time.process_time()
            REDACT(text)
            times.append(time.process_time() - start)
        return min(times)

    assert seconds(300_000) < 10 * seconds(75_000) + 0.02  # seconds of noise
