"""solo-learn's DALI loaders, which have no counterpart here."""

raise ImportError(
    "solo reads images without NVIDIA DALI; use solo.data.pretrain_dataloader and solo.data.classification_dataloader "
    "(data.format=dali in a YAML runs on these)"
)
