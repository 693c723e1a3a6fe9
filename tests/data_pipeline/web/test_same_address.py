"""Addresses of one page have one key, addresses of two pages have two, and nothing that a crawl may hold raises."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipeline.web.same_address import address_key, same_address, same_address_originals

SAME = [
    [
        "http://example.com",
        "https://www.example.com/",
        "HTTP://EXAMPLE.COM:80/#top",
        "//example.com./index.html",
        "https://example.com:443",
    ],
    [
        "http://a.org/x?b=2&a=1",
        "http://a.org/x/?a=1&b=2&utm_source=mail",
        "https://u:p@www.a.org/x?gclid=q&a=1&&b=2#f",
        "http://a.org/x?a=1&amp;b=2",
    ],
    ["http://a.org/~u/%C3%A9", "http://a.org/%7Eu/%c3%a9", "http://a.org/~u/é", "http://a.org//~u/./b/../é/"],
    ["http://a.org/s?q=a%20b", "http://a.org/s?q=a+b", "http://a.org/s?q=a b&PHPSESSID=0123", "http://a.org/s;jsessionid=0AF?q=a+b"],
    ["http://bücher.example/", "http://xn--bcher-kva.example/index.php", "http://b%C3%BCcher.example"],
    ["http://[2001:DB8::1]/x", "http://[2001:db8::1]:80/x/"],
    ["http://a.org/p?sid=0123456789abcdef01", "http://a.org/p"],
]
DIFFERENT = [
    "http://a.org/", "http://b.org/", "http://a.org:8080/", "http://a.org/X", "http://a.org/x", "http://a.org/x?a=1", "http://a.org/x?a=2",
    "http://a.org/x?a=1&a=2", "http://a.org/x%2Fy", "http://a.org/x/y", "http://a.org/x?a=%26b", "http://a.org/x?a&b", "http://www2.a.org/",
    "http://a.org/x?sid=17", "http://a.org/x?q=a%2Bb", "http://a.org/x?q=a+b", "http://a.org/indexes.html",
]  # fmt: skip
ODD = [
    "", "/path", "mailto:a@b.c", "javascript:void(0)", "http://", "http://:80/", "http://@/", "http://a.b:port/", "http://a.b:999999999/",
    "http://\ud800.org/\udfff?\ud800=\udc00", "http://[::1", "http://%%%/%zz%", "http://a..b./..//..", "\x00http://a\x00b/", "http:/a.b/c",
    "http://" + "a" * 70 + ".org/", "http://a.org/?" + "&" * 1000, "http://ＡＢＣ.org/", "http://a.org/%ff%fe",
]  # fmt: skip


@pytest.mark.parametrize("group", SAME)
def test_one_page(group: list[str]) -> None:
    assert len({same_address(one) for one in group}) == 1
    assert len({address_key(one) for one in group}) == 1
    assert len(address_key(group[0]) or b"") == 16


def test_different_pages() -> None:
    assert len({address_key(one) for one in DIFFERENT}) == len(DIFFERENT)


@given(st.text(max_size=60))
@settings(max_examples=150, deadline=None, derandomize=True)
def test_any_text_has_a_key_or_none_and_a_normal_form_is_normal(text: str) -> None:
    for url in (text, f"http://{text}", f"http://a.org/{text}"):
        once = same_address(url)
        assert (address_key(url) is None) == (once is None)
        assert once is None or same_address(f"http://{once}") == once


def test_odd_and_huge_addresses() -> None:
    for url in [*ODD, "http://a.org/" + "é%zz/" * 200_000, "http://" + "x." * 500_000, "http://a.org/?" + "b=%20&" * 150_000]:
        key = address_key(url)
        assert key is None or len(key) == 16
    assert address_key("mailto:a@b.c") is None


def test_which_of_an_address_is_kept() -> None:
    keys = [address_key(url) for url in ("http://a.org/x", "mailto:a", "http://a.org/x/", "https://a.org/x", "mailto:a", "http://b.org")]
    quality, fetched = np.array([0.5, 0.1, 0.9, 0.9, 0.2, np.nan]), np.array([3, 1, 1, 2, 9, 0])
    assert same_address_originals(keys, quality, fetched).tolist() == [3, 1, 3, 3, 4, 5]
    assert same_address_originals(keys, quality).tolist() == [2, 1, 2, 2, 4, 5]
    assert same_address_originals(keys, fetched).tolist() == [0, 1, 0, 0, 4, 5]
    assert same_address_originals(keys).tolist() == [0, 1, 0, 0, 4, 5]
    assert same_address_originals([]).tolist() == []
