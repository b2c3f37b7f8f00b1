"""A trained backbone for other programs: folders that timm, torchvision, Hugging Face, ONNX and others read.

`export(model, to, folder)` writes one; each holds the weights, what has to be done to an image, the label tree and a
card for people, and is read back as its reader would before it is called done.
"""

from solo.export.targets import TARGETS, Exported, export

__all__ = ["TARGETS", "Exported", "export"]
