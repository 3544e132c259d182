"""HybriKo in plain PyTorch: gated linear recurrences and attention (Griffin, arXiv:2402.19427).

    model = HybriKoModel(HybriKoConfig())
    state = torch.load("pytorch_model.pt", map_location="cpu", weights_only=True)
    model.load_state_dict(state["model_state_dict"])
    logits = model(token_ids)["logits"]

A tensor's name ends in its axes: B batch, L time, D model width, H query heads, G key and value
heads, K head size, E rotary pairs, V vocabulary.
"""

import torch
import torch.nn.functional as F
from configuration_hybridko import HybriKoConfig
from torch import Tensor, nn

PATTERN = ("griffin", "griffin", "attention")
ROPE_THETA = 10_000.0
EPS = 1e-6


class HybriKoModel(nn.Module):
    """Tokens to logits of the token after each."""

    def __init__(self, config: HybriKoConfig):
        super().__init__()
        self.config = config
        self.embed_tokens = nn.Embedding(config.vocab_size, config.d_model)
        self.layers = nn.ModuleList(
            Layer(config, PATTERN[i % len(PATTERN)]) for i in range(config.n_layers)
        )
        self.norm = RMSNorm(config.d_model)

    def forward(self, input_ids: Tensor) -> dict[str, Tensor]:
        """{"logits": logits_BLV} of input_ids_BL, whose every row is one document."""
        x_BLD = self.embed_tokens(input_ids)
        for layer in self.layers:
            x_BLD = layer(x_BLD)
        return {"logits": F.linear(self.norm(x_BLD), self.embed_tokens.weight)}


class Layer(nn.Module):
    """Temporal mixing, then an MLP, each behind a norm and added to the residual stream."""

    def __init__(self, config: HybriKoConfig, kind: str):
        super().__init__()
        self.kind = kind
        self.mixing_norm = RMSNorm(config.d_model)
        setattr(self, kind, Griffin(config) if kind == "griffin" else Attention(config))
        self.mlp_norm = RMSNorm(config.d_model)
        self.mlp = MLP(config)

    def forward(self, x_BLD: Tensor) -> Tensor:
        mix = getattr(self, self.kind)
        x_BLD = x_BLD + mix(self.mixing_norm(x_BLD))
        return x_BLD + self.mlp(self.mlp_norm(x_BLD))


class RMSNorm(nn.Module):
    """x / rms(x) * weight."""

    def __init__(self, width: int):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x_BLD: Tensor) -> Tensor:
        y_BLD = x_BLD.float()
        y_BLD = y_BLD * torch.rsqrt(y_BLD.square().mean(-1, keepdim=True) + EPS)
        return (y_BLD * self.weight.float()).to(x_BLD.dtype)


class MLP(nn.Module):
    """Gated: down(gelu(gate(x)) * up(x))."""

    def __init__(self, config: HybriKoConfig):
        super().__init__()
        width = config.ff_mult * config.d_model
        self.gate_proj = nn.Linear(config.d_model, width, bias=False)
        self.up_proj = nn.Linear(config.d_model, width, bias=False)
        self.down_proj = nn.Linear(width, config.d_model, bias=False)

    def forward(self, x_BLD: Tensor) -> Tensor:
        gate = F.gelu(self.gate_proj(x_BLD), approximate="tanh")
        return self.down_proj(gate * self.up_proj(x_BLD))


class Griffin(nn.Module):
    """Recurrent mixing: out(rg_lru(x) * gelu(gate(x)))."""

    def __init__(self, config: HybriKoConfig):
        super().__init__()
        width = config.d_model
        self.gate_proj = nn.Linear(width, width, bias=False)
        self.x_proj = nn.Linear(width, width, bias=False)
        self.rg_lru = RGLRU(width)
        self.out_proj = nn.Linear(width, width, bias=False)

    def forward(self, x_BLD: Tensor) -> Tensor:
        gate_BLD = F.gelu(self.gate_proj(x_BLD), approximate="tanh")
        return self.out_proj(self.rg_lru(self.x_proj(x_BLD)) * gate_BLD)


class RGLRU(nn.Module):
    """h_t = a_t h_{t-1} + sqrt(1 - a_t^2) (i_t x_t),  a_t = sigmoid(lam)^(8 r_t), in float32."""

    def __init__(self, width: int):
        super().__init__()
        self.recurrence_gate = nn.Linear(width, width, bias=False)
        self.input_gate = nn.Linear(width, width, bias=False)
        self.lam = nn.Parameter(torch.empty(width).uniform_(4.3, 9.0))

    def forward(self, x_BLD: Tensor) -> Tensor:
        r_BLD = torch.sigmoid(self.recurrence_gate(x_BLD).float())
        i_BLD = torch.sigmoid(self.input_gate(x_BLD).float())
        log_a_BLD = 8.0 * r_BLD * F.logsigmoid(self.lam.float())
        # The first token follows no state: a is 0, and its input counts in full.
        log_a_BLD = F.pad(log_a_BLD[:, 1:], (0, 0, 1, 0), value=-torch.inf)
        square_BLD = -torch.expm1(2 * log_a_BLD)
        # Its root; the floor keeps the gradient finite where a gate is shut.
        root_BLD = square_BLD * torch.rsqrt(square_BLD.clamp(min=1e-12))
        b_BLD = root_BLD * i_BLD * x_BLD.float()
        return scan(torch.exp(log_a_BLD), b_BLD).to(x_BLD.dtype)


def scan(a_BLD: Tensor, b_BLD: Tensor) -> Tensor:
    """h_t = a_t h_{t-1} + b_t over time: pairs of steps at half the length, then those between."""
    L = b_BLD.shape[1]
    if L == 1:
        return b_BLD
    end = L - L % 2
    first_a, second_a = a_BLD[:, 0:end:2], a_BLD[:, 1:end:2]
    first_b, second_b = b_BLD[:, 0:end:2], b_BLD[:, 1:end:2]
    second_h = scan(first_a * second_a, second_b + second_a * first_b)
    first_h = b_BLD[:, 0::2] + a_BLD[:, 0::2] * F.pad(second_h, (0, 0, 1, 0))[:, : L - L // 2]
    h_BLD = torch.stack([first_h[:, : end // 2], second_h], dim=2).flatten(1, 2)
    return torch.cat([h_BLD, first_h[:, end // 2 :]], dim=1)


class Attention(nn.Module):
    """Causal grouped-query attention with RoPE."""

    def __init__(self, config: HybriKoConfig):
        super().__init__()
        self.head_size, self.window = config.d_model // config.n_heads, config.max_seq_len
        kv_width = config.n_kv_heads * self.head_size
        self.q_proj = nn.Linear(config.d_model, config.d_model, bias=False)
        self.k_proj = nn.Linear(config.d_model, kv_width, bias=False)
        self.v_proj = nn.Linear(config.d_model, kv_width, bias=False)
        self.o_proj = nn.Linear(config.d_model, config.d_model, bias=False)

    def forward(self, x_BLD: Tensor) -> Tensor:
        B, L, D = x_BLD.shape
        q_BHLK = rotate(self.heads(self.q_proj(x_BLD)))
        k_BGLK = rotate(self.heads(self.k_proj(x_BLD)))
        v_BGLK = self.heads(self.v_proj(x_BLD))
        # Query heads share their key and value heads in order.
        shared = q_BHLK.shape[1] // k_BGLK.shape[1]
        k_BHLK, v_BHLK = (x.repeat_interleave(shared, dim=1) for x in (k_BGLK, v_BGLK))
        visible_LL = torch.ones(L, L, dtype=torch.bool, device=x_BLD.device).tril()
        visible_LL = visible_LL.triu(1 - self.window)
        y_BHLK = F.scaled_dot_product_attention(q_BHLK, k_BHLK, v_BHLK, attn_mask=visible_LL)
        return self.o_proj(y_BHLK.transpose(1, 2).reshape(B, L, D))

    def heads(self, x_BLD: Tensor) -> Tensor:
        return x_BLD.unflatten(-1, (-1, self.head_size)).transpose(1, 2)


def rotate(x_BHLK: Tensor) -> Tensor:
    """Rotary position embedding; channel e is paired with channel e + K / 2."""
    L, K = x_BHLK.shape[-2:]
    frequency_E = torch.tensor(
        [ROPE_THETA ** (-e / K) for e in range(0, K, 2)], device=x_BHLK.device
    )
    angles_LE = torch.arange(L, device=x_BHLK.device)[:, None].float() * frequency_E
    cos_LE, sin_LE = angles_LE.cos(), angles_LE.sin()
    left, right = x_BHLK.chunk(2, dim=-1)
    turned = [left * cos_LE - right * sin_LE, right * cos_LE + left * sin_LE]
    return torch.cat(turned, dim=-1).to(x_BHLK.dtype)
