"""What launch.generate prints."""

import unicodedata

from hybriko_jax.data.sample import sample_documents
from hybriko_jax.tokenizer import train_sentencepiece
from launch.generate import spelled


def test_text_is_spelled_in_whole_characters():
    tokenizer = train_sentencepiece(sample_documents(60), 1500)
    prompt, answer = "파일을 지우려면", " 뷁 rm 을"  # the second is spelled in bytes
    decomposed = unicodedata.normalize("NFD", prompt)
    ids = [tokenizer.bos_id, *tokenizer.encode(decomposed)]
    found = list(spelled(tokenizer, ids, tokenizer.encode(answer)))
    assert found[0] == prompt and "".join(found) == prompt + answer
    assert not any("\ufffd" in text for text in found)
