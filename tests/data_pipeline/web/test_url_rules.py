"""Addresses: what is blocked and what is not, list files in their formats, domains, hostile addresses."""

from pathlib import Path

import pytest

from data_pipeline.errors import InputError
from data_pipeline.web.domains import host_of, registered_domain
from data_pipeline.web.url_rules import AddressRules, check_address, fingerprint_of

RULES = AddressRules(
    blocked_domains=("bad.example", "bücher.example"), blocked_words=("Casino",), blocked_addresses=("http://www.some.example/private/",)
)


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("http://bad.example/", "blocked_domain"),
        ("https://a.b.bad.example:8080/x", "blocked_domain"),
        ("http://user:pass@word@BAD.example.:80", "blocked_domain"),
        ("http://xn--bcher-kva.example/", "blocked_domain"),
        ("http://www.B\u00dcCHER.example", "blocked_domain"),
        ("http://\ud800.bad.example/\udfff", "blocked_domain"),
        ("http://notbad.example/", None),
        ("http://bad.example.org/?x=bad.example", None),
        ("http://bad.example@good.example/", None),
        ("http://good.example/casino-royale", "blocked_words"),
        ("http://good.example/casinos", None),
        ("https://some.example:443/private/a?b=c#d", "blocked_address"),
        ("http://some.example/private", "blocked_address"),
        ("http://some.example/privately", None),
        ("ftp://good.example/", "address_scheme"),
        ("javascript:alert(1)", "address_scheme"),
        ("no address", "address_scheme"),
        ("", "address_scheme"),
        ("http://[::1]:80/", None),
        ("http://[", None),
        ("http://" + "a." * 5000, None),
        ("HTTP://good.example", None),
    ],
)
def test_addresses(url: str, reason: str | None) -> None:
    found = check_address(RULES, url)
    assert (found and found.reason) == reason


def test_list_files(tmp_path: Path) -> None:
    (tmp_path / "plain.txt").write_text("# a comment\nplain.example # why\n\n*.star.example\nhttps://whole.example/x\n")
    (tmp_path / "hosts").write_text("127.0.0.1 localhost\n0.0.0.0 hosts.example two.example\n")
    (tmp_path / "ut1/adult").mkdir(parents=True)
    (tmp_path / "ut1/adult/domains").write_text("ut.example\n")
    (tmp_path / "ut1/adult/urls").write_text("page.example/~user/one\n")
    (tmp_path / "words.txt").write_text("poker\n")
    lists = tuple(str(tmp_path / name) for name in ("plain.txt", "hosts", "ut1"))
    rules = AddressRules(domain_lists=lists, word_lists=(str(tmp_path / "words.txt"),), max_blocked_words=0)
    for host in ("plain", "a.star", "whole", "hosts", "two", "sub.ut"):
        assert check_address(rules, f"http://{host}.example/") is not None, host
    assert check_address(rules, "http://localhost/") is None
    assert check_address(rules, "http://page.example/~user/one/two") is not None
    assert check_address(rules, "http://page.example/~user/") is None
    assert check_address(rules, "http://x.example/Poker") is not None
    before = fingerprint_of(rules)
    assert before == fingerprint_of(rules)
    (tmp_path / "ut1/adult/urls").write_text("page.example/~user/two\n")
    assert before != fingerprint_of(rules)
    for bad, says in (
        (AddressRules(domain_lists=("/none.txt",)), "cannot be read"),
        (AddressRules(blocked_words=("a b",)), "letters and digits"),
    ):
        with pytest.raises(InputError, match=says):
            check_address(bad, "http://x.example")


def test_domains() -> None:
    urls = {
        "https://news.bbc.co.uk:443/x": "bbc.co.uk",
        "http://user@www.site.com./": "site.com",
        "http://192.0.2.1/": "192.0.2.1",
        "http://[2001:db8::1]:80/": "2001:db8::1",
        "http://localhost/": "localhost",
        "http://www.xn--bcher-kva.de": "xn--bcher-kva.de",
        "nothing": "",
    }
    assert {url: registered_domain(url) for url in urls} == urls
    assert host_of("//Sub.Site.example/") == "sub.site.example"
    assert isinstance(registered_domain("http://\ud800.com/"), str)
