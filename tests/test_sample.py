"""The built-in sample: the same everywhere, clean, and Korean."""

import unicodedata

from hybriko_jax.data.sample import sample_documents


def test_is_a_function_of_seed_and_number():
    first = list(sample_documents(50))
    assert list(sample_documents(100))[:50] == first
    assert list(sample_documents(50, seed=1)) != first


def test_is_clean_text():
    documents = list(sample_documents(500))
    assert len(set(documents)) == 500
    for text in documents:
        assert text == unicodedata.normalize("NFC", text).strip()
        assert "  " not in text and "\n\n" not in text and "{" not in text
        assert not any(unicodedata.category(c) == "Cc" for c in text.replace("\n", ""))


def test_is_mostly_hangul():
    text = "".join(sample_documents(200)).replace(" ", "")
    assert sum("가" <= c <= "힣" for c in text) > 0.75 * len(text)
