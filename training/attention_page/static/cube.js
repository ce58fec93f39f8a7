// Maps as a stack in space, token by token by layer or by step, which turns; drawn without perspective, far maps first.
import { SHARES, mapBitmap } from "./colours.js";
import { begin, onArrows, onPoint, text, widthFor, within } from "./canvas.js";
import { find } from "./dom.js";
import { menu } from "./controls.js";
import { change, picture, state } from "./state.js";

const HEIGHT = 520, FINEST = 128, MOST_MAPS = 48, LONGEST = 1.25, STEEPEST = 1.4, TURN = 0.012;
const INK = "#e7e9ee", QUIET = "#8f97a5"; // on the dark ground of the picture in both modes

export function addCube(record) {
  const canvas = find("#cube");
  let slices = []; // { image, label, chosen }
  let turning = null;
  const kinds = [["step", "maps of this head by step"], ["layer", "maps of this step by layer"]];
  menu("depth", "depth", kinds.slice(record.map_steps.length > 1 ? 0 : 1));

  function maps() {
    const { frame: now, head: [layer, head] } = state;
    const all = state.depth === "step"
      ? record.map_steps.map((step, frame) =>
        ({ frame, head: state.head, label: `step ${step}`, chosen: frame === now }))
      : Array.from({ length: record.layers }, (_, place) =>
        ({ frame: now, head: [place, head], label: `layer ${place}`, chosen: place === layer }));
    const known = all.filter((slice) => record.triangle(slice.frame, state.probe, slice.head));
    const every = Math.ceil(known.length / MOST_MAPS);
    return known.filter((slice, place) => slice.chosen || place % every === 0 || place === known.length - 1);
  }

  picture(["probe", "head", "depth", "frame"], () => {
    const tokens = record.probes[state.probe].tokens.length;
    slices = maps().map((slice) => ({ ...slice,
      image: mapBitmap(record.triangle(slice.frame, state.probe, slice.head), tokens, FINEST, translucent) }));
    canvas.setAttribute("aria-label", `${slices.length} maps as a stack, by ${state.depth}`);
  });

  picture(["probe", "head", "depth", "frame", "turn", "tilt"], () => {
    const width = widthFor(canvas, 900);
    const height = Math.min(HEIGHT, width);
    const context = begin(canvas, width, height);
    const project = projection(width, height);
    const last = Math.max(1, slices.length - 1);
    const deep = Math.min(LONGEST, 0.25 * last);
    const depthOf = (place) => (slices.length > 1 ? (place / last - 0.5) * 2 * deep : 0);
    const order = slices.map((slice, place) => ({ ...slice, z: depthOf(place) }))
      .sort((one, other) => project([0, 0, one.z]).near - project([0, 0, other.z]).near);
    for (const slice of order) drawSlice(context, project, slice, 0.5 / slices.length);
    if (slices.length) drawNames(context, project, depthOf, slices);
  });

  // Where a point of space is on the canvas: x along keys, y down queries, z along the stack.
  function projection(width, height) {
    const size = Math.min(0.26 * width, 0.28 * height);
    const [a, b] = [state.turn, state.tilt];
    return ([x, y, z]) => {
      const across = x * Math.cos(a) + z * Math.sin(a), forward = -x * Math.sin(a) + z * Math.cos(a);
      return {
        x: width / 2 + size * across, y: height / 2 + size * (y * Math.cos(b) + forward * Math.sin(b)),
        near: forward * Math.cos(b) - y * Math.sin(b),
      };
    };
  }

  const turnBy = (around, over) =>
    change({ turn: state.turn + around, tilt: within(state.tilt + over, -STEEPEST, STEEPEST) });
  let from = null;
  canvas.addEventListener("pointerdown", (event) => canvas.setPointerCapture(event.pointerId));
  for (const end of ["pointerup", "pointercancel"]) canvas.addEventListener(end, () => { from = null; });
  onPoint(canvas, (x, y, event) => {
    if (event.type === "pointerdown") { from = [x, y]; return; }
    if (!from) return;
    turnBy((x - from[0]) * TURN, (y - from[1]) * TURN);
    from = [x, y];
  });
  onArrows(canvas, (across, down) => turnBy(across * 0.1, down * 0.1));

  find("#turn").addEventListener("click", () => {
    clearInterval(turning);
    turning = turning === null ? setInterval(() => change({ turn: state.turn + 0.02 }), 40) : null;
    find("#turn").setAttribute("aria-pressed", String(turning !== null));
  });
}

// A share as a pixel: small ones are transparent, so that later maps do not hide earlier ones.
const translucent = (stored) =>
  ((Math.round(255 * within((stored - 40) / 130, 0, 1)) << 24) | (SHARES[stored] & 0xffffff)) >>> 0;

const CORNERS = [[-1, -1], [1, -1], [1, 1], [-1, 1]];

function drawSlice(context, project, { image, z, chosen }, veil) {
  const corners = CORNERS.map(([x, y]) => project([x, y, z]));
  context.beginPath();
  for (const { x, y } of corners) context.lineTo(x, y);
  context.closePath();
  context.fillStyle = chosen ? "rgba(127, 178, 255, 0.1)" : `rgba(127, 178, 255, ${veil})`;
  context.fill();
  context.lineWidth = chosen ? 2 : 1;
  context.strokeStyle = chosen ? "#7fb2ff" : "rgba(160, 167, 180, 0.25)";
  context.stroke();
  const [origin, across, , down] = corners;
  context.save();
  context.transform((across.x - origin.x) / image.width, (across.y - origin.y) / image.width,
    (down.x - origin.x) / image.height, (down.y - origin.y) / image.height, origin.x, origin.y);
  context.drawImage(image, 0, 0);
  context.restore();
}

function drawNames(context, project, depthOf, slices) {
  const at = (point, words, colour) => {
    const { x, y } = project(point);
    text(context, words, x, y, "center", colour);
  };
  const last = slices.length - 1;
  at([0, 1.12, depthOf(last)], "key token →", QUIET);
  at([-1.25, 0, depthOf(0)], "query ↓", QUIET);
  slices.forEach((slice, place) => {
    if (!slice.chosen && place !== 0 && place !== last) return;
    at([1, -1.12, depthOf(place)], slice.label, slice.chosen ? INK : QUIET);
  });
}
