"use strict";
// Fills the page from the data embedded in it; needs viewer.js above.

const data = JSON.parse(document.getElementById("data").textContent);
const $ = (selector) => document.querySelector(selector);
const SVG = "http://www.w3.org/2000/svg";
const HISTORY = { energy: "fit: energy", photometric: "fit: colour", landmark: "fit: points, %" };
const FILES = { "mesh.glb": " (metres)", "mesh.obj": " (millimetres)", "mesh.png": "" };
let viewer = null;
let current = 0;

function svg(name, attributes, parent) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  parent.append(element);
  return element;
}

function showLandmarks() {
  const layer = $("#landmarks");
  layer.replaceChildren();
  layer.setAttribute("viewBox", `0 0 ${data.width} ${data.height}`);
  data.faces.forEach((face, number) => {
    const radius = face.size * 0.012;
    if ($("#show-landmarks").checked) {
      for (const kind of ["detected", "projected"]) {
        for (const [x, y] of face[kind]) svg("circle", { cx: x, cy: y, r: radius, class: kind }, layer);
      }
    }
    if (data.faces.length > 1) {
      const [left, top, right, bottom] = face.box;
      const chosen = number === current ? "box chosen" : "box";
      const place = { x: left, y: top, width: right - left, height: bottom - top, rx: radius * 4 };
      svg("rect", { ...place, class: chosen }, layer).addEventListener("click", () => showFace(number));
      const label = { x: left + radius * 3, y: top + radius * 13, "font-size": radius * 12, class: "number" };
      svg("text", label, layer).textContent = face.number;
    }
  });
}

function bars(values, names, parent) {
  const width = 320, height = 56, step = width / values.length;
  const limit = Math.max(1, ...values.map(Math.abs));
  const chart = svg("svg", { viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: "none", class: "bars" }, parent);
  svg("line", { x1: 0, x2: width, y1: height / 2, y2: height / 2 }, chart);
  values.forEach((value, k) => {
    const size = Math.abs(value) / limit * height / 2;
    const place = { x: k * step + step * 0.12, width: step * 0.76, y: height / 2 - (value > 0 ? size : 0), height: size };
    svg("title", {}, svg("rect", place, chart)).textContent = `${names ? names[k] : k}: ${value.toFixed(3)}`;
  });
}

function curve(values, parent) {
  const width = 320, height = 56;
  const low = Math.min(...values), span = Math.max(...values) - low || 1;
  const places = values.map((value, k) => [
    k / Math.max(values.length - 1, 1) * width, 4 + (1 - (value - low) / span) * (height - 8),
  ]);
  const chart = svg("svg", { viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: "none", class: "curve" }, parent);
  svg("polyline", { points: places.map((place) => place.join(",")).join(" ") }, chart);
}

function stages(seconds, total, parent) {
  const strip = document.createElement("div");
  strip.className = "stages";
  for (const [name, value] of Object.entries(seconds)) {
    const piece = document.createElement("span");
    piece.style.flexGrow = value / total;
    piece.title = `${name}: ${value} s`;
    // A narrow piece has no room for its name, which the title still tells.
    if (value / total * 210 > 7 * name.length + 12) piece.textContent = name;
    strip.append(piece);
  }
  parent.append(strip);
}

function card(title, note, fill, parent) {
  const box = document.createElement("div");
  box.className = "chart";
  const head = document.createElement("p");
  head.append(title);
  const side = document.createElement("span");
  side.textContent = note;
  head.append(side);
  box.append(head);
  fill(box);
  parent.append(box);
}

function showFace(number) {
  current = number;
  const face = data.faces[number];
  document.querySelectorAll("#tabs button").forEach((tab, k) => tab.setAttribute("aria-selected", k === number));
  for (const name of ["crop", "render", "shape", "albedo"]) $(`#${name}`).src = face.pictures[name];
  $("#unwrapped").src = face.mesh.texture;
  $("#detail").closest("figure").hidden = !face.detail;
  if (face.detail) $("#detail").src = face.detail;
  const table = $("#figures");
  table.replaceChildren();
  for (const [label, value] of face.figures) {
    const row = table.insertRow();
    row.insertCell().textContent = label;
    row.insertCell().textContent = value;
  }
  const charts = $("#charts");
  charts.replaceChildren();
  for (const [name, values] of Object.entries(face.coefficients)) {
    const peak = Math.max(...values.map(Math.abs)).toFixed(2);
    card(name, `${values.length}, largest ${peak}`, (box) => bars(values, data.names[name]?.length ? data.names[name] : null, box), charts);
  }
  for (const [name, values] of Object.entries(face.history)) {
    const ends = `${values[0].toPrecision(3)} \u2192 ${values.at(-1).toPrecision(3)}`;
    card(HISTORY[name], ends, (box) => curve(values, box), charts);
  }
  const total = Object.values(face.seconds).reduce((sum, value) => sum + value, 0);
  card("time", `${total.toFixed(1)} s`, (box) => stages(face.seconds, total, box), charts);
  $("#downloads").replaceChildren(...Object.entries(FILES).map(([file, unit]) => {
    const link = document.createElement("a");
    link.href = face.folder + file;
    link.textContent = file + unit;
    return link;
  }));
  showLandmarks();
  if (viewer) viewer.setMesh(face.mesh);
}

function start() {
  document.body.classList.toggle("wide", data.width > 1.5 * data.height);
  data.faces.forEach((face, number) => {
    const tab = document.createElement("button");
    tab.textContent = `Face ${face.number}`;
    tab.addEventListener("click", () => showFace(number));
    $("#tabs").append(tab);
  });
  $("#tabs").hidden = data.faces.length < 2;
  // The edge between photograph and overlay starts in the middle of the first face.
  const [left, , right] = data.faces[0].box;
  $("#split").value = (left + right) / 2 / data.width * 100;
  const split = () => $("#compare").style.setProperty("--split", `${$("#split").value}%`);
  $("#split").addEventListener("input", split);
  $("#show-landmarks").addEventListener("change", showLandmarks);
  split();
  try {
    viewer = new MeshViewer($("#viewer"));
  } catch (error) {
    $("#viewer-message").textContent = error.message;
  }
  document.querySelectorAll("#modes button").forEach((button) => button.addEventListener("click", () => {
    document.querySelectorAll("#modes button").forEach((other) => other.setAttribute("aria-pressed", other === button));
    if (viewer) viewer.setMode(button.value);
  }));
  showFace(0);
}

start();
