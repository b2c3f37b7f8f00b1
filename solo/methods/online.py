"""How good a method's features are while it trains: the online classifier and k-NN on validation images."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from solo.args.schema import KnnEvalCfg
from solo.data.batches.shown import VIEW
from solo.eval.knn import WeightedKNNClassifier
from solo.hex.objective import Hex, Standard
from solo.methods.module import SoloModule


class OnlineEvaluation(SoloModule):
    """A module whose validation measures its online classifier, and a k-NN on the features of the training views."""

    hex: Hex | Standard
    num_large_crops: int

    def build_knn(self, cfg: KnnEvalCfg) -> None:
        """The k-NN of the section `knn_eval`, where it is on."""
        self.knn_eval: bool = cfg.enabled
        self.knn_k: int = cfg.k
        if self.knn_eval:
            self.knn = WeightedKNNClassifier(k=self.knn_k, distance_fx=cfg.distance_func)

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """The k-NN's bank never holds views of more than one epoch, also where not every epoch is validated."""
        if self.knn_eval and batch_idx == 0:
            self.knn.reset()

    @property
    def own_views(self) -> list[int]:
        """Numbers of the large views that are certain to show the image itself, and so have its label."""
        return [view for view in range(self.num_large_crops) if self.hex.show is None or view != VIEW]

    def fill_knn(self, views: Sequence[Tensor], targets: Tensor) -> None:
        """Put the features (B, F) of each large view into the k-NN's bank, which leaves rows without a class out."""
        if not self.knn_eval or self.config.data.no_labels:
            return
        labels = self.knn_labels(targets)
        for feats in views:
            self.knn(train_features=feats.detach().clone(), train_targets=labels)

    def base_validation_step(self, X: Tensor, targets: Tensor) -> dict[str, Any]:
        """Validation images (B, C, H, W) -> `logits`, `feats`, and the classifier's `loss`, `acc1` and `acc5`."""
        raise NotImplementedError

    def validation_step(
        self, batch: Any, batch_idx: int, dataloader_idx: int | None = None, update_validation_step_outputs: bool = True
    ) -> dict[str, Any]:
        """One batch `(images, targets)` through the online classifier and into the k-NN's test set."""
        X, targets = batch
        out = self.base_validation_step(X, targets)
        if self.knn_eval and not self._sanity_checking:
            self.knn(test_features=out["feats"].detach(), test_targets=self.knn_labels(targets))
        metrics = self.validation_record(out, targets)
        if update_validation_step_outputs:
            self.validation_step_outputs.append(metrics)
        return metrics

    def on_validation_epoch_end(self) -> None:
        """Log the means over all validation rows, and the k-NN's accuracies."""
        super().on_validation_epoch_end()
        if not self.knn_eval or self._sanity_checking:
            return
        acc1, acc5 = self.knn.compute()
        if not self.knn.level_accuracies:  # no labelled image was seen
            return
        metrics = {"val_knn_acc1": acc1, "val_knn_acc5": acc5}
        if len(self.levels) > 1:
            accuracies = zip(self.levels, self.knn.level_accuracies, strict=False)
            metrics |= {f"val_knn_acc1/{level}": accuracy for level, (accuracy, _) in accuracies}
        self.log_metrics(metrics)

    @property
    def _sanity_checking(self) -> bool:
        return self.attached and self.trainer.sanity_checking
