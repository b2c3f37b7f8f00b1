"""Training some layers of a backbone only."""

from collections.abc import Sequence

from torch import nn

from solo.errors import UserError
from solo.suggest import did_you_mean


class FrozenLayers:
    """All layers of a backbone but those named: their parameters get no gradient, their BatchNorm stays in eval mode.

    Raises:
        UserError: a name that is no module of the backbone; says which there are.
    """

    def __init__(self, backbone: nn.Module, trained: Sequence[str]) -> None:
        modules = dict(backbone.named_modules())
        for name in trained:
            if not name or name not in modules:
                parts = [child for child, _ in backbone.named_children()]
                raise UserError(
                    f"finetune_layers has {name!r}, which is no layer of {type(backbone).__name__}; "
                    f"{did_you_mean(name, parts)}choose from {', '.join(parts)}, or layers inside of these"
                )
        inside = tuple(f"{name}." for name in trained)
        for name, parameter in backbone.named_parameters():
            parameter.requires_grad_(name.startswith(inside))
        self._frozen = [module for name, module in modules.items() if name and not f"{name}.".startswith(inside)]
        # A module around a trained one is not frozen itself; its other parts are on the list by their own names.
        self._frozen = [module for module in self._frozen if not any(p.requires_grad for p in module.parameters())]
        self.eval()  # a trainer leaves the modes as it finds them

    def eval(self) -> None:
        """Put the frozen layers into eval mode, again after every `train()`."""
        for module in self._frozen:
            module.eval()
