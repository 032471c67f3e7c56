# %% [markdown]
# # Render and differentiate
#
# A face model turns coefficients into a shape. A renderer turns the shape into a picture. Both are PyTorch modules,
# so a gradient flows from the picture back to the coefficients.

# %%
import torch
from PIL import Image

from renderers import FaceRenderer, load_face_model, mean_coefficients

face_model = load_face_model("default")
renderer = FaceRenderer(face_model, size=128)

# %% [markdown]
# The mean face has all coefficients at zero. Here are three faces: the mean, a random person, and that person turned
# by 30 degrees.

# %%
faces = mean_coefficients(face_model, batch=3)
torch.manual_seed(0)
faces.identity[1:] = torch.randn(face_model.identity_size)
faces.albedo[1:] = 0.5 * torch.randn(face_model.albedo_size)
faces.angles[2, 1] = torch.pi / 6  # pitch, yaw, roll in radians
true_picture = renderer(faces).image.detach()  # (3, 3, 128, 128)

# %% [markdown]
# Now forget the yaw of the third face, and find it again by gradient descent on the picture.

# %%
yaw = torch.zeros((), requires_grad=True)
optimizer = torch.optim.Adam([yaw], lr=0.05)
for _ in range(60):
    angles = torch.stack([torch.zeros(()), yaw, torch.zeros(())])[None]
    guess = faces.index(slice(2, 3))
    guess.angles = angles
    loss = (renderer(guess).image - true_picture[2:]).abs().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
print(f"yaw: {torch.rad2deg(yaw.detach()):.1f} degrees; the truth is 30")

# %% [markdown]
# Everything that is drawn of a face shares one rasterization: picture, albedo, normals and depth.

# %%
rendering = renderer(faces)
rows = [rendering.image, rendering.albedo, 0.5 + 0.5 * rendering.normals * rendering.mask]
tiles = torch.cat([torch.cat(list(row), dim=-1) for row in rows], dim=-2).detach().clamp(0, 1)
picture = Image.fromarray((tiles.permute(1, 2, 0) * 255).byte().numpy())
picture
