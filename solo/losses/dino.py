"""DINO's loss (Caron et al., 2021): self-distillation with a centred, sharpened teacher."""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from solo import distributed
from solo.losses.numerics import full_precision
from solo.losses.swav import swav_loss_func


def teacher_temperatures(first: float, last: float, warmup: int, epochs: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    """The teacher's temperature in each epoch: from `first` to `last` in `warmup` epochs, and on as it is."""
    return np.concatenate([np.linspace(first, last, warmup), np.full(epochs, last)])[:epochs]


class DINOLoss(nn.Module):
    """Cross-entropy of the student's views under the teacher's other views.

    ``epoch``, set from outside, picks the teacher's temperature; ``center`` (1, P) is the moving mean of its outputs.

    Args:
        num_prototypes: P, the width of the outputs.
        warmup_teacher_temp: > 0, the teacher's temperature at first.
        teacher_temp: > 0, its temperature once ``warmup_teacher_temp_epochs`` of ``num_epochs`` are over.
        num_large_crops: V, how many views both outputs hold, at least 2.
        center_momentum: in [0, 1], share of the old centre that an update keeps.
    """

    center: Tensor

    def __init__(
        self,
        num_prototypes: int,
        warmup_teacher_temp: float,
        teacher_temp: float,
        warmup_teacher_temp_epochs: int,
        num_epochs: int,
        student_temp: float = 0.1,
        num_large_crops: int = 2,
        center_momentum: float = 0.9,
    ) -> None:
        super().__init__()
        self.epoch, self.num_large_crops = 0, num_large_crops
        self.student_temp, self.center_momentum = student_temp, center_momentum
        self.register_buffer("center", torch.zeros(1, num_prototypes))
        self.teacher_temp_schedule = teacher_temperatures(
            warmup_teacher_temp, teacher_temp, warmup_teacher_temp_epochs, num_epochs
        )

    @full_precision
    def forward(self, student_output: Tensor, teacher_output: Tensor) -> Tensor:
        """Scalar loss of the outputs of student (any views * N, P) and teacher (V * N, P); then moves the centre.

        The student's begin with the large views, in the order of the teacher's.
        """
        temperature, views = float(self.teacher_temp_schedule[self.epoch]), self.num_large_crops
        target = ((teacher_output.detach() - self.center) / temperature).softmax(dim=-1)
        students = student_output.chunk(views * len(student_output) // len(target))
        loss = swav_loss_func(students, target.chunk(views), self.student_temp)
        self.update_center(teacher_output)
        return loss

    @torch.no_grad()
    def update_center(self, teacher_output: Tensor) -> None:
        """Move the centre towards the mean of the outputs (V * N, P) of all processes."""
        mean = distributed.all_reduce_mean(teacher_output.mean(dim=0, keepdim=True))
        self.center.lerp_(mean.to(self.center), 1 - self.center_momentum)
