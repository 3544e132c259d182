"""A GPT-NeoX as the Hub has them, made by its own libraries, small and of random weights."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import tokenizers
import torch
import transformers
from tokenizers import decoders, models, pre_tokenizers, trainers


def byte_level(texts: Iterable[str], vocab_size: int) -> tokenizers.Tokenizer:
    """A BPE with <|endoftext|> as token 0."""
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def save(folder: Path, tokenizer: tokenizers.Tokenizer, shards: str = "1GB", **sizes: Any) -> Path:
    """Writes a model of these sizes, and its tokenizer."""
    tokenizer.save(str(folder / "tokenizer.json"))
    torch.manual_seed(0)
    settings = {"max_position_embeddings": 256, "eos_token_id": 0, "bos_token_id": None, **sizes}
    config = transformers.GPTNeoXConfig(**settings)
    transformers.GPTNeoXForCausalLM(config).save_pretrained(folder, max_shard_size=shards)
    return folder
