"""Frozen networks that losses look through: `FaceEncoder` and its two kinds, dlib's ResNet and a user's file."""

from losses.encoders.dlib_resnet import DlibEncoder
from losses.encoders.encoder import FaceEncoder
from losses.encoders.file_encoder import FileEncoder

__all__ = ["DlibEncoder", "FaceEncoder", "FileEncoder"]
