"""Slow and obvious NumPy versions, one step at a time, in float64."""

import numpy as np


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def rg_lru_loop(x_BLW, r_BLW, i_BLW, lambda_W, starts_BL, h0_BW):
    """The RG-LRU by its definition."""
    a_W = sigmoid(np.asarray(lambda_W, np.float64))
    h_BW = np.asarray(h0_BW, np.float64)
    out = []
    for t in range(x_BLW.shape[1]):
        a_BW = a_W ** (8 * np.asarray(r_BLW[:, t], np.float64))
        a_BW = np.where(starts_BL[:, t, None], 0.0, a_BW)
        x_BW = np.asarray(i_BLW[:, t], np.float64) * np.asarray(x_BLW[:, t], np.float64)
        h_BW = a_BW * h_BW + np.sqrt(1 - a_BW**2) * x_BW
        out.append(h_BW)
    return np.stack(out, axis=1)


def recurrence_loop(a_BLW, b_BLW, h0_BW):
    """h_t = a_t h_{t-1} + b_t."""
    h_BW, out = np.asarray(h0_BW, np.float64), []
    for t in range(a_BLW.shape[1]):
        h_BW = np.float64(a_BLW[:, t]) * h_BW + np.float64(b_BLW[:, t])
        out.append(h_BW)
    return np.stack(out, axis=1)


def recurrence_gradients_loop(a_BLW, b_BLW, h0_BW, g_BLW):
    """Gradients of sum(g * h) with respect to a, b and h0, from the last step to the first."""
    h_BLW = recurrence_loop(a_BLW, b_BLW, h0_BW)
    da, db = np.zeros(a_BLW.shape), np.zeros(a_BLW.shape)
    d_BW = np.zeros(np.shape(h0_BW))
    for t in reversed(range(a_BLW.shape[1])):
        d_BW = d_BW + np.float64(g_BLW[:, t])
        da[:, t] = d_BW * (h_BLW[:, t - 1] if t else np.float64(h0_BW))
        db[:, t] = d_BW
        d_BW = d_BW * np.float64(a_BLW[:, t])
    return da, db, d_BW


def rotate_pairs(x_K, position, theta=1e4):
    """RoPE of one head: channel e turns with channel e + K / 2."""
    half = len(x_K) // 2
    out = np.array(x_K, np.float64)
    for e in range(half):
        angle = position * theta ** (-2 * e / len(x_K))
        out[e] = x_K[e] * np.cos(angle) - x_K[e + half] * np.sin(angle)
        out[e + half] = x_K[e + half] * np.cos(angle) + x_K[e] * np.sin(angle)
    return out


def attention_loop(q_BLHK, k_BLGK, v_BLGK, document_BL, window):
    """Softmax attention, one query and one head at a time, over its own document's past."""
    B, L, H, K = q_BLHK.shape
    shared = H // k_BLGK.shape[2]
    out = np.zeros(q_BLHK.shape)
    for b in range(B):
        for t in range(L):
            seen = [
                m
                for m in range(max(0, t - window + 1), t + 1)
                if document_BL[b, m] == document_BL[b, t]
            ]
            for h in range(H):
                k_MK = np.float64(k_BLGK[b, seen, h // shared])
                logits_M = k_MK @ np.float64(q_BLHK[b, t, h]) / np.sqrt(K)
                p_M = np.exp(logits_M - logits_M.max())
                out[b, t, h] = (p_M / p_M.sum()) @ np.float64(v_BLGK[b, seen, h // shared])
    return out


def cross_entropy_loop(logits_BLV, tokens_BL, weights_BL, soft_cap=None, z_loss=0.0):
    """(loss, nats): weighted sums over every token but the first of a row."""
    loss = nats = 0.0
    for logits_LV, tokens_L, weights_L in zip(logits_BLV, tokens_BL, weights_BL, strict=True):
        for t in range(1, len(tokens_L)):
            logits_V = np.float64(logits_LV[t - 1])
            if soft_cap is not None:
                logits_V = soft_cap * np.tanh(logits_V / soft_cap)
            lse = np.log(np.exp(logits_V - logits_V.max()).sum()) + logits_V.max()
            nats += weights_L[t] * (lse - logits_V[tokens_L[t]])
            loss += weights_L[t] * (lse - logits_V[tokens_L[t]] + z_loss * lse**2)
    return loss, nats


def documents_of(positions_BL):
    """A document's number for every token: position 0 starts a new one."""
    return np.cumsum(np.asarray(positions_BL) == 0, axis=1)
