"""`accumulate: exact`: where it means something, and how many images a loss then sees."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from solo.args.check import Problem
from solo.methods.catalogue import facts_of


def check_accumulate(values: Mapping[str, Any]) -> list[Problem]:
    """`accumulate=exact` where it would do nothing.

    Args:
        values: reads `accumulate`, `accumulate_grad_batches`, `method` and `hex.policy`.
    """
    if values.get("accumulate") != "exact":
        return []
    steps, method = values.get("accumulate_grad_batches") or 1, values.get("method")
    if steps < 2:
        text = f"=exact is for several batches, and accumulate_grad_batches={steps}; set that to 2 or more"
        return [Problem("accumulate", text)]
    policy = (values.get("hex") or {}).get("policy") or "standard"
    facts = facts_of(method)
    if facts and facts.per_image and policy == "standard":
        text = f"=exact is not for method={method}: its loss is a mean over images and compares none of the batch"
        return [Problem("accumulate", f"{text}, so plain accumulation has the same gradient; leave it out")]
    return []


def exact_parts(accumulate: str, batches: int) -> int:
    """How many batches share one loss: `accumulate_grad_batches` with `accumulate=exact`, else 1."""
    return batches if accumulate == "exact" else 1
