"""Every setting of a run: frozen dataclasses that check themselves.

This module does not import JAX, so that a launcher can read a config
before it decides which devices JAX shall see.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import math
import re
import types
import typing
from dataclasses import dataclass, field
from typing import Any, Literal

from hybriko_jax.errors import UserError

T = typing.TypeVar("T")

MESH_AXES = ("data", "fsdp", "tensor")

# Fields that change how a model is computed, not which parameters it has.
_COMPUTE = {"compute": True}


@dataclass(frozen=True, kw_only=True)
class HybriKoConfig:
    """A Griffin-style hybrid language model (arXiv:2402.19427); defaults are HybriKo-117M."""

    vocab_size: int = 32_000
    """V, pieces of the tokenizer."""
    d_model: int = 768
    """D, width of the residual stream; also W, the recurrence width."""
    n_layers: int = 12
    pattern: tuple[Literal["griffin", "attention"], ...] = ("griffin", "griffin", "attention")
    """Temporal mixing of the layers, repeated until n_layers."""
    n_heads: int = 12
    """H, query heads."""
    n_kv_heads: int = 3
    """G, key and value heads, each shared by H / G query heads."""
    ff_mult: int = 3
    """F / D, width of the gated MLP."""
    activation: Literal["gelu", "silu", "relu"] = "gelu"
    """Activation of the MLP's gate."""
    rope_theta: float = 10_000.0
    max_seq_len: int = 6144
    """Most tokens that a query sees, itself included, and the longest training row."""
    attention_window: int | None = None
    """Local attention: how many tokens a query sees, itself included. None is global."""
    conv_width: int = 0
    """Taps of a causal depthwise convolution before the RG-LRU; 0 is none."""
    logits_soft_cap: float | None = None
    """c in c tanh(logits / c)."""
    tie_embeddings: bool = True
    norm_eps: float = 1e-6

    dtype: Literal["float32", "bfloat16"] = field(default="float32", metadata=_COMPUTE)
    """Operands of the matrix products; sums, state and parameters are float32."""
    recurrence: Literal["auto", "associative", "loop"] = field(default="auto", metadata=_COMPUTE)
    """How the RG-LRU runs over time; auto is a loop on CPU, associative elsewhere."""
    remat: bool = field(default=False, metadata=_COMPUTE)
    """Recompute each block in the backward pass instead of keeping its activations."""

    def __post_init__(self):
        for name in ("vocab_size", "d_model", "n_layers", "n_heads", "n_kv_heads", "ff_mult"):
            _require(getattr(self, name) > 0, self, name, "must be positive")
        if self.d_model % self.n_heads or self.head_size % 2:
            raise UserError(
                f"d_model={self.d_model} must be n_heads={self.n_heads} times an even head size: "
                "RoPE turns channels in pairs."
            )
        if self.n_heads % self.n_kv_heads:
            raise UserError(
                f"n_heads={self.n_heads} must be a multiple of n_kv_heads={self.n_kv_heads}: "
                "kv heads are shared evenly by query heads."
            )
        if not self.pattern or set(self.pattern) - {"griffin", "attention"}:
            raise UserError(
                f"pattern={self.pattern} must name at least one of 'griffin' and 'attention'."
            )
        _require(self.max_seq_len > 0, self, "max_seq_len", "must be positive")
        _require(self.conv_width >= 0, self, "conv_width", "must be 0 (off) or more")
        if self.attention_window is not None:
            _require(self.attention_window > 0, self, "attention_window", "must be positive")
        if self.logits_soft_cap is not None:
            _require(self.logits_soft_cap > 0, self, "logits_soft_cap", "must be positive")

    @property
    def head_size(self) -> int:
        """K."""
        return self.d_model // self.n_heads

    @property
    def d_ff(self) -> int:
        """F."""
        return self.ff_mult * self.d_model

    @property
    def window(self) -> int:
        """How far attention looks back, in tokens, the query itself included."""
        return min(self.attention_window or self.max_seq_len, self.max_seq_len)

    @property
    def layer_types(self) -> tuple[str, ...]:
        return tuple(self.pattern[i % len(self.pattern)] for i in range(self.n_layers))


@dataclass(frozen=True, kw_only=True)
class GPTNeoXConfig:
    """A GPT-NeoX language model (arXiv:2204.06745); defaults are Polyglot-ko-1.3B."""

    vocab_size: int = 30_080
    """V, rows of the embedding; the tokenizer may have fewer pieces."""
    d_model: int = 2048
    """D, width of the residual stream."""
    n_layers: int = 24
    n_heads: int = 16
    """H."""
    d_ff: int = 8192
    """F, width of the MLP."""
    activation: Literal["gelu", "gelu_tanh", "relu", "silu"] = "gelu"
    """gelu is exact, gelu_tanh its approximation."""
    rotary_fraction: float = 0.5
    """Share of a head's channels that RoPE turns; the first ones."""
    rope_theta: float = 10_000.0
    max_seq_len: int = 2048
    """Most tokens that a query sees, itself included, and the longest training row."""
    parallel_residual: bool = True
    """Attention and MLP read the same input; else the MLP reads what attention added to."""
    attention_bias: bool = True
    tie_embeddings: bool = False
    norm_eps: float = 1e-5

    dtype: Literal["float32", "bfloat16"] = field(default="float32", metadata=_COMPUTE)
    """Operands of the matrix products; sums and parameters that are trained are float32."""
    remat: bool = field(default=False, metadata=_COMPUTE)
    """Recompute each block in the backward pass instead of keeping its activations."""

    def __post_init__(self):
        for name in ("vocab_size", "d_model", "n_layers", "n_heads", "d_ff", "max_seq_len"):
            _require(getattr(self, name) > 0, self, name, "must be positive")
        if self.d_model % self.n_heads:
            raise UserError(f"d_model={self.d_model} must be a multiple of n_heads={self.n_heads}.")
        _require(0 < self.rotary_fraction <= 1, self, "rotary_fraction", "must be in (0, 1]")
        if self.rotary_size < 2 or self.rotary_size % 2:
            raise UserError(
                f"rotary_fraction={self.rotary_fraction} of a head of {self.head_size} channels is "
                f"{self.rotary_size}, which must be even: RoPE turns channels in pairs."
            )

    @property
    def head_size(self) -> int:
        """K."""
        return self.d_model // self.n_heads

    @property
    def rotary_size(self) -> int:
        """Channels of a head that RoPE turns."""
        return int(self.rotary_fraction * self.head_size)

    @property
    def window(self) -> int:
        """How far attention looks back, in tokens, the query itself included."""
        return self.max_seq_len

    @property
    def logits_soft_cap(self) -> None:
        """Logits are not capped."""


ModelConfig = HybriKoConfig | GPTNeoXConfig


@dataclass(frozen=True, kw_only=True)
class LoRAConfig:
    """Low-rank adapters (arXiv:2106.09685), the only thing that is trained where they are used."""

    rank: int = 8
    """R."""
    alpha: float = 32.0
    """The product of the two factors is scaled by alpha / rank."""
    dropout: float = 0.0
    """Of the adapters' input, in training."""
    targets: str = "query_key_value"
    """A regular expression; adapted is every matrix whose path it is found in, such as
    layers_0/attention/query_key_value/kernel."""
    rslora: bool = False
    """Scale by alpha / sqrt(rank) instead (arXiv:2312.03732)."""
    base: str = ""
    """What is adapted: a model's folder, a run's workdir, or a name on the Hugging Face Hub."""
    precision: Literal["float32", "bfloat16", "nf4"] = "float32"
    """How the base is kept; nf4 quantises the layers' matrices (QLoRA, arXiv:2305.14314) and keeps
    embedding and head in bfloat16."""

    def __post_init__(self):
        _require(self.rank > 0, self, "rank", "must be positive")
        _require(self.alpha > 0, self, "alpha", "must be positive")
        _require(0 <= self.dropout < 1, self, "dropout", "must be in [0, 1)")
        try:
            re.compile(self.targets)
        except re.error as e:
            raise UserError(
                f"lora.targets={self.targets!r} is no regular expression ({e})."
            ) from None

    @property
    def scale(self) -> float:
        return self.alpha / (math.sqrt(self.rank) if self.rslora else self.rank)


@dataclass(frozen=True, kw_only=True)
class TokenizerConfig:
    path: str | None = None
    """A SentencePiece model. None trains one on the data, in the workdir."""
    train_megabytes: float = 64.0
    """How much text a new tokenizer is trained on, sampled over all sources."""
    character_coverage: float = 0.9995
    """Share of characters that get pieces; the rest is spelled in bytes."""


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    source: tuple[str, ...] = ("sample",)
    """'sample', hf:OWNER/NAME@REVISION:GLOB, tfds:NAME or DIRECTORY, files, directories, globs."""
    weights: tuple[float, ...] = ()
    """Passes over each source in one epoch: 2 reads it twice, 0.5 a random half. () is all 1."""
    text_field: str = "text"
    """Field of JSONL, Parquet and TFDS records that holds the document."""
    held_out: float = 0.01
    """Share of documents kept for evaluation, chosen by the hash of their text."""
    on_bad_line: Literal["skip", "refuse"] = "skip"
    """A malformed line or text that is not UTF-8: skip and count it, or stop there."""
    cache: str | None = None
    """Where prepared datasets are kept. None is WORKDIR/data."""

    def __post_init__(self):
        if not self.source:
            raise UserError("data.source is empty. Name files, or 'sample'.")
        if self.weights and len(self.weights) != len(self.source):
            raise UserError(
                f"data.weights has {len(self.weights)} numbers for {len(self.source)} sources. "
                "Give one for each, or none."
            )
        if any(not (math.isfinite(w) and w >= 0) for w in self.weights) or (
            self.weights and not any(self.weights)
        ):
            raise UserError(
                f"data.weights={self.weights} must be finite, not negative, and not all 0: each is "
                "the number of passes over its source in one epoch."
            )
        if not 0 < self.held_out < 1:
            raise UserError(f"data.held_out={self.held_out} must be between 0 and 1.")


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """AdamW or Muon, with decoupled weight decay on matrices only."""

    name: Literal["adamw", "muon"] = "adamw"
    """muon orthogonalizes the updates of kernels; embeddings and vectors take AdamW's."""
    learning_rate: float = 1e-3
    """Peak; one for both, since Muon's updates are scaled to the size of AdamW's."""
    schedule: Literal["cosine", "wsd", "constant"] = "cosine"
    """After the warm-up: cosine decay; stable, then linear decay; or constant."""
    warmup_steps: int = 100
    decay_fraction: float = 0.2
    """Share of the steps after the warm-up that WSD spends in its decay."""
    final_fraction: float = 0.1
    """Learning rate at the end, as a share of the peak."""
    b1: float = 0.9
    b2: float = 0.95
    eps: float = 1e-8
    weight_decay: float = 0.1
    clip_norm: float = 1.0
    """Largest global norm of the gradient."""

    def __post_init__(self):
        _require(self.learning_rate > 0, self, "learning_rate", "must be positive")
        _require(self.warmup_steps >= 0, self, "warmup_steps", "must be 0 or more")
        _require(0 < self.decay_fraction <= 1, self, "decay_fraction", "must be in (0, 1]")
        _require(0 <= self.final_fraction <= 1, self, "final_fraction", "must be in [0, 1]")
        _require(0 <= self.b1 < 1 and 0 <= self.b2 < 1, self, "b1", "and b2 must be in [0, 1)")
        _require(self.clip_norm > 0, self, "clip_norm", "must be positive")
        _require(self.weight_decay >= 0, self, "weight_decay", "must be 0 or more")


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    steps: int = 1000
    """Optimizer steps."""
    epochs: float | None = None
    """Passes over the data; counts the steps where it is given."""
    batch_size: int = 16
    """B, rows of a step over all devices."""
    seq_len: int = 512
    """L, tokens of a row."""
    accumulation: int = 1
    """Parts that a batch is computed in, one after the other, to save memory."""
    loss_chunk: int = 512
    """Tokens of a row whose logits exist at one time."""
    z_loss: float = 0.0
    """Weight of the squared log-partition; 1e-4 keeps logits from drifting."""
    max_bad_steps: int = 5
    """Abort after so many steps in a row with a loss or gradient that is not finite."""
    eval_every: int = 100
    eval_batches: int = 8
    """Held-out batches an evaluation reads, always the same ones."""
    save_every: int = 100
    keep_last: int = 2
    """Newest checkpoints kept; the best by held-out loss is kept too."""
    log_every: int = 10
    seed: int = 0

    def __post_init__(self):
        for name in (
            *("steps", "batch_size", "seq_len", "accumulation", "loss_chunk", "max_bad_steps"),
            *("eval_every", "eval_batches", "save_every", "keep_last", "log_every"),
        ):
            _require(getattr(self, name) > 0, self, name, "must be positive")
        if self.epochs is not None:
            _require(self.epochs > 0, self, "epochs", "must be positive")
        if self.batch_size % self.accumulation:
            raise UserError(
                f"train.batch_size={self.batch_size} must be a multiple of "
                f"accumulation={self.accumulation}: each part has equally many rows."
            )


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """All that decides a training run, except the machine it runs on."""

    model: ModelConfig = field(default_factory=HybriKoConfig)
    tokenizer: TokenizerConfig = field(default_factory=TokenizerConfig)
    data: DataConfig = field(default_factory=DataConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    lora: LoRAConfig | None = None
    """Train adapters only; None trains all parameters."""

    def __post_init__(self):
        if self.train.seq_len > self.model.max_seq_len:
            raise UserError(
                f"train.seq_len={self.train.seq_len} is longer than model.max_seq_len="
                f"{self.model.max_seq_len}. Shorten the rows or raise max_seq_len."
            )
        if self.optimizer.warmup_steps > self.train.steps:
            raise UserError(
                f"optimizer.warmup_steps={self.optimizer.warmup_steps} is more than train.steps="
                f"{self.train.steps}: the learning rate would never reach its peak."
            )

    @property
    def tokens_per_step(self) -> int:
        return self.train.batch_size * self.train.seq_len


def parse_mesh(text: str) -> dict[str, int]:
    """Sizes of the mesh axes from "8" or "data=2,fsdp=2,tensor=2".

    A single number is FSDP: parameters, optimizer state and batch are all split that many ways.

    Raises:
      UserError: an axis is unknown or named twice, or a size is not a positive integer.
    """
    sizes: dict[str, int] = {}
    for part in [f"fsdp={text}"] if text.strip().isdigit() else text.split(","):
        name, _, size = (s.strip() for s in part.partition("="))
        if name not in MESH_AXES or name in sizes or not size.isdigit() or int(size) < 1:
            raise UserError(
                f"--mesh {text}: cannot read {part.strip()!r}. Give a number of devices (8) or "
                f"sizes by name, each once ({', '.join(f'{a}=2' for a in MESH_AXES)})."
            )
        sizes[name] = int(size)
    return {name: sizes.get(name, 1) for name in MESH_AXES}


def to_json(config: Any) -> str:
    """A config as indented JSON."""
    return json.dumps(dataclasses.asdict(config), indent=2, ensure_ascii=False) + "\n"


def from_json(cls: type[T], text: str) -> T:
    """The config that `to_json` wrote.

    Raises:
      UserError: a field is unknown (the nearest name is given) or a value is refused.
    """
    try:
        values = json.loads(text)
    except ValueError as e:
        raise UserError(f"{cls.__name__}: not JSON ({e}).") from None
    return _build(cls, values, cls.__name__)


def nearest(name: str, known: typing.Iterable[str]) -> str:
    """' Did you mean X?' for a mistyped name, or the known names where none is near."""
    known = sorted(known)
    near = difflib.get_close_matches(name, known, n=1)
    return f" Did you mean {near[0]}?" if near else f" Known: {', '.join(known)}."


def model_differences(old: ModelConfig, new: ModelConfig) -> list[str]:
    """'field: old -> new' for every field that decides which parameters a model has."""
    if type(old) is not type(new):
        return [f"model: {type(old).__name__} -> {type(new).__name__}"]
    return [
        f"model.{f.name}: {getattr(old, f.name)} -> {getattr(new, f.name)}"
        for f in dataclasses.fields(old)
        if not f.metadata.get("compute") and getattr(old, f.name) != getattr(new, f.name)
    ]


def _require(ok: bool, config: Any, name: str, rule: str) -> None:
    if not ok:
        raise UserError(f"{type(config).__name__}.{name}={getattr(config, name)} {rule}.")


def _member(kinds: tuple[Any, ...], value: Any) -> Any:
    """The member of a union that has all the fields of a value; the first where none has."""
    for kind in kinds:
        if dataclasses.is_dataclass(kind) and set(value) <= set(typing.get_type_hints(kind)):
            return kind
    return kinds[0]


def _build(kind: Any, value: Any, where: str) -> Any:
    if dataclasses.is_dataclass(kind):
        hints = typing.get_type_hints(kind)
        for name in value:
            if name not in hints:
                raise UserError(f"{where} has no field {name!r}.{nearest(name, hints)}")
        make: Any = kind
        return make(**{k: _build(hints[k], v, f"{where}.{k}") for k, v in value.items()})
    origin = typing.get_origin(kind)
    if origin in (types.UnionType, typing.Union):
        return (
            None if value is None else _build(_member(typing.get_args(kind), value), value, where)
        )
    if origin is tuple:
        return tuple(_build(typing.get_args(kind)[0], v, where) for v in value)
    return value
