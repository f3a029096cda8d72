"""What training descends: the likelihood of the text, and with distillation the distance to a teacher."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from dopant.ops.cross_entropy import summed_cross_entropy
from dopant.training.settings import Distillation


def training_loss(
    logits: Tensor, targets: Tensor, teacher_logits: Tensor | None, settings: Distillation
) -> tuple[Tensor, Tensor]:
    """The loss, and the likelihood part alone without gradient; both summed over time, averaged over the batch.

    Args:
        logits: (time, batch, vocabulary).
        targets: (time, batch) int64.
        teacher_logits: as `logits`, without gradient; None to learn from the text alone.
        settings: weight and temperature of the teacher's part (Hinton et al. 2015, arXiv 1503.02531).
    """
    batch, flat = targets.shape[1], logits.flatten(0, 1)
    likelihood = summed_cross_entropy(flat, targets.flatten()) / batch
    if teacher_logits is None:
        return likelihood, likelihood.detach()
    soft = F.log_softmax(teacher_logits.flatten(0, 1) / settings.temperature, dim=-1)
    own = F.log_softmax(flat / settings.temperature, dim=-1)
    divergence = F.kl_div(own, soft, reduction="sum", log_target=True) / batch
    weight = settings.weight
    return (1.0 - weight) * likelihood + weight * settings.temperature**2 * divergence, likelihood.detach()
