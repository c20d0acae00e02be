"""Secrets that nobody told of are known by their form, and shown by no more than that."""

import base64
import json

import pytest

from ring0.guardrails.scanners import Rules, scan

A = "a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6q7R8s9T0u1V2w3X4y5Z6"
HEX = "0123456789abcdef" * 4


def jwt() -> str:
    parts = [{"alg": "HS256", "typ": "JWT"}, {"sub": "ada"}]
    heads = [
        base64.urlsafe_b64encode(json.dumps(each).encode()).decode().rstrip("=") for each in parts
    ]
    return f"{heads[0]}.{heads[1]}.{A[:43]}"


SECRETS = {
    "aws-access-key": "AKIAQ3EGU7XKJ2MNBV5T",
    "github-token": f"github_pat_{A[:30]}",
    "gitlab-token": f"glpat-{A[:20]}",
    "slack-token": "xoxb-1234567890-ABCdefGHI",
    "slack-webhook": f"https://hooks.slack.com/services/T00000000/B00000000/{A[:24]}",
    "stripe-key": f"sk_live_{A[:24]}",
    "openai-key": f"sk-proj-{A[:48]}",
    "anthropic-key": f"sk-ant-api03-{A}",
    "google-key": f"AIza{A[:35]}",
    "google-oauth": f"GOCSPX-{A[:28]}",
    "npm-token": f"npm_{A[:36]}",
    "pypi-token": f"pypi-AgE{A}",
    "sendgrid-key": f"SG.{A[:22]}.{A[:43]}",
    "twilio-key": f"SK{HEX[:32]}",
    "digitalocean-token": f"dop_v1_{HEX}",
    "shopify-token": f"shpat_{HEX[:32]}",
    "vault-token": f"hvs.{A[:30]}",
    "telegram-token": f"123456789:AA{A[:33]}",
    "mailchimp-key": f"{HEX[:32]}-us12",
    "azure-storage-key": f"AccountKey={(A + A)[:86]}==",
    "jwt": jwt(),
    "password-in-url": "postgres://ada:s3cr-et@db.acme.io/x",
    "private-key": "-----BEGIN RSA PRIVATE KEY-----\nMIIEow+/==\n-----END RSA PRIVATE KEY-----",
}


def secrets(text: str) -> list[str]:
    return [each.rule for each in scan(text).findings if each.rule.startswith("secret/")]


@pytest.mark.parametrize("name", SECRETS)
def test_a_secret_is_known_by_its_form(name: str) -> None:
    text = f"here: {SECRETS[name]} and more"
    found = [each for each in scan(text).findings if each.rule == f"secret/{name}"]
    assert found and text[found[0].start : found[0].end] in SECRETS[name]


@pytest.mark.parametrize("name", SECRETS)
def test_what_is_shown_of_a_secret_is_none_of_it(name: str) -> None:
    secret = SECRETS[name]
    for each in scan(f"password = {secret} and more").findings:
        assert not any(secret[at : at + 6] in each.shown for at in range(4, len(secret) - 6))
        assert secret not in repr(each)


@pytest.mark.parametrize(
    "text",
    [
        'password = "hunter2-hunter2"',
        "api_key: 9f8e7d6c5b4a39281706",
        '{"client_secret": "xK9-mQ2_vB7.zT4"}',
        "Authorization: Bearer dGhpcy1pcy1hLXRva2Vu42",
        "export DB_PASSWD='Tr0ub4dor&3'",
        "the password is Tr0ub4dor&3 as ever",
        "ACCESS-KEY=>Zx81qy92wv73",
    ],
)
def test_what_stands_after_a_keyword_and_is_disordered_is_a_secret(text: str) -> None:
    assert secrets(text) == ["secret/named"]


@pytest.mark.parametrize(
    "text",
    [
        "password = changeme",
        "password = changeme-1",
        "api_key=${API_KEY}",
        "token = request.headers.get(name)",
        "secret: the-story-of-a-house",
        "monkey = banana2banana",
        "password: ",
        "token_count = 1234567890",
        "https://ada:password@",
        "postgres://user:example@db/x",
        "AKIA0000000000000000",
        "sk-learn-based-classifiers-are-fine-here",
        "task-force-alpha-report-final-version",
        "eyJub3QiOiAiYSBqd3QifQ.eyJhIjoxfQ.c2lnbmF0dXJl",
    ],
)
def test_what_only_looks_like_one_is_none(text: str) -> None:
    assert secrets(text) == []


def test_words_before_a_secret_in_the_same_run_do_not_hide_it() -> None:
    words = "some-words-that-are-long-and-no-key-" * 3
    assert secrets(f"sk-{words}sk-proj-{A}") == ["secret/openai-key"]


def test_a_scanner_that_is_off_finds_nothing() -> None:
    text = f"{SECRETS['github-token']} fuck ann@acme.io"
    assert not scan(text, rules=Rules(secrets=False, profanity=False, personal=False)).findings
