"""Frozen networks that losses look through: `FaceEncoder` and its kinds: identity, attributes, a user's file."""

from losses.encoders.attributes import AttributeEncoder
from losses.encoders.dlib_resnet import DlibEncoder
from losses.encoders.encoder import FaceEncoder
from losses.encoders.file_encoder import FileEncoder

__all__ = ["AttributeEncoder", "DlibEncoder", "FaceEncoder", "FileEncoder"]
