"""HybriKo: a hybrid of gated linear recurrences and attention (Griffin, arXiv:2402.19427).

A tensor's name ends in its axes: B batch, L time, M key time, D model width, H query heads,
G key and value heads, K head size, E rotary pairs, W recurrence width, V vocabulary.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import GenerationMixin, PreTrainedModel
from transformers import initialization as init
from transformers.activations import ACT2FN
from transformers.cache_utils import Cache, DynamicCache
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.utils import can_return_tuple
from transformers.utils.output_capturing import capture_outputs

from .configuration_hybriko import HybriKoConfig


def scan(a_BLW: Tensor, b_BLW: Tensor) -> Tensor:
    """h_t = a_t h_{t-1} + b_t over axis 1, from h = 0, in O(log L) steps over all of time.

    Two steps of the recurrence are one of the same kind: the pairs are solved first, at half the
    length, and give every second h; the others follow from the one before.
    """
    L = b_BLW.shape[1]
    if L == 1:
        return b_BLW
    end = L - L % 2
    first_a, second_a = a_BLW[:, 0:end:2], a_BLW[:, 1:end:2]
    first_b, second_b = b_BLW[:, 0:end:2], b_BLW[:, 1:end:2]
    second_h = scan(first_a * second_a, torch.addcmul(second_b, second_a, first_b))
    h_BLW = torch.empty_like(b_BLW)
    h_BLW[:, 0] = b_BLW[:, 0]
    h_BLW[:, 1::2] = second_h
    rest = (L - 1) // 2
    h_BLW[:, 2::2] = torch.addcmul(b_BLW[:, 2::2], a_BLW[:, 2::2], second_h[:, :rest])
    return h_BLW


class LinearRecurrence(torch.autograd.Function):
    """h_t = a_t h_{t-1} + b_t over axis 1, with a gradient that is the same scan, run backwards."""

    @staticmethod
    def forward(ctx, a_BLW, b_BLW, h0_BW):
        if h0_BW is not None:
            b0_BW = torch.addcmul(b_BLW[:, 0], a_BLW[:, 0], h0_BW)
            b_BLW = torch.cat([b0_BW[:, None], b_BLW[:, 1:]], dim=1)
        h_BLW = scan(a_BLW, b_BLW)
        ctx.save_for_backward(a_BLW, h_BLW, h0_BW)
        return h_BLW

    @staticmethod
    def backward(ctx, g_BLW):
        a_BLW, h_BLW, h0_BW = ctx.saved_tensors
        # d_t = g_t + a_{t+1} d_{t+1}; the scan does not read its first factor.
        later_a_BLW = a_BLW.roll(-1, dims=1)
        d_BLW = scan(later_a_BLW.flip(1), g_BLW.flip(1)).flip(1)
        before_BW = torch.zeros_like(h_BLW[:, 0]) if h0_BW is None else h0_BW
        da_BLW = d_BLW * torch.cat([before_BW[:, None], h_BLW[:, :-1]], dim=1)
        return da_BLW, d_BLW, None if h0_BW is None else a_BLW[:, 0] * d_BLW[:, 0]


def linear_recurrence(a_BLW: Tensor, b_BLW: Tensor, h0_BW: Tensor | None) -> Tensor:
    """h_t = a_t h_{t-1} + b_t over axis 1; h0 is the state before, None for 0."""
    if b_BLW.shape[1] > 1:
        return LinearRecurrence.apply(a_BLW, b_BLW, h0_BW)
    return b_BLW if h0_BW is None else torch.addcmul(b_BLW, a_BLW, h0_BW[:, None])


def linear(inputs: int, outputs: int, init_scale: float = 1.0) -> nn.Linear:
    """A dense layer; init_scale is the variance of its initial weights times `inputs`."""
    layer = nn.Linear(inputs, outputs, bias=False)
    layer.init_scale = init_scale
    return layer


def residual_scale(config: HybriKoConfig) -> float:
    """init_scale that keeps the residual stream at a variance of order one, at any depth."""
    return 1 / (2 * config.num_hidden_layers)  # two additions a layer


class RGLRU(nn.Module):
    """The real-gated linear recurrent unit. Source: Griffin, section 2.4.

    h_t = a_t h_{t-1} + sqrt(1 - a_t^2) (i_t x_t),  a_t = sigmoid(lam)^(8 r_t)
    """

    def __init__(self, config: HybriKoConfig):
        super().__init__()
        width = config.hidden_size
        self.recurrence_gate = linear(width, width)
        self.input_gate = linear(width, width)
        # Decay logits; float32 in every precision, as decays close to 1 are the memory.
        self.lam = nn.Parameter(torch.empty(width, dtype=torch.float32))

    def forward(
        self, x_BLW: Tensor, starts_BL: Tensor, real_BL: Tensor | None, h0_BW: Tensor | None
    ) -> Tensor:
        """All states h_BLW, in float32.

        Args:
          starts_BL: True on a document's first token, where h is forgotten.
          real_BL: False on padding, which passes h on as it is; None is no padding.
          h0_BW: state before the first token, float32; None is 0.
        """
        r_BLW = torch.sigmoid(self.recurrence_gate(x_BLW).float())
        i_BLW = torch.sigmoid(self.input_gate(x_BLW).float())
        log_a_BLW = 8.0 * r_BLW * F.logsigmoid(self.lam.float())
        log_a_BLW = log_a_BLW.masked_fill(starts_BL[..., None], -torch.inf)
        a_BLW = torch.exp(log_a_BLW)
        # expm1 keeps 1 - a^2 exact where a is near one.
        b_BLW = _sqrt(-torch.expm1(2 * log_a_BLW)) * (i_BLW * x_BLW.float())
        if real_BL is not None:
            padding_BL1 = ~real_BL[..., None]
            a_BLW, b_BLW = a_BLW.masked_fill(padding_BL1, 1.0), b_BLW.masked_fill(padding_BL1, 0.0)
        return linear_recurrence(a_BLW, b_BLW, h0_BW)


def _sqrt(x: Tensor) -> Tensor:
    # Equal to sqrt(x); its derivative stays finite where a gate is shut and x is 0.
    return x * torch.rsqrt(x.clamp(min=1e-12))


class TemporalConv(nn.Module):
    """y_t = sum_c weight_c x_{t-c}, depthwise, never reaching across a document's start."""

    def __init__(self, config: HybriKoConfig):
        super().__init__()
        self.width = config.conv_width
        self.weight = nn.Parameter(torch.empty(config.hidden_size, self.width))

    def forward(
        self,
        x_BLW: Tensor,
        positions_BL: Tensor,
        real_BL: Tensor | None,
        before_BCW: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        """y_BLW, and the last width - 1 real inputs; before_BCW are those before x."""
        (B, L, W), past = x_BLW.shape, self.width - 1
        if before_BCW is None:
            before_BCW = x_BLW.new_zeros(B, past, W)
        x_BXW = torch.cat([before_BCW.to(x_BLW.dtype), x_BLW], dim=1)
        if real_BL is None:
            taps = [x_BXW[:, past - c : past - c + L] for c in range(self.width)]
            last_BCW = x_BXW[:, L:]
        else:
            # Padding may stand anywhere, so a tap reads the c-th real input before a token: the
            # slots of real inputs are listed in order, and `nth` is a token's place in the list.
            real_BX = F.pad(real_BL, (past, 0), value=True)
            slots_BX = torch.argsort(~real_BX, dim=1, stable=True)
            nth_BL = real_BX.cumsum(1)[:, past:] - 1

            def inputs(nth_BN):
                slot_BN = slots_BX.gather(1, nth_BN.clamp(min=0))  # padding may have none
                return x_BXW.gather(1, slot_BN[..., None].expand(-1, -1, W))

            taps = [inputs(nth_BL - c) for c in range(self.width)]
            last_BCW = inputs(nth_BL[:, -1:] - past + 1 + torch.arange(past, device=x_BLW.device))
        y_BLW = torch.zeros_like(x_BLW)
        for c, tap_BLW in enumerate(taps):
            inside_BL1 = (positions_BL >= c)[..., None]
            y_BLW = y_BLW + torch.where(inside_BL1, tap_BLW, 0) * self.weight[:, c]
        return y_BLW, last_BCW


class HybriKoGriffin(nn.Module):
    """Recurrent mixing: out(rg_lru(conv(x)) * gelu(gate(x)))."""

    def __init__(self, config: HybriKoConfig, layer_idx: int):
        super().__init__()
        width = config.hidden_size
        self.layer_idx = layer_idx
        self.gate_proj = linear(width, width)
        self.x_proj = linear(width, width)
        self.conv = TemporalConv(config) if config.conv_width else None
        self.rg_lru = RGLRU(config)
        self.out_proj = linear(width, width, residual_scale(config))

    def forward(
        self,
        hidden_states: Tensor,
        attention_mask: Tensor | None,
        position_ids: Tensor,
        past_key_values: Cache | None = None,
        **kwargs,
    ) -> Tensor:
        """Args: attention_mask is real_BL of `create_masks`, for this layer's tokens."""
        cache, i = past_key_values, self.layer_idx
        starts_BL = position_ids == 0
        if attention_mask is not None:
            starts_BL = starts_BL & attention_mask
        gate_BLW = F.gelu(self.gate_proj(hidden_states), approximate="tanh")
        x_BLW = self.x_proj(hidden_states)
        # Both are read before either is written: writing marks the layer as having a state.
        h0_BW = None if cache is None else cache.get_recurrent_state(i)
        before_BWC = None if cache is None else cache.get_conv_state(i)
        if self.conv is not None:
            before_BCW = None if before_BWC is None else before_BWC.mT
            x_BLW, last_BCW = self.conv(x_BLW, position_ids, attention_mask, before_BCW)
            if cache is not None and last_BCW.shape[1]:
                cache.update_conv_state(last_BCW.mT.contiguous(), i)
        h_BLW = self.rg_lru(x_BLW, starts_BL, attention_mask, h0_BW)
        if cache is not None:
            cache.update_recurrent_state(h_BLW[:, -1], i)
            # The cache itself does this for convolutions only; without it, decoding would start
            # from 0 at every token.
            cache.layers[i].has_previous_state[0] = True
        return self.out_proj(h_BLW.to(x_BLW.dtype) * gate_BLW)


def rope(position_ids: Tensor, config: HybriKoConfig) -> tuple[Tensor, Tensor]:
    """cos_BLE and sin_BLE of the rotary angles, float32. Source: RoFormer, arXiv:2104.09864."""
    theta, K = config.rope_parameters["rope_theta"], config.head_dim
    # In float32, some frequencies would be off by a last digit, which turns position 2000 by 1e-4.
    precise = torch.float32 if position_ids.device.type == "mps" else torch.float64
    exponent_E = torch.arange(0, K, 2, dtype=precise, device=position_ids.device) / K
    angles_BLE = position_ids[..., None].float() * (theta**-exponent_E).float()
    return angles_BLE.cos(), angles_BLE.sin()


def rotate(x_BHLK: Tensor, cos_BLE: Tensor, sin_BLE: Tensor) -> Tensor:
    """x turned by the angles; channel e is paired with channel e + K / 2."""
    cos_B1LE, sin_B1LE = cos_BLE[:, None], sin_BLE[:, None]
    left_BHLE, right_BHLE = x_BHLK.chunk(2, dim=-1)
    turned_BHLK = torch.cat(
        [
            left_BHLE * cos_B1LE - right_BHLE * sin_B1LE,
            right_BHLE * cos_B1LE + left_BHLE * sin_B1LE,
        ],
        dim=-1,
    )
    return turned_BHLK.to(x_BHLK.dtype)


def eager_attention_forward(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    **kwargs,
) -> tuple[Tensor, Tensor]:
    """Softmax attention of query_BHLK over key_BGMK and value_BGMK; the mask is True if visible."""
    key_BHMK = key.repeat_interleave(module.num_key_value_groups, dim=1)
    value_BHMK = value.repeat_interleave(module.num_key_value_groups, dim=1)
    logits_BHLM = (query @ key_BHMK.mT).float() * scaling
    if attention_mask is not None:
        logits_BHLM = logits_BHLM.masked_fill(~attention_mask, -torch.inf)
    p_BHLM = torch.softmax(logits_BHLM, dim=-1).to(query.dtype)
    p_BHLM = F.dropout(p_BHLM, p=dropout, training=module.training)
    return (p_BHLM @ value_BHMK).transpose(1, 2).contiguous(), p_BHLM


class HybriKoAttention(nn.Module):
    """Causal grouped-query attention with RoPE."""

    def __init__(self, config: HybriKoConfig, layer_idx: int):
        super().__init__()
        self.config, self.layer_idx = config, layer_idx
        self.head_dim = config.head_dim
        self.scaling = self.head_dim**-0.5
        self.is_causal = True
        # Query heads that share a key and value head.
        self.num_key_value_groups = config.num_attention_heads // config.num_key_value_heads
        D, G = config.hidden_size, config.num_key_value_heads * self.head_dim
        self.q_proj = linear(D, D)
        self.k_proj = linear(D, G)
        self.v_proj = linear(D, G)
        self.o_proj = linear(D, D, residual_scale(config))

    def forward(
        self,
        hidden_states: Tensor,
        attention_mask: Tensor | None,
        position_embeddings: tuple[Tensor, Tensor],
        past_key_values: Cache | None = None,
        **kwargs,
    ) -> tuple[Tensor, Tensor | None]:
        """Args: attention_mask is visible_B1LM of `create_masks`."""
        B, L, _ = hidden_states.shape

        def heads(x):
            return x.view(B, L, -1, self.head_dim).transpose(1, 2)

        q_BHLK = rotate(heads(self.q_proj(hidden_states)), *position_embeddings)
        k_BGMK = rotate(heads(self.k_proj(hidden_states)), *position_embeddings)
        v_BGMK = heads(self.v_proj(hidden_states))
        if past_key_values is not None:
            k_BGMK, v_BGMK = past_key_values.update(k_BGMK, v_BGMK, self.layer_idx)
        attend: Callable = ALL_ATTENTION_FUNCTIONS.get_interface(
            self.config._attn_implementation, eager_attention_forward
        )
        y_BLHK, p_BHLM = attend(
            self, q_BHLK, k_BGMK, v_BGMK, attention_mask, scaling=self.scaling, **kwargs
        )
        return self.o_proj(y_BLHK.reshape(B, L, -1)), p_BHLM


class HybriKoMLP(nn.Module):
    """Gated: down(activation(gate(x)) * up(x))."""

    def __init__(self, config: HybriKoConfig):
        super().__init__()
        self.activation = ACT2FN[config.hidden_act]
        width = config.intermediate_size
        self.gate_proj = linear(config.hidden_size, width)
        self.up_proj = linear(config.hidden_size, width)
        self.down_proj = linear(width, config.hidden_size, residual_scale(config))

    def forward(self, hidden_states: Tensor) -> Tensor:
        gate = self.activation(self.gate_proj(hidden_states))
        return self.down_proj(gate * self.up_proj(hidden_states))


class HybriKoRMSNorm(nn.Module):
    """x / rms(x) * weight, in float32."""

    def __init__(self, config: HybriKoConfig):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(config.hidden_size))
        self.eps = config.rms_norm_eps

    def forward(self, x: Tensor) -> Tensor:
        y = x.float()
        y = y * torch.rsqrt(y.square().mean(-1, keepdim=True) + self.eps) * self.weight.float()
        return y.to(x.dtype)


class HybriKoLayer(GradientCheckpointingLayer):
    """Temporal mixing, then an MLP, each behind a norm and added to the residual stream."""

    def __init__(self, config: HybriKoConfig, layer_idx: int):
        super().__init__()
        self.mixing_norm = HybriKoRMSNorm(config)
        if config.layer_types[layer_idx] == "full_attention":
            self.attention = HybriKoAttention(config, layer_idx)
        else:
            self.griffin = HybriKoGriffin(config, layer_idx)
        self.mlp_norm = HybriKoRMSNorm(config)
        self.mlp = HybriKoMLP(config)

    def forward(self, hidden_states: Tensor, **kwargs) -> Tensor:
        mixed = self.mixing_norm(hidden_states)
        if hasattr(self, "attention"):
            mixed, _ = self.attention(mixed, **kwargs)
        else:
            mixed = self.griffin(mixed, **kwargs)
        hidden_states = hidden_states + mixed
        return hidden_states + self.mlp(self.mlp_norm(hidden_states))


def create_masks(
    config: HybriKoConfig,
    inputs_embeds: Tensor,
    attention_mask: Tensor | None,
    past_key_values: Cache | None,
    position_ids: Tensor | None,
    **kwargs,
) -> dict[str, Tensor | None]:
    """What each kind of layer may see.

    A key is visible if 0 <= distance <= min(position of the query, window - 1). The distance
    counts real tokens, so padding may stand anywhere, and a position that restarts at 0 hides the
    documents before.

    Args:
      inputs_embeds: of the new tokens; only its shape (B, L, ...) is used.
      attention_mask: (B, earlier tokens + L), 0 on padding; None is no padding.
      position_ids: (B or 1, L), distance from the document's start. None is one document a row.

    Returns:
      "full_attention": visible_B1LM, or None if all before is visible; "linear_attention":
      real_BL, False on padding, or None if there is none.
    """
    L, device = inputs_embeds.shape[1], inputs_embeds.device
    past = 0 if past_key_values is None else past_key_values.get_seq_length()
    slots_L = torch.arange(L, device=device) + past
    if attention_mask is not None:
        attention_mask = _checked(attention_mask, past, L).to(device)
        # Without padding, faster kernels need no mask; but to look takes values.
        if not torch.compiler.is_compiling() and attention_mask.all():
            attention_mask = None
    real_BL = None if attention_mask is None else attention_mask[:, -L:]
    masks = {"full_attention": None, "linear_attention": real_BL}
    if "full_attention" not in config.layer_types:
        return masks

    M = L if past_key_values is None else past_key_values.get_mask_sizes(L, 0)[0]
    if _is_plain(config, attention_mask, position_ids, slots_L, M):
        return masks
    if position_ids is None:
        position_ids = default_positions(attention_mask, past, L, device)
    keys_M = torch.arange(M, device=device)
    if attention_mask is None:
        key_BM, last_BL = keys_M[None], slots_L[None]
    else:
        real_BM = F.pad(attention_mask, (0, M - attention_mask.shape[1]))
        key_BM = real_BM.cumsum(1)
        last_BL = key_BM[:, slots_L]
        key_BM = key_BM.masked_fill(~real_BM, M + 1)  # after everything
    first_BL = last_BL - position_ids.clamp(max=config.window - 1)
    visible_BLM = (first_BL[..., None] <= key_BM[:, None]) & (key_BM[:, None] <= last_BL[..., None])
    # Padding sees itself: a softmax over nothing would be NaN.
    visible_BLM = visible_BLM | (slots_L[:, None] == keys_M)
    masks["full_attention"] = visible_BLM[:, None].expand(inputs_embeds.shape[0], -1, -1, -1)
    return masks


def _checked(attention_mask, past, L):
    if attention_mask.ndim != 2:
        raise ValueError(
            f"attention_mask has shape {tuple(attention_mask.shape)}; (batch, tokens) is supported."
        )
    if isinstance(past, int) and attention_mask.shape[1] != past + L:
        raise ValueError(
            f"attention_mask is of {attention_mask.shape[1]} tokens; it must be of the {past} in "
            f"the cache and the {L} new ones."
        )
    return attention_mask.bool()


def _is_plain(config, attention_mask, position_ids, slots_L, M):
    """Whether a kernel's own causal mask is all that is needed."""
    L = slots_L.shape[0]
    if config._attn_implementation != "sdpa" or attention_mask is not None:
        return False
    if M != L or L > config.window:
        return False
    if position_ids is None:
        return True
    return not torch.compiler.is_compiling() and bool((position_ids == slots_L).all())


def default_positions(
    attention_mask: Tensor | None, past: int | Tensor, L: int, device: torch.device
) -> Tensor:
    """position_ids_BL of L tokens after `past`, if every row is one document."""
    if attention_mask is None:
        return (torch.arange(L, device=device) + past)[None]
    return (attention_mask.long().cumsum(1) - 1).clamp(min=0)[:, -L:]


class HybriKoPreTrainedModel(PreTrainedModel):
    """How the parameters start, and what of transformers works with the model."""

    config: HybriKoConfig
    config_class = HybriKoConfig
    base_model_prefix = "model"
    supports_gradient_checkpointing = True
    _no_split_modules = ["HybriKoLayer"]
    _skip_keys_device_placement = ["past_key_values"]
    _keep_in_fp32_modules_strict = ["lam"]
    _supports_sdpa = True
    _can_compile_fullgraph = True
    _is_stateful = True
    _can_record_outputs = {"hidden_states": HybriKoLayer, "attentions": HybriKoAttention}

    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.Linear):
            # Cut off at two deviations, which takes 12 % off the deviation.
            scale = getattr(module, "init_scale", 1.0)
            std = (scale / module.in_features) ** 0.5 / 0.87962566103423978
            init.trunc_normal_(module.weight, std=std, a=-2 * std, b=2 * std)
        elif isinstance(module, nn.Embedding):
            init.normal_(module.weight, std=0.02)
        elif isinstance(module, HybriKoRMSNorm):
            init.ones_(module.weight)
        elif isinstance(module, TemporalConv):
            init.normal_(module.weight, std=module.width**-0.5)
        elif isinstance(module, RGLRU):
            # a^8 is uniform in (0.9, 0.999). Source: Griffin, section 2.4.
            log_a_W = torch.empty_like(module.lam).uniform_(0.9, 0.999).log() / 8
            init.copy_(module.lam, log_a_W - torch.log(-torch.expm1(log_a_W)))


class HybriKoModel(HybriKoPreTrainedModel):
    """Tokens to hidden states."""

    def __init__(self, config: HybriKoConfig):
        super().__init__(config)
        # No padding_idx: padding is masked, and the tied output trains that row as any other.
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(
            HybriKoLayer(config, i) for i in range(config.num_hidden_layers)
        )
        self.norm = HybriKoRMSNorm(config)
        self.gradient_checkpointing = False
        self.post_init()

    @capture_outputs
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | dict[str, Tensor | None] | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: Tensor | None = None,
        use_cache: bool | None = None,
        **kwargs,
    ) -> BaseModelOutputWithPast:
        """The hidden states of tokens, and the cache after them.

        Args:
          input_ids: (B, L); or give inputs_embeds, (B, L, D).
          attention_mask: (B, tokens in the cache + L), 0 on padding, which may stand anywhere; or
            what `create_masks` made of it.
          position_ids: (B, L), distance from the document's start. 0 starts a document, forgets
            the recurrent state and hides everything before from attention. By default, every row
            is one document.
          past_key_values: DynamicCache(config=model.config), or the cache that a call returned.
            It is changed in place.
          use_cache: whether to return a cache; by default config.use_cache, but not in training.
        """
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("Give either input_ids or inputs_embeds.")
        if inputs_embeds is None:
            inputs_embeds = self.embed_tokens(input_ids)
        if use_cache is None:
            use_cache = self.config.use_cache and not self.training
        if use_cache and past_key_values is None:
            past_key_values = DynamicCache(config=self.config)
        if past_key_values is not None:
            if "full_attention" not in self.config.layer_types:
                raise ValueError("A cache needs an attention layer, which counts its tokens.")
            if len(past_key_values) != len(self.layers):
                raise ValueError("Make past_key_values with DynamicCache(config=model.config).")

        masks = attention_mask
        if not isinstance(masks, dict):
            masks = create_masks(
                self.config, inputs_embeds, attention_mask, past_key_values, position_ids
            )
        if position_ids is None:
            position_ids = default_positions(
                None if isinstance(attention_mask, dict) else attention_mask,
                0 if past_key_values is None else past_key_values.get_seq_length(),
                inputs_embeds.shape[1],
                inputs_embeds.device,
            )
        position_embeddings = rope(position_ids, self.config)

        hidden_states = inputs_embeds
        for kind, layer in zip(self.config.layer_types, self.layers, strict=True):
            hidden_states = layer(
                hidden_states,
                attention_mask=masks[kind],
                position_ids=position_ids,
                position_embeddings=position_embeddings,
                past_key_values=past_key_values,
                **kwargs,
            )
        return BaseModelOutputWithPast(
            last_hidden_state=self.norm(hidden_states), past_key_values=past_key_values
        )


class HybriKoForCausalLM(HybriKoPreTrainedModel, GenerationMixin):
    """Tokens to logits of the token after each."""

    _tied_weights_keys = {"lm_head.weight": "model.embed_tokens.weight"}
    # Where `generate` makes masks ahead of the model, for a static cache.
    create_masks_for_generate = staticmethod(create_masks)

    def __init__(self, config: HybriKoConfig):
        super().__init__(config)
        self.model = HybriKoModel(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | dict[str, Tensor | None] | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        **kwargs,
    ) -> CausalLMOutputWithPast:
        """The logits of tokens, and their loss; see `HybriKoModel.forward`.

        Args:
          labels: (B, L), the tokens themselves, -100 where none is to be predicted: on padding,
            and on the first token of a document that does not begin its row.
          logits_to_keep: how many of the last tokens get logits, or their indices; 0 is all.
        """
        outputs = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            use_cache=use_cache,
            **kwargs,
        )
        kept = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        logits = self.lm_head(outputs.last_hidden_state[:, kept])
        if (cap := self.config.logits_soft_cap) is not None:
            logits = cap * torch.tanh(logits / cap)
        loss = None
        if labels is not None:
            loss = self.loss_function(
                logits=logits, labels=labels, vocab_size=self.config.vocab_size, **kwargs
            )
        return CausalLMOutputWithPast(
            loss=loss,
            logits=logits,
            past_key_values=outputs.past_key_values,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )


__all__ = ["HybriKoForCausalLM", "HybriKoModel", "HybriKoPreTrainedModel"]
