# %% [markdown]
# # Write a loss and train with it
#
# A loss is a pure function of tensors. Here is one that no paper of this project has: the box
# around the landmarks must match the true box.

# %%
import torch
from PIL import Image
from torch import Tensor, nn

from datamodules import SyntheticMultiView
from datamodules.synthesis.scenes import SceneSettings
from losses import landmark_loss
from losses.landmark import landmark_weights
from renderers import FaceRenderer, load_face_model


def box_loss(predicted: Tensor, target: Tensor, image_size: int) -> Tensor:
    """The distance of the corners of the landmarks' boxes.

    Args:
        predicted: (B, 68, 2) pixels.
        target: (B, 68, 2) pixels.
        image_size: pixels along the image's side.

    Returns:
        (B,) in [0, 1]: a share of the image's side.
    """
    corners = [torch.cat([points.amin(dim=1), points.amax(dim=1)], dim=-1) for points in (predicted, target)]
    return (corners[0] - corners[1]).abs().mean(dim=-1) / image_size


# %% [markdown]
# A loss needs a test against something independent. A box that is moved by 3 pixels of 30 has a loss of 0.1:

# %%
points = 10 * torch.rand(2, 68, 2)
assert torch.allclose(box_loss(points + 3, points, 30), torch.full((2,), 0.1), atol=1e-6)

# %% [markdown]
# The network regresses all coefficients from synthetic faces, whose truth is exact.

# %%
torch.manual_seed(0)
face_model = load_face_model("default")
data = SyntheticMultiView(
    face_model, size=48, batch_size=8, train_faces=64, val_faces=8, settings=SceneSettings(views=1)
)
data.prepare_data()
data.setup("fit")
renderer, layout = FaceRenderer(face_model, 48), face_model.layout()
last = nn.LazyLinear(layout.length)
network = nn.Sequential(nn.Conv2d(3, 16, 5, 4), nn.ReLU(), nn.Conv2d(16, 32, 3, 2), nn.ReLU(), nn.Flatten(), last)

# %%
losses: list[float] = []
batch = next(iter(data.train_dataloader()))
network(batch.image)  # gives the last layer its size
with torch.no_grad():
    last.weight.mul_(0.1)  # so that the first answers are near the mean face
optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
for _ in range(8):
    for batch in data.train_dataloader():
        landmarks = renderer(layout.split(network(batch.image)), batch.intrinsics).landmarks
        points = landmark_loss(landmarks, batch.landmarks, landmark_weights(), 48).mean()
        loss = 0.01 * points + box_loss(landmarks, batch.landmarks, 48).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
print(f"loss: {losses[0]:.2f} at first, {losses[-1]:.2f} at the end")

# %% [markdown]
# Pictures of training above, what the network answers after eight epochs below:

# %%
with torch.no_grad():
    drawn = renderer(layout.split(network(batch.image)), batch.intrinsics).image.clamp(0, 1)
tiles = torch.cat([torch.cat(list(row[:6]), dim=-1) for row in (batch.image, drawn)], dim=-2)
picture = Image.fromarray((tiles.permute(1, 2, 0) * 255).byte().numpy()).resize((6 * 96, 2 * 96))
picture
