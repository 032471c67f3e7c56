# %% [markdown]
# # Fit a photograph
#
# `make reconstruct` does this and more. Here are its steps: find the face, align it, fit the model, draw the result.

# %%
import torch
from PIL import Image
from skimage.data import astronaut

from datamodules.preparation.alignment import align, model_template
from datamodules.preparation.landmarks import best_detector
from datamodules.preparation.skin import skin_probability
from experiments.fitting.photometric_fitting import FitSettings, fit
from renderers import FaceRenderer, load_face_model
from renderers.camera import default_intrinsics

SIZE = 224  # pixels of the aligned crop
photo = astronaut()  # (512, 512, 3) uint8
face_model = load_face_model("default")

# %% [markdown]
# The detector finds the 68 landmarks. The alignment turns and scales the photograph so that the face fills the crop.

# %%
face = best_detector("dlib").detect(photo)[0]
alignment = align(face.landmarks, model_template(face_model, SIZE), SIZE)
crop = alignment.crop(photo)
landmarks = alignment.to_crop(face.landmarks)
skin = skin_probability(crop, landmarks)

# %% [markdown]
# The fit moves the model to the landmarks, solves for light and colours, and then compares pixels. A prior keeps the
# face likely.
# The built-in model's expressions are blend weights between 0 and 1.

# %%
image = torch.from_numpy(crop).permute(2, 0, 1)[None].float() / 255
result = fit(
    face_model,
    image,
    torch.from_numpy(landmarks)[None].float(),
    torch.from_numpy(skin)[None, None].float(),
    default_intrinsics(SIZE)[None],
    settings=FitSettings(expression_deviation=0.35, expression_bounds=(0.0, 1.0), photometric_iterations=30),
)
energy = result.history["energy"]
print(f"energy: {energy[0]:.3f} at first, {energy[-1]:.3f} at the end")

# %% [markdown]
# The crop, and the fitted face drawn over it:

# %%
rendering = FaceRenderer(face_model, SIZE)(result.coefficients)
drawn = torch.where(rendering.mask, rendering.image.clamp(0, 1), image)
tiles = torch.cat([image[0], drawn[0]], dim=-1).detach()
picture = Image.fromarray((tiles.permute(1, 2, 0) * 255).byte().numpy())
picture
