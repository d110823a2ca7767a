"""Optimisers: AdamW, or Muon for the matrices of the layers with AdamW for the rest."""

from __future__ import annotations

import torch

from lssvwm_agents.trainers.config import OptimizationConfig

Named = list[tuple[str, torch.nn.Parameter]]

_NOT_FOR_MUON = ("embed", "null", "head", "tokenizer", "table")
_PLAIN = ("null", "place.", "key_bias", "key_scale", "gate_novelty")


def split_parameters(module: torch.nn.Module, use_muon: bool) -> tuple[Named, Named, Named]:
    """Trainable parameters for Muon, for AdamW with weight decay, and for AdamW without.

    Muon (Jordan et al. 2024) takes the matrices inside the network; embeddings and heads stay with AdamW.
    What has fewer than two dimensions (biases, norms, per-head rates) is never decayed, nor is what makes the
    keys of places.
    """
    muon: Named = []
    decayed: Named = []
    plain: Named = []
    for name, parameter in module.named_parameters():
        if not parameter.requires_grad:
            continue
        if parameter.ndim < 2 or any(word in name for word in _PLAIN):
            plain.append((name, parameter))
        elif use_muon and parameter.ndim == 2 and not any(word in name for word in _NOT_FOR_MUON):
            muon.append((name, parameter))
        else:
            decayed.append((name, parameter))
    return muon, decayed, plain


def build_optimizers(
    module: torch.nn.Module, config: OptimizationConfig, device: torch.device
) -> list[torch.optim.Optimizer]:
    """Build the optimisers of a module's trainable parameters; all follow one learning rate."""
    muon, decayed, plain = split_parameters(module, config.optimizer == "muon")
    optimizers: list[torch.optim.Optimizer] = []
    groups = [
        {"params": [p for _, p in decayed], "weight_decay": config.weight_decay},
        {"params": [p for _, p in plain], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    if groups:
        fused = True if device.type == "cuda" else None
        optimizers.append(torch.optim.AdamW(groups, lr=config.learning_rate, betas=config.betas, fused=fused))
    if muon:
        if not hasattr(torch.optim, "Muon"):
            raise ValueError(f"optimizer='muon' needs torch 2.9 or newer, got {torch.__version__}.")
        # The update's size is matched to AdamW's, so that one learning rate serves both.
        optimizers.append(
            torch.optim.Muon(
                [p for _, p in muon],
                lr=config.learning_rate,
                weight_decay=config.weight_decay,
                adjust_lr_fn="match_rms_adamw",
            )
        )
    if not optimizers:
        raise ValueError("a module to train must have trainable parameters, got none.")
    return optimizers


def set_learning_rate(optimizers: list[torch.optim.Optimizer], learning_rate: float) -> None:
    """Set the learning rate of all parameter groups."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = learning_rate
