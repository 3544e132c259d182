"""A SentencePiece model as the files that AutoTokenizer of transformers reads."""

from __future__ import annotations

import json
from typing import Any

from sentencepiece import sentencepiece_model_pb2 as spm_format

from hybriko_jax.errors import UserError
from hybriko_jax.tokenizer import IM_END, IM_START, SPACE, TokenizerJson

UNIGRAM = 1  # TrainerSpec.ModelType
NORMAL, UNKNOWN, CONTROL, USER_DEFINED = range(1, 5)  # SentencePiece.Type; others are never text
USER_DEFINED_SCORE = -0.1  # what SentencePiece gives such a piece, whatever the model says

# `prompts.chat_tokens` as a template: what the assistant copies from holds a newline for a space.
# A newline beside a tag would be taken for layout, so every one stands inside quotes.
CHAT_TEMPLATE = f"""\
{{{{- bos_token }}}}
{{%- for message in messages %}}
{{%- if message['content'] is not string %}}
{{{{- raise_exception('the content of a message must be one string') }}}}
{{%- endif %}}
{{{{- '{IM_START}' + message['role'] + '\\n' }}}}
{{%- if message['role'] == 'assistant' %}}
{{%- generation %}}
{{{{- message['content'] + '{IM_END}' }}}}
{{%- endgeneration %}}
{{%- else %}}
{{{{- (message['content'] | replace(' ', '\\n')) + '{IM_END}' }}}}
{{%- endif %}}
{{{{- '\\n' }}}}
{{%- endfor %}}
{{%- if add_generation_prompt %}}
{{{{- '{IM_START}assistant\\n' }}}}
{{%- endif %}}
"""


def tokenizer_files(model: bytes, max_length: int) -> dict[str, str]:
    """The text of tokenizer.json and of tokenizer_config.json.

    Loaded with AutoTokenizer, they give <s> and the ids of `SentencePiece.encode`, and through
    apply_chat_template the ids of `prompts.chat_tokens` and what the assistant says of them. But:

    * Of two ways to cut a text that score alike, either may be taken: SentencePiece adds up in
      float32, the tokenizers library in float64.
    * A control symbol typed in a text becomes that symbol. `split_special_tokens=True` reads it as
      text, as we do; a chat template makes one text of all and cannot, so take the symbols out of
      what strangers write.
    * Combining marks newer than Unicode 9, stacked in the wrong order, are left so: the NFC of the
      tokenizers library is older than Python's.
    * Bytes that are no UTF-8 spoil the whole run of bytes around them when decoded.

    Args:
      model: what tokenizer.model holds, as `train_sentencepiece` makes it.
      max_length: the longest text the model reads, in tokens.

    Raises:
      UserError: the model cuts or rewrites text in a way that ours never do.
    """
    proto = spm_format.ModelProto.FromString(model)  # pyright: ignore[reportAttributeAccessIssue]
    spec = proto.trainer_spec
    pieces = [p.piece for p in proto.pieces]
    _check(proto, pieces)
    return {
        "tokenizer.json": _dump(_tokenizer(proto)),
        "tokenizer_config.json": _dump(
            {
                "tokenizer_class": "PreTrainedTokenizerFast",
                "bos_token": pieces[spec.bos_id],
                "eos_token": pieces[spec.eos_id],
                "pad_token": pieces[spec.pad_id],
                "unk_token": pieces[spec.unk_id],
                "additional_special_tokens": [IM_START, IM_END],
                "clean_up_tokenization_spaces": False,
                "model_input_names": ["input_ids", "attention_mask"],
                "model_max_length": max_length,
                "padding_side": "left",  # generate goes on from the last position
                "chat_template": CHAT_TEMPLATE,
            }
        ),
    }


def tokenizer_config(tokenizer: TokenizerJson, max_length: int) -> str:
    """The tokenizer_config.json that belongs to a tokenizer.json which came with a model."""
    named = {i: symbol for symbol, i in tokenizer.controls.items()}
    ids = {"bos": tokenizer.bos_id, "eos": tokenizer.eos_id, "pad": tokenizer.pad_id}
    return _dump(
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            **{f"{name}_token": named[i] for name, i in ids.items() if i in named},
            "clean_up_tokenization_spaces": False,
            "model_input_names": ["input_ids", "attention_mask"],
            "model_max_length": max_length,
            "padding_side": "left",  # generate goes on from the last position
        }
    )


def _dump(described):
    return json.dumps(described, ensure_ascii=False, indent=1) + "\n"


def _check(proto, pieces):
    trained, normal = proto.trainer_spec, proto.normalizer_spec
    faults = {
        "is not a unigram model": trained.model_type != UNIGRAM,
        "has no bytes for unknown characters": not trained.byte_fallback,
        "puts a space before a text": normal.add_dummy_prefix,
        "drops spaces": normal.remove_extra_whitespaces,
        "rewrites characters": bool(normal.precompiled_charsmap),
        "lacks one of <pad>, <unk>, <s>, </s>": min(
            trained.pad_id, trained.unk_id, trained.bos_id, trained.eos_id
        )
        < 0,
        f"lacks {IM_START} or {IM_END}": not {IM_START, IM_END} <= {*pieces},
    }
    if found := [fault for fault, true in faults.items() if true]:
        raise UserError(
            f"The tokenizer {' and '.join(found)}, which transformers would not do alike. Train "
            "one with python -m launch.train_tokenizer."
        )


def _tokenizer(proto) -> dict[str, Any]:
    """tokenizer.json.

    Pieces hold spaces, not the mark U+2581 that SentencePiece writes for them. A mark in a text is
    then an unknown character, spelled in bytes, and nothing has to turn one into the other.

    Source: the serialisation of the tokenizers library, 0.23.
    """
    bos = proto.pieces[proto.trainer_spec.bos_id].piece
    start = {"SpecialToken": {"id": bos, "type_id": 0}}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {
                "id": i,
                "content": p.piece,
                "single_word": False,
                "lstrip": False,
                "rstrip": False,
                "normalized": False,
                "special": True,
            }
            for i, p in enumerate(proto.pieces)
            if p.type in (CONTROL, UNKNOWN)
        ],
        "normalizer": {"type": "NFC"},
        "pre_tokenizer": _isolated(proto),
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [start, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [
                start,
                {"Sequence": {"id": "A", "type_id": 0}},
                {"SpecialToken": {"id": bos, "type_id": 1}},
                {"Sequence": {"id": "B", "type_id": 1}},
            ],
            "special_tokens": {
                bos: {"id": bos, "ids": [proto.trainer_spec.bos_id], "tokens": [bos]}
            },
        },
        "decoder": {"type": "Sequence", "decoders": [{"type": "ByteFallback"}, {"type": "Fuse"}]},
        "model": {
            "type": "Unigram",
            "unk_id": proto.trainer_spec.unk_id,
            "vocab": _vocabulary(proto),
            "byte_fallback": True,
        },
    }


def _vocabulary(proto) -> list[tuple[str, float]]:
    """(text, score) of every piece.

    The tokenizers library finds every piece in a text, also those of bytes and control symbols: a
    typed <0x41> must not become the byte, so these score less than their characters one by one.
    """
    worst = min(p.score for p in proto.pieces if p.type == NORMAL)
    never = worst * (1 + max(len(p.piece) for p in proto.pieces if not _is_text(p)))

    def score(p):
        if p.type == NORMAL:
            return p.score
        return USER_DEFINED_SCORE if p.type == USER_DEFINED else never

    return [(p.piece.replace(SPACE, " "), score(p)) for p in proto.pieces]


def _is_text(piece):
    return piece.type in (NORMAL, USER_DEFINED)


def _isolated(proto) -> dict[str, Any] | None:
    """A split around those characters of <0x41>, <s>, ... that no piece of text holds.

    An unknown character scores less than any piece, so that where "<" is unknown the piece <0x41>
    would win after all. Cut off from its "<" it is not there to be found.
    """
    known = {c for p in proto.pieces if _is_text(p) for c in p.piece}
    unknown = {c for p in proto.pieces if not _is_text(p) for c in p.piece} - known
    if not unknown:
        return None
    return {
        "type": "Split",
        "pattern": {"Regex": "|".join(f"\\x{{{ord(c):X}}}" for c in sorted(unknown))},
        "behavior": "Isolated",
        "invert": False,
    }
