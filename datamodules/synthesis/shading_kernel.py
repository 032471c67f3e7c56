"""Deferred shading of a scene by NVIDIA Warp: one thread a pixel, whose samples are shaded and averaged.

One source for CPU and CUDA. Light is linear; what a pixel becomes is a display value.
"""

from __future__ import annotations

from typing import no_type_check

import warp as wp

from renderers.kernels.warp_start import start_warp

start_warp()
wp.set_module_options({"enable_backward": False})

# What a face is made of.
SKIN, EYE, MOUTH, HAIR, CLOTH, PLAIN = (wp.constant(kind) for kind in range(6))
SHOULDER = wp.constant(0.55)  # of linear light: above it the tone curve bends towards 1
FAR = wp.constant(1.0e6)


@wp.func
@no_type_check
def clamp01(value: wp.float32):
    return wp.clamp(value, 0.0, 1.0)


@wp.func
@no_type_check
def linear(display: wp.vec3f):
    return wp.vec3f(
        wp.pow(wp.max(display[0], 0.0), 2.2), wp.pow(wp.max(display[1], 0.0), 2.2), wp.pow(wp.max(display[2], 0.0), 2.2)
    )


@wp.func
@no_type_check
def tone(light: wp.float32):
    """Linear light -> display: a shoulder that never quite reaches white, then the gamma."""
    x = wp.max(light, 0.0)
    if x > SHOULDER:
        over = (x - SHOULDER) / (1.0 - SHOULDER)
        x = SHOULDER + (1.0 - SHOULDER) * over / (1.0 + 0.75 * over)
    return wp.pow(wp.min(x, 1.0), 0.454545)


@wp.func
@no_type_check
def hashed(x: wp.int32, y: wp.int32):
    """A number in [0, 1) that looks random."""
    n = x * 374761393 + y * 668265263
    n = (n ^ (n >> 13)) * 1274126177
    n = n ^ (n >> 16)
    return float(n & 65535) / 65536.0


@wp.func
@no_type_check
def grain(x: wp.float32, y: wp.float32):
    """Value noise in [0, 1): bilinear between random numbers at whole places."""
    i = int(wp.floor(x))
    j = int(wp.floor(y))
    a = x - float(i)
    b = y - float(j)
    a = a * a * (3.0 - 2.0 * a)
    b = b * b * (3.0 - 2.0 * b)
    above = wp.lerp(hashed(i, j), hashed(i + 1, j), a)
    below = wp.lerp(hashed(i, j + 1), hashed(i + 1, j + 1), a)
    return wp.lerp(above, below, b)


@wp.func
@no_type_check
def soft_light(normal: wp.vec3f, harmonics: wp.array2d[wp.vec3f], view: wp.int32):
    x = normal[0]
    y = normal[1]
    z = normal[2]
    light = harmonics[view, 9]
    light += x * harmonics[view, 0] + y * harmonics[view, 1] + z * harmonics[view, 2]
    light += (x * y) * harmonics[view, 3] + (y * z) * harmonics[view, 4] + (z * x) * harmonics[view, 5]
    light += (x * x) * harmonics[view, 6] + (y * y) * harmonics[view, 7] + (z * z) * harmonics[view, 8]
    return wp.vec3f(wp.max(light[0], 0.0), wp.max(light[1], 0.0), wp.max(light[2], 0.0))


@wp.func
@no_type_check
def panorama_light(direction: wp.vec3f, panorama: wp.array2d[wp.vec3f]):
    """The nearest texel of a panorama: for small reflections."""
    column = int((wp.atan2(direction[0], -direction[2]) / 6.2831853 + 0.5) * float(panorama.shape[1]))
    row = int((0.5 - wp.asin(wp.clamp(direction[1], -1.0, 1.0)) / 3.1415927) * float(panorama.shape[0]))
    return panorama[wp.clamp(row, 0, panorama.shape[0] - 1), wp.clamp(column, 0, panorama.shape[1] - 1)]


@wp.func
@no_type_check
def lit_share(place: wp.vec3f, bias: wp.float32, view: wp.int32, shadow_depth: wp.array3d[wp.float32]):
    """How much of nine texels of the light's own picture lets the light through."""
    size = shadow_depth.shape[1]
    column = int(wp.floor(place[0]))
    row = int(wp.floor(place[1]))
    if column < 1 or row < 1 or column >= size - 1 or row >= size - 1:
        return 1.0
    share = 0.0
    for i in range(-1, 2):
        for j in range(-1, 2):
            if shadow_depth[view, row + i, column + j] > place[2] - bias:
                share += 1.0 / 9.0
    return share


@wp.func
@no_type_check
def gloss(normal: wp.vec3f, to_light: wp.vec3f, to_eye: wp.vec3f, exponent: wp.float32):
    """A normalised Blinn-Phong lobe times the cosine."""
    cosine = wp.max(wp.dot(normal, wp.normalize(to_light + to_eye)), 0.0)
    return (exponent + 8.0) / 8.0 * wp.pow(cosine, exponent) * clamp01(4.0 * wp.dot(normal, to_light))


@wp.func
@no_type_check
def wrapped(cosine: wp.float32, width: wp.float32):
    """Diffuse light that reaches a little round the edge, as it does under skin."""
    x = wp.max(cosine + width, 0.0) / (1.0 + width)
    return x * x * (1.0 - 0.5 * width / (1.0 + width)) * 0.5 + 0.5 * x


@wp.kernel
@no_type_check
def depth_picture(
    points: wp.array2d[wp.vec3f],
    faces: wp.array[wp.vec3l],
    seen: wp.array3d[wp.int64],
    depth: wp.array3d[wp.float32],
):
    """The depth behind each pixel's centre of the face that it sees; `FAR` where it sees none."""
    view, row, column = wp.tid()
    face = int(seen[view, row, column])
    if face < 0:
        depth[view, row, column] = FAR
        return
    corners = faces[face]
    a = points[view, int(corners[0])]
    b = points[view, int(corners[1])]
    c = points[view, int(corners[2])]
    x = float(column) + 0.5
    y = float(row) + 0.5
    wa = (b[0] - x) * (c[1] - y) - (b[1] - y) * (c[0] - x)
    wb = (c[0] - x) * (a[1] - y) - (c[1] - y) * (a[0] - x)
    wc = (a[0] - x) * (b[1] - y) - (a[1] - y) * (b[0] - x)
    total = wa / a[2] + wb / b[2] + wc / c[2]
    depth[view, row, column] = wp.where(total == 0.0, a[2], (wa + wb + wc) / total)


@wp.kernel
@no_type_check
def shade_pixels(
    samples: wp.int32,
    points: wp.array2d[wp.vec3f],  # in the finer picture
    posed: wp.array2d[wp.vec3f],
    normals: wp.array2d[wp.vec3f],
    colors: wp.array[wp.vec3f],
    details: wp.array[wp.vec4f],  # ambient light that reaches it, gloss, two texture coordinates
    faces: wp.array[wp.vec3l],
    materials: wp.array[wp.int32],
    seen: wp.array3d[wp.int64],
    texture: wp.array2d[wp.vec3f],
    harmonics: wp.array2d[wp.vec3f],
    lights: wp.array2d[wp.vec3f],  # towards the strongest light, its strength, the flash's strength
    shadow_places: wp.array2d[wp.vec3f],
    shadow_depth: wp.array3d[wp.float32],
    turn: wp.array[wp.mat33f],  # from the camera's directions to the panorama's
    panorama: wp.array2d[wp.vec3f],
    cloth: wp.array[wp.vec3f],  # second colour; kind of pattern, its frequency, contrast
    background: wp.array3d[wp.vec3f],
    picture: wp.array3d[wp.vec3f],
):
    view, row, column = wp.tid()
    total = wp.vec3f(0.0, 0.0, 0.0)
    behind = background[view, row, column]
    key = lights[view, 0]
    strength = lights[view, 1]
    flash = lights[view, 2]
    # Where all samples see one smooth material, those of one diagonal are enough.
    first = int(seen[view, row * samples, column * samples])
    alike = first < 0
    if first >= 0:
        alike = materials[first] != EYE and materials[first] != MOUTH and materials[first] != HAIR
    for i in range(samples):
        for j in range(samples):
            face = int(seen[view, row * samples + i, column * samples + j])
            if (face < 0) != (first < 0):
                alike = False
            elif face >= 0:  # noqa: SIM102 - Warp looks at both sides of `and`
                if materials[face] != materials[first]:
                    alike = False
    shaded = float(0.0)  # noqa: UP018 - Warp's word for a number that a loop changes
    for i in range(samples):
        for j in range(samples):
            if alike and i != j:
                continue
            shaded += 1.0
            face = int(seen[view, row * samples + i, column * samples + j])
            light = behind
            if face >= 0:
                corners = faces[face]
                ia = int(corners[0])
                ib = int(corners[1])
                ic = int(corners[2])
                a = points[view, ia]
                b = points[view, ib]
                c = points[view, ic]
                x = float(column * samples + j) + 0.5
                y = float(row * samples + i) + 0.5
                wa = ((b[0] - x) * (c[1] - y) - (b[1] - y) * (c[0] - x)) / a[2]
                wb = ((c[0] - x) * (a[1] - y) - (c[1] - y) * (a[0] - x)) / b[2]
                wc = ((a[0] - x) * (b[1] - y) - (a[1] - y) * (b[0] - x)) / c[2]
                scale = wa + wb + wc
                scale = wp.where(scale == 0.0, 1.0, 1.0 / scale)
                wa *= scale
                wb *= scale
                wc *= scale
                material = materials[face]
                point = wa * posed[view, ia] + wb * posed[view, ib] + wc * posed[view, ic]
                normal = wp.normalize(wa * normals[view, ia] + wb * normals[view, ib] + wc * normals[view, ic])
                color = wa * colors[ia] + wb * colors[ib] + wc * colors[ic]
                detail = wa * details[ia] + wb * details[ib] + wc * details[ic]
                ambient = detail[0]
                shine = detail[1]
                u = detail[2]
                v = detail[3]
                to_eye = wp.normalize(wp.vec3f(0.0, 0.0, 10.0) - point)
                facing = wp.dot(normal, to_eye)
                if facing < 0.0 and material != HAIR and material != SKIN:
                    normal = -normal
                    facing = -facing
                away = 1.0 - clamp01(facing)
                grazing = away * away * away * away
                place = wa * shadow_places[view, ia] + wb * shadow_places[view, ib] + wc * shadow_places[view, ic]
                cosine = wp.dot(normal, key)
                # The nine texels reach 0.045 decimetres aside; a slope is that much deeper there, and shades nothing.
                slope = wp.sqrt(1.0 - wp.min(cosine * cosine, 1.0)) / wp.max(cosine, 0.12)
                bias = 0.02 + 0.05 * slope
                if material == HAIR:
                    bias = 0.25
                lit = lit_share(place, bias, view, shadow_depth)
                soft = soft_light(normal, harmonics, view)
                mirrored = 2.0 * facing * normal - to_eye
                if material == SKIN:
                    size = texture.shape[0]
                    s = wp.clamp(u * float(size) - 0.5, 0.0, float(size) - 1.001)
                    t = wp.clamp((1.0 - v) * float(size) - 0.5, 0.0, float(size) - 1.001)
                    left = int(s)
                    top = int(t)
                    if u > 0.0:
                        above = wp.lerp(texture[top, left], texture[top, left + 1], s - float(left))
                        below = wp.lerp(texture[top + 1, left], texture[top + 1, left + 1], s - float(left))
                        # Marks are changes of a bright skin; on a dark one they are as much fainter as it is.
                        bright = wp.min((color[0] + color[1] + color[2]) * 0.55, 1.0)
                        color += bright * wp.lerp(above, below, t - float(top))
                    albedo = linear(color)
                    # Light in the skin's folds has been reflected by skin: it is redder.
                    folds = wp.vec3f(wp.pow(ambient, 0.8), ambient, wp.pow(ambient, 1.05))
                    key_light = wp.vec3f(
                        wrapped(cosine, 0.30) * wp.lerp(lit, 1.0, 0.03),
                        wrapped(cosine, 0.14) * lit,
                        wrapped(cosine, 0.10) * lit,
                    )
                    arriving = wp.cw_mul(soft, folds) + wp.cw_mul(strength, key_light) + flash * clamp01(facing)
                    light = wp.cw_mul(albedo, arriving)
                    reflected = soft_light(mirrored, harmonics, view) * (0.022 + 0.30 * grazing) * ambient * ambient
                    lobe = 0.35 * gloss(normal, key, to_eye, 36.0) + 0.65 * gloss(normal, key, to_eye, 12.0)
                    reflected += strength * (lobe * lit * (0.028 + 0.35 * grazing))
                    reflected += flash * (0.028 * gloss(normal, to_eye, to_eye, 24.0))
                    light += reflected * shine
                elif material == EYE or material == MOUTH:  # noqa: SIM109 - Warp knows no `in`
                    if material == EYE:
                        radius = wp.sqrt(u * u + v * v)
                        if radius > 0.12 and radius < 0.37:
                            fibres = grain(wp.atan2(u, v) * 9.0 + 40.0, radius * 14.0)
                            color = color * (0.72 + 0.56 * fibres)
                    albedo = linear(color)
                    arriving = soft * ambient + strength * (wrapped(cosine, 0.2) * lit) + flash * clamp01(facing)
                    light = wp.cw_mul(albedo, arriving)
                    there = turn[view] * mirrored
                    reflected = panorama_light(there, panorama) * (0.025 + 0.4 * grazing)
                    reflected += strength * (0.06 * gloss(normal, key, to_eye, 260.0) * lit)
                    reflected += flash * (0.05 * gloss(normal, to_eye, to_eye, 400.0))
                    light += reflected * shine * ambient
                elif material == HAIR:
                    along = wp.normalize(posed[view, ic] - posed[view, ia])
                    strands = 0.5 * grain(u * 5.0 + 17.0 * shine, v * 3.0) + 0.5 * grain(
                        u * 13.0 + 31.0 * shine, v * 5.0
                    )
                    albedo = linear(color * (0.74 + 0.52 * strands))
                    sine_key = wp.sqrt(wp.max(1.0 - wp.pow(wp.dot(along, key), 2.0), 0.0))
                    arriving = soft * ambient
                    arriving += strength * (lit * (0.35 * sine_key + 0.65) * clamp01(0.25 + 0.75 * cosine) * ambient)
                    arriving += flash * (0.8 * clamp01(facing))
                    light = wp.cw_mul(albedo, arriving)
                    half = wp.normalize(key + to_eye)
                    shift = 0.35 * (strands - 0.5)
                    across = wp.dot(along, half) + shift
                    sine = wp.sqrt(wp.max(1.0 - across * across, 0.0))
                    band = wp.pow(sine, 70.0) * 0.055 + wp.pow(sine, 14.0) * 0.022
                    light += strength * (band * lit * clamp01(0.3 + cosine) * ambient)
                    half = wp.normalize(to_eye + wp.vec3f(0.0, 1.0, 0.0))
                    across = wp.dot(along, half) + shift
                    sine = wp.sqrt(wp.max(1.0 - across * across, 0.0))
                    sky = soft_light(wp.vec3f(0.0, 1.0, 0.0), harmonics, view)
                    light += sky * (wp.pow(sine, 30.0) * 0.014 * ambient * clamp01(0.4 + normal[1]))
                    light += flash * (0.02 * strands)
                else:
                    if material == CLOTH:
                        kind = cloth[1][0]
                        often = cloth[1][1]
                        pattern = 0.0
                        if kind > 0.5 and kind < 1.5:
                            pattern = wp.where(wp.sin(v * often) > 0.2, 1.0, 0.0)
                        elif kind < 2.5 and kind > 0.5:
                            pattern = wp.where(wp.sin(u * often) > 0.3, 1.0, 0.0)
                        elif kind < 3.5 and kind > 0.5:
                            pattern = 0.5 * wp.where(wp.sin(u * often) > 0.0, 1.0, 0.0)
                            pattern += 0.5 * wp.where(wp.sin(v * often) > 0.0, 1.0, 0.0)
                        elif kind < 4.5 and kind > 0.5:
                            pattern = wp.where(wp.sin(u * often) * wp.sin(v * often) > 0.55, 1.0, 0.0)
                        elif kind > 0.5:
                            pattern = wp.where(grain(u * often * 0.3, v * often * 0.3) > 0.55, 1.0, 0.0)
                        color = wp.lerp(color, cloth[0], pattern * cloth[1][2])
                        color = (
                            color * (0.94 + 0.12 * grain(u * 60.0, v * 60.0)) * (0.85 + 0.3 * grain(u * 3.3, v * 3.9))
                        )
                    albedo = linear(color)
                    arriving = soft * ambient + strength * (wp.max(cosine, 0.0) * lit) + flash * clamp01(facing)
                    light = wp.cw_mul(albedo, arriving)
                    reflected = strength * (gloss(normal, key, to_eye, 30.0) * lit * 0.03)
                    reflected += soft_light(mirrored, harmonics, view) * (0.02 + 0.2 * grazing) * ambient
                    light += reflected * shine
            total += wp.vec3f(tone(light[0]), tone(light[1]), tone(light[2]))
    picture[view, row, column] = total / shaded
