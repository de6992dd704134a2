"""Functions that exported files include: attention for torch 1.13, and the main loop of the quality track."""

from __future__ import annotations

import math
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor, nn

LOGITS = 2**26  # that are in memory at a time


def scaled_dot_product_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
) -> Tensor:
    """softmax(query·keyᵀ · scale + mask) · value: N×…×L×E, N×…×S×E, N×…×S×V → N×…×L×V.

    In chunks of queries, so that the attention weights never take more than about 256 MiB.

    Args:
        attn_mask: added to the logits; or, if boolean, the weight is 0 where it is False. Broadcasts to N×…×L×S.
        dropout_p, is_causal: not supported; for training only.
        scale: None for 1/√E.

    Raises:
        ValueError: dropout_p or is_causal is set.
    """
    if dropout_p or is_causal:
        raise ValueError('dropout_p and is_causal are not supported in inference; omit them')
    scale = 1 / math.sqrt(query.shape[-1]) if scale is None else scale
    rows = max(1, LOGITS // key.shape[:-1].numel())
    parts = []
    for start in range(0, query.shape[-2], rows):
        logits = query[..., start : start + rows, :] @ key.transpose(-2, -1) * scale
        if attn_mask is not None:
            mask = attn_mask if attn_mask.shape[-2] == 1 else attn_mask[..., start : start + rows, :]
            logits = logits.masked_fill(~mask, -math.inf) if mask.dtype == torch.bool else logits + mask
        parts.append(logits.softmax(-1) @ value)
    return torch.cat(parts, dim=-2)


def upscale_folder(
    model: nn.Module, data_range: float, input_path: str, output_path: str, device: torch.device
) -> None:
    """Upscale every PNG of a folder into another under the same name; the network takes RGB in [0, data_range]."""
    Path(output_path).mkdir(parents=True, exist_ok=True)
    model = model.to(device).eval()
    for path in sorted(Path(input_path).glob('*.png')):
        image = cv2.imread(str(path), cv2.IMREAD_COLOR)[..., ::-1] / 255 * data_range
        x = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1), dtype=np.float32))[None].to(device)
        with torch.no_grad():
            out = model(x)[0].clamp(0, data_range) / data_range * 255
        out = out.round().byte().permute(1, 2, 0).cpu().numpy()
        cv2.imwrite(str(Path(output_path) / path.name), np.ascontiguousarray(out[..., ::-1]))
