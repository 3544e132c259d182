"""Configuration of HybriKo, a hybrid of gated linear recurrences and attention."""

from transformers import PreTrainedConfig


class HybriKoConfig(PreTrainedConfig):
    """Every setting of the model; the defaults are HybriKo-117M's.

    Args:
      hidden_size: width of the residual stream, and of the recurrence.
      intermediate_size: width of the gated MLP.
      num_key_value_heads: each is shared by equally many query heads.
      hidden_act: activation of the MLP's gate.
      max_position_embeddings: most tokens that a query sees, itself included.
      sliding_window: a smaller such number; None is none.
      conv_width: taps of a causal convolution before the recurrence; 0 is no convolution.
      logits_soft_cap: c in c tanh(logits / c); None is no cap.
      layer_types: "linear_attention" (a recurrence) or "full_attention" for each layer. By
        default every third layer is attention.
      rope_parameters: {"rope_type": "default", "rope_theta": ...}.
    """

    model_type = "hybriko"
    keys_to_ignore_at_inference = ["past_key_values"]

    vocab_size: int = 32_000
    hidden_size: int = 768
    intermediate_size: int = 2304
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    num_key_value_heads: int = 3
    hidden_act: str = "gelu_pytorch_tanh"
    max_position_embeddings: int = 6144
    sliding_window: int | None = None
    conv_width: int = 0
    logits_soft_cap: float | None = None
    rms_norm_eps: float = 1e-6
    rope_parameters: dict | None = None
    layer_types: list[str] | None = None
    tie_word_embeddings: bool = True
    use_cache: bool = True
    pad_token_id: int | None = 0
    bos_token_id: int | None = 2
    eos_token_id: int | list[int] | None = 3

    def __post_init__(self, **kwargs):
        if self.layer_types is None:
            self.layer_types = [
                "full_attention" if i % 3 == 2 else "linear_attention"
                for i in range(self.num_hidden_layers)
            ]
        if "full_attention" not in self.layer_types:
            self.use_cache = False  # a cache counts its tokens in an attention layer
        super().__post_init__(**kwargs)
        self._check()

    @property
    def head_dim(self) -> int:
        """Channels of a head."""
        return self.hidden_size // self.num_attention_heads

    @property
    def window(self) -> int:
        """Most tokens that a query sees, itself included."""
        return min(
            self.sliding_window or self.max_position_embeddings, self.max_position_embeddings
        )

    def _check(self):
        if self.hidden_size % self.num_attention_heads or self.head_dim % 2:
            raise ValueError(
                f"hidden_size={self.hidden_size} must be num_attention_heads="
                f"{self.num_attention_heads} times an even number."
            )
        if self.num_attention_heads % self.num_key_value_heads:
            raise ValueError(
                f"num_attention_heads={self.num_attention_heads} must be a multiple of "
                f"num_key_value_heads={self.num_key_value_heads}."
            )
        if len(self.layer_types) != self.num_hidden_layers or set(self.layer_types) - {
            "linear_attention",
            "full_attention",
        }:
            raise ValueError(
                f"layer_types={self.layer_types} must name 'linear_attention' or 'full_attention' "
                f"for each of num_hidden_layers={self.num_hidden_layers} layers."
            )
        if (kind := self.rope_parameters["rope_type"]) != "default":
            raise ValueError(f"rope_type={kind!r} is not supported, only 'default'.")


__all__ = ["HybriKoConfig"]
