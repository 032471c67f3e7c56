"use strict";
// A small WebGL 2 viewer of one textured triangle mesh: drag or arrow keys turn, wheel or pinch zooms, double click resets.

const VERTEX_SHADER = `#version 300 es
in vec3 position;
in vec3 normal;
in vec2 uv;
uniform mat4 view;
uniform mat4 projection;
out vec3 vNormal;
out vec3 vPosition;
out vec2 vUv;
out vec3 vCorner;
void main() {
  vec4 seen = view * vec4(position, 1.0);
  vNormal = mat3(view) * normal;
  vPosition = seen.xyz;
  vUv = uv;
  int corner = gl_VertexID % 3;
  vCorner = vec3(corner == 0, corner == 1, corner == 2);
  gl_Position = projection * seen;
}`;

const FRAGMENT_SHADER = `#version 300 es
precision highp float;
in vec3 vNormal;
in vec3 vPosition;
in vec2 vUv;
in vec3 vCorner;
uniform sampler2D image;
uniform int mode;
uniform vec3 accent;
out vec4 color;

vec3 clay(vec3 n, vec3 sight) {
  vec3 key = normalize(vec3(-0.5, 0.65, 0.75));
  vec3 fill = normalize(vec3(0.85, -0.1, 0.45));
  float light = 0.17 + 0.66 * max(dot(n, key), 0.0) + 0.2 * max(dot(n, fill), 0.0);
  float gloss = pow(max(dot(n, normalize(key + sight)), 0.0), 28.0);
  float rim = pow(1.0 - max(dot(n, sight), 0.0), 4.0);
  return vec3(0.8, 0.78, 0.76) * light + 0.1 * gloss + 0.12 * rim;
}

void main() {
  vec3 sight = normalize(-vPosition);
  if (!gl_FrontFacing) {
    color = vec4(vec3(0.2, 0.21, 0.23) * (0.6 + 0.4 * abs(dot(normalize(vNormal), sight))), 1.0);
    return;
  }
  vec3 n = normalize(vNormal);
  if (mode == 0) {
    float facing = max(dot(n, sight), 0.0);
    color = vec4(texture(image, vUv).rgb * mix(0.62, 1.0, smoothstep(0.0, 0.65, facing)), 1.0);
    return;
  }
  vec3 shaded = clay(n, sight);
  if (mode == 2) {
    vec3 width = fwidth(vCorner);
    vec3 near = smoothstep(vec3(0.0), width * 1.1, vCorner);
    float edge = 1.0 - min(near.x, min(near.y, near.z));
    shaded = mix(shaded * 0.55, accent, edge * 0.8);
  }
  color = vec4(shaded, 1.0);
}`;

const MODES = { texture: 0, shape: 1, wireframe: 2 };
const FIELD_OF_VIEW = 0.42;

function decode(text, Type) {
  const bytes = Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
  return new Type(bytes.buffer);
}

function vertexNormals(positions, indices) {
  const normals = new Float32Array(positions.length);
  for (let k = 0; k < indices.length; k += 3) {
    const [a, b, c] = [indices[k] * 3, indices[k + 1] * 3, indices[k + 2] * 3];
    const u = [0, 1, 2].map((axis) => positions[b + axis] - positions[a + axis]);
    const v = [0, 1, 2].map((axis) => positions[c + axis] - positions[a + axis]);
    const cross = [u[1] * v[2] - u[2] * v[1], u[2] * v[0] - u[0] * v[2], u[0] * v[1] - u[1] * v[0]];
    for (const corner of [a, b, c]) for (let axis = 0; axis < 3; axis++) normals[corner + axis] += cross[axis];
  }
  for (let k = 0; k < normals.length; k += 3) {
    const length = Math.hypot(normals[k], normals[k + 1], normals[k + 2]) || 1;
    for (let axis = 0; axis < 3; axis++) normals[k + axis] /= length;
  }
  return normals;
}

function perCorner(values, indices, width) {
  const result = new Float32Array(indices.length * width);
  indices.forEach((vertex, corner) => {
    for (let k = 0; k < width; k++) result[corner * width + k] = values[vertex * width + k];
  });
  return result;
}

class MeshViewer {
  constructor(canvas) {
    this.canvas = canvas;
    const gl = canvas.getContext("webgl2", { antialias: true, alpha: true });
    if (!gl) throw new Error("This browser offers no WebGL 2, so the 3D view stays empty.");
    this.gl = gl;
    this.mode = "texture";
    this.touched = window.matchMedia("(prefers-reduced-motion: reduce)").matches;
    this.pointers = new Map();
    this.buildProgram();
    this.listen();
    this.reset();
    new ResizeObserver(() => this.draw()).observe(canvas);
    const sway = (time) => {
      if (this.touched) return;
      this.yaw = 0.45 * Math.sin(time / 1700);
      this.draw();
      requestAnimationFrame(sway);
    };
    requestAnimationFrame(sway);
  }

  buildProgram() {
    const gl = this.gl;
    this.program = gl.createProgram();
    for (const [kind, source] of [[gl.VERTEX_SHADER, VERTEX_SHADER], [gl.FRAGMENT_SHADER, FRAGMENT_SHADER]]) {
      const shader = gl.createShader(kind);
      gl.shaderSource(shader, source);
      gl.compileShader(shader);
      if (!gl.getShaderParameter(shader, gl.COMPILE_STATUS)) throw new Error(gl.getShaderInfoLog(shader));
      gl.attachShader(this.program, shader);
    }
    gl.linkProgram(this.program);
    if (!gl.getProgramParameter(this.program, gl.LINK_STATUS)) throw new Error(gl.getProgramInfoLog(this.program));
    this.buffers = { position: [gl.createBuffer(), 3], normal: [gl.createBuffer(), 3], uv: [gl.createBuffer(), 2] };
    this.texture = gl.createTexture();
    gl.enable(gl.DEPTH_TEST);
  }

  setMesh({ positions, uv, indices, texture }) {
    const gl = this.gl;
    const places = decode(positions, Float32Array);
    const corners = decode(indices, Uint32Array);
    const attributes = { position: places, normal: vertexNormals(places, corners), uv: decode(uv, Float32Array) };
    for (const [name, [buffer, width]] of Object.entries(this.buffers)) {
      gl.bindBuffer(gl.ARRAY_BUFFER, buffer);
      gl.bufferData(gl.ARRAY_BUFFER, perCorner(attributes[name], corners, width), gl.STATIC_DRAW);
    }
    this.count = corners.length;
    const low = [Infinity, Infinity, Infinity], high = [-Infinity, -Infinity, -Infinity];
    places.forEach((value, k) => {
      low[k % 3] = Math.min(low[k % 3], value);
      high[k % 3] = Math.max(high[k % 3], value);
    });
    this.centre = low.map((value, axis) => (value + high[axis]) / 2);
    this.radius = Math.hypot(...low.map((value, axis) => high[axis] - value)) / 2;
    const picture = new Image();
    picture.onload = () => {
      gl.bindTexture(gl.TEXTURE_2D, this.texture);
      gl.pixelStorei(gl.UNPACK_FLIP_Y_WEBGL, true);
      gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA, gl.RGBA, gl.UNSIGNED_BYTE, picture);
      gl.generateMipmap(gl.TEXTURE_2D);
      gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_MIN_FILTER, gl.LINEAR_MIPMAP_LINEAR);
      this.draw();
    };
    picture.src = texture;
    this.draw();
  }

  setMode(mode) {
    this.mode = mode;
    this.draw();
  }

  reset() {
    [this.yaw, this.pitch, this.zoom] = [0, 0, 1];
    this.draw();
  }

  turn(dx, dy) {
    this.touched = true;
    this.yaw += dx;
    this.pitch = Math.max(-1.5, Math.min(1.5, this.pitch + dy));
    this.draw();
  }

  scale(factor) {
    this.touched = true;
    this.zoom = Math.max(0.5, Math.min(6, this.zoom * factor));
    this.draw();
  }

  listen() {
    const canvas = this.canvas;
    const spread = () => {
      const [a, b] = [...this.pointers.values()];
      return Math.hypot(a.x - b.x, a.y - b.y);
    };
    canvas.addEventListener("pointerdown", (event) => {
      canvas.setPointerCapture(event.pointerId);
      this.pointers.set(event.pointerId, { x: event.clientX, y: event.clientY });
    });
    canvas.addEventListener("pointermove", (event) => {
      const before = this.pointers.get(event.pointerId);
      if (!before) return;
      const now = { x: event.clientX, y: event.clientY };
      if (this.pointers.size === 2) {
        const apart = spread();
        this.pointers.set(event.pointerId, now);
        if (apart > 0) this.scale(spread() / apart);
      } else {
        this.pointers.set(event.pointerId, now);
        this.turn((now.x - before.x) * 0.009, (now.y - before.y) * 0.009);
      }
    });
    for (const name of ["pointerup", "pointercancel"]) {
      canvas.addEventListener(name, (event) => this.pointers.delete(event.pointerId));
    }
    canvas.addEventListener("wheel", (event) => {
      event.preventDefault();
      this.scale(Math.exp(-event.deltaY * 0.0015));
    }, { passive: false });
    canvas.addEventListener("dblclick", () => this.reset());
    const keys = {
      ArrowLeft: () => this.turn(-0.1, 0), ArrowRight: () => this.turn(0.1, 0),
      ArrowUp: () => this.turn(0, -0.1), ArrowDown: () => this.turn(0, 0.1),
      "+": () => this.scale(1.15), "-": () => this.scale(1 / 1.15), Home: () => this.reset(),
    };
    canvas.addEventListener("keydown", (event) => {
      if (!(event.key in keys)) return;
      event.preventDefault();
      keys[event.key]();
    });
  }

  draw() {
    if (!this.count) return;
    const gl = this.gl, canvas = this.canvas;
    const ratio = Math.min(window.devicePixelRatio || 1, 2);
    const width = Math.max(1, Math.round(canvas.clientWidth * ratio));
    const height = Math.max(1, Math.round(canvas.clientHeight * ratio));
    if (canvas.width !== width || canvas.height !== height) [canvas.width, canvas.height] = [width, height];
    gl.viewport(0, 0, width, height);
    gl.clearColor(0, 0, 0, 0);
    gl.clear(gl.COLOR_BUFFER_BIT | gl.DEPTH_BUFFER_BIT);
    gl.useProgram(this.program);
    for (const [name, [buffer, size]] of Object.entries(this.buffers)) {
      const place = gl.getAttribLocation(this.program, name);
      gl.bindBuffer(gl.ARRAY_BUFFER, buffer);
      gl.enableVertexAttribArray(place);
      gl.vertexAttribPointer(place, size, gl.FLOAT, false, 0, 0);
    }
    const aspect = width / height;
    const reach = 1 / Math.tan(FIELD_OF_VIEW / 2) * Math.min(1, aspect);
    const distance = this.radius / Math.sin(FIELD_OF_VIEW / 2) / this.zoom;
    const [near, far] = [Math.max(distance - 2 * this.radius, 0.02 * this.radius), distance + 2 * this.radius];
    const projection = [
      reach / aspect, 0, 0, 0, 0, reach, 0, 0, 0, 0, (far + near) / (near - far), -1, 0, 0, 2 * far * near / (near - far), 0,
    ];
    const [cy, sy, cx, sx] = [Math.cos(this.yaw), Math.sin(this.yaw), Math.cos(this.pitch), Math.sin(this.pitch)];
    const rows = [[cy, 0, sy], [sx * sy, cx, -sx * cy], [-cx * sy, sx, cx * cy]];
    const shift = rows.map((row) => -row.reduce((sum, value, axis) => sum + value * this.centre[axis], 0));
    shift[2] -= distance;
    const view = [0, 1, 2].flatMap((axis) => [rows[0][axis], rows[1][axis], rows[2][axis], 0]).concat(shift, 1);
    const uniform = (name) => gl.getUniformLocation(this.program, name);
    gl.uniformMatrix4fv(uniform("projection"), false, projection);
    gl.uniformMatrix4fv(uniform("view"), false, view);
    gl.uniform1i(uniform("mode"), MODES[this.mode]);
    gl.uniform3f(uniform("accent"), 0.36, 0.78, 0.74);
    gl.bindTexture(gl.TEXTURE_2D, this.texture);
    gl.drawArrays(gl.TRIANGLES, 0, this.count);
  }
}
