"""The collapse profile: how many directions each node of a label tree fills, against all images together.

Global collapse shows in the whole; HEX's point is that the classes of one superclass collapse locally, where the whole
looks healthy.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from solo.eval.rank import effective_rank

_FEWEST = 8  # rows of a node that is measured
_DRAWS = 3  # random subsets that each reference is the mean of


@dataclass(frozen=True)
class NodeRank:
    """One node of the tree."""

    level: int  # index of its level, 0 the coarsest; -1 is the root, all images
    node: int  # its index at that level, 0 for the root
    parent: int  # index of its parent at the level above, -1 for the root and what stands below it
    count: int  # its rows
    effective_rank: float  # of its rows, centred, 1 to min(count, D); NaN with fewer than 8 rows
    # mean effective rank of equally many rows drawn from all: what the node would have if it were no group; an
    # effective rank grows with the number of rows, so only this comparison is fair
    reference: float

    @property
    def ratio(self) -> float:
        """Local over global: 1 is no local collapse, 0 a node mapped to one point."""
        return self.effective_rank / self.reference if self.reference > 0 else math.nan


@torch.no_grad()
def collapse_profile(features: Tensor, labels: Tensor, seed: int = 0) -> list[NodeRank]:
    """Effective rank inside every node of the label tree, and of equally many rows from everywhere.

    Features are (N, D), the rows as they are (scale them to length 1 first to look at directions only), labels (N,) or
    (N, L), coarse first, -1 unknown. The root comes first, then every node that has rows, level by level.

    Raises:
        ValueError: if features and labels don't fit together.
    """
    labels = (labels[:, None] if labels.ndim == 1 else labels).cpu()
    if features.ndim != 2 or len(features) != len(labels) or len(features) == 0:
        raise ValueError(
            f"expected features (N, D), labels (N,) or (N, L), got {tuple(features.shape)} and {tuple(labels.shape)}"
        )
    generator = torch.Generator().manual_seed(seed)
    references: dict[int, float] = {}
    whole = effective_rank(features)
    found = [NodeRank(-1, 0, -1, len(features), whole, whole)]
    for level, column in enumerate(labels.T):
        for node in torch.unique(column[column >= 0]).tolist():
            rows = (column == node).nonzero()[:, 0]
            parent, count, own = int(labels[rows[0], level - 1]) if level else -1, len(rows), math.nan
            if count >= _FEWEST:
                own = effective_rank(features[rows.to(features.device)])
                if count not in references:
                    picks = [torch.randperm(len(features), generator=generator)[:count] for _ in range(_DRAWS)]
                    ranks = [effective_rank(features[pick.to(features.device)]) for pick in picks]
                    references[count] = sum(ranks) / len(ranks)
            found.append(NodeRank(level, node, parent, count, own, references.get(count, math.nan)))
    return found
