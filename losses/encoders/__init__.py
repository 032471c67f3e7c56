"""Frozen networks: `FaceEncoder` and its subclasses, whose features the losses compare, and a user's segmentation."""

from losses.encoders.attributes import AttributeEncoder
from losses.encoders.dlib_layers import DlibLayers
from losses.encoders.dlib_resnet import DlibEncoder
from losses.encoders.encoder import FaceEncoder
from losses.encoders.file_encoder import FileEncoder
from losses.encoders.segmentation import FileSegmentation

__all__ = ["AttributeEncoder", "DlibEncoder", "DlibLayers", "FaceEncoder", "FileEncoder", "FileSegmentation"]
