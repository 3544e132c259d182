"""The model of the assistant: from a conversation to the text of its next call."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hybriko_jax.console import load
from hybriko_jax.console.messages import fault
from hybriko_jax.errors import UserError
from hybriko_jax.prompts import Message, answer_header, chat_tokens

if TYPE_CHECKING:
    import flax.linen as nn

    from hybriko_jax.decode.prefix import Prefix

Answer = Callable[[Sequence[Message], Sequence[str]], str]
"""From a conversation, and names that it may use besides its own, to what the assistant says."""

_UNIT = 512  # of the tokens that the state has room for; nearly every request fits in one
_LEAST = 200  # tokens of room for an answer


def cache_folder() -> Path:
    """Where files go that can be made again; need not exist."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    return Path(base if Path(base).is_absolute() else Path.home() / ".cache", "hybriko_jax")


def kept_prefix(loaded: load.Loaded, model: nn.Module, checkpoint: Path) -> Prefix:
    """The state after the system prompt, kept once it has been run.

    It is kept beside the model, or in the user's cache where that folder cannot be written.
    """
    from hybriko_jax.decode.prefix import load_prefix

    before, _ = chat_tokens(loaded.tokenizer, [{"role": "system", "content": loaded.system}])
    path = checkpoint / "prefix.npz"
    if not os.access(checkpoint, os.W_OK):
        name = hashlib.sha256(str(checkpoint.resolve()).encode()).hexdigest()[:16]
        path = cache_folder() / f"prefix-{name}.npz"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError:
            pass  # then it is run every time
    return load_prefix(model, loaded.params, before.tolist(), path)


def load_model(checkpoint: Path, grounded: bool, lang: str) -> Answer:
    """Loads a model once, for any number of answers.

    Args:
      checkpoint: a model's folder, or the workdir of a run.
      grounded: let only calls through that the conversation supports.
      lang: of the error.

    Raises:
      UserError: there is no model.
    """
    from hybriko_jax.decode.constrain import Grammars, call_grammar
    from hybriko_jax.decode.generate import continuations
    from hybriko_jax.decode.spans import candidates
    from hybriko_jax.evaluate.function_calling import sources
    from hybriko_jax.linux.tools import TOOLS
    from hybriko_jax.models import build

    try:
        loaded = load.checkpoint(checkpoint)
    except UserError as e:
        raise fault(lang, "model", why=e) from None
    model, tokenizer = build(loaded.config), loaded.tokenizer
    prefix = kept_prefix(loaded, model, checkpoint)
    grammars = Grammars(tokenizer) if grounded else None

    def answer(messages: Sequence[Message], names: Sequence[str] = ()) -> str:
        tokens, _ = chat_tokens(tokenizer, messages, begin=False)
        prompt = [*tokens.tolist(), *answer_header(tokenizer)]
        # All of the room is given to the answer, so that prompts of many lengths share one shape.
        used = len(prefix.tokens) + len(prompt)
        room = -(-(used + _LEAST) // _UNIT) * _UNIT - used
        mask = None
        if grammars:
            mask = grammars.masks([call_grammar(TOOLS, candidates(*sources(messages), names))])
        (found,) = continuations(
            model,
            loaded.params,
            [prompt],
            room,
            stop=tokenizer.ends,
            temperature=0,
            mask=mask,
            prefix=prefix,
        )
        return tokenizer.decode(found)

    return answer
