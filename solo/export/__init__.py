"""A trained backbone for other programs: folders that timm, torchvision, Hugging Face, ONNX and others read."""

from solo.export.targets import TARGETS, Exported, export

__all__ = ["TARGETS", "Exported", "export"]
