// Canvases in CSS pixels, sharp on every screen: pointers, arrow keys, axes, lines, outlines, texts of tokens and numbers.
import { variable } from "./colours.js";

// The context of a canvas that is cleared and has this size in CSS pixels.
export function begin(canvas, width, height) {
  const ratio = window.devicePixelRatio || 1;
  const size = [width, height].map((length) => Math.round(length * ratio));
  if (canvas.width !== size[0] || canvas.height !== size[1]) [canvas.width, canvas.height] = size;
  canvas.style.width = `${width}px`;
  canvas.style.height = `${height}px`;
  const context = canvas.getContext("2d");
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, width, height);
  context.font = "12px system-ui, sans-serif";
  context.fillStyle = context.strokeStyle = variable("text");
  context.lineWidth = 1;
  context.imageSmoothingEnabled = false;
  return context;
}

// The width that a canvas may take.
export function widthFor(canvas, most) {
  const style = getComputedStyle(canvas.parentElement);
  return Math.min(most, canvas.parentElement.clientWidth - parseFloat(style.paddingLeft) - parseFloat(style.paddingRight));
}

// Call `act(x, y, event)` where a pointer moves, or is put down, on a canvas.
export function onPoint(canvas, act, kinds = ["pointermove", "pointerdown"]) {
  for (const kind of kinds) {
    canvas.addEventListener(kind, (event) => {
      const box = canvas.getBoundingClientRect();
      act(event.clientX - box.left, event.clientY - box.top, event);
    });
  }
}

const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

// Call `act(across, down)` for arrow keys while the canvas has the focus.
export function onArrows(canvas, act) {
  canvas.addEventListener("keydown", (event) => {
    if (!ARROWS[event.key]) return;
    event.preventDefault();
    event.stopPropagation();
    act(...ARROWS[event.key], event);
  });
}

export const within = (value, low, high) => Math.min(Math.max(value, low), high);
export const scale = ([low, high], from, to) => (value) => from + ((value - low) / (high - low || 1)) * (to - from);

// Round numbers in a range, at most about this many.
export function ticks([low, high], most = 5) {
  const rough = (high - low || 1) / most;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((size) => size >= rough);
  const first = Math.ceil(low / step - 1e-9);
  return Array.from({ length: Math.floor(high / step + 1e-9) - first + 1 }, (_, place) => (first + place) * step);
}

const WHITE = { "\n": "⏎", "\t": "⇥", "\r": "␍", " ": "␣" };
export const visible = (token) => token.replace(/[\n\t\r ]/g, (character) => WHITE[character]) || "∅";
export const clipped = (token, most = 9) => {
  const characters = [...visible(token)];
  return characters.length > most ? `${characters.slice(0, most - 1).join("")}…` : characters.join("");
};
export const quoted = (token) => `“${clipped(token, 24)}”`;

export const percent = (share) => `${(100 * share).toFixed(share >= 0.1 ? 0 : share >= 0.001 || !share ? 1 : 3)} %`;
export const named = (name) => name.replaceAll("_", " ");
export const count = (number) => number.toLocaleString("en");

// A number with three significant digits, and a true minus sign.
export function short(number) {
  if (number == null) return "–";
  if (number === Infinity || number === -Infinity) return number > 0 ? "∞" : "−∞";
  const size = Math.abs(number);
  const text = size && (size >= 1e5 || size < 1e-3) ? number.toExponential(1) : String(Number(number.toPrecision(3)));
  return text.replaceAll("-", "−").replace("e+", "e");
}

export function text(context, words, x, y, align = "left", colour = null, baseline = "middle") {
  context.save();
  context.textAlign = align;
  context.textBaseline = baseline;
  if (colour) context.fillStyle = colour;
  context.fillText(words, x, y);
  context.restore();
}

// An outline around cells that can be seen on every colour.
export function outline(context, x, y, width, height) {
  for (const [colour, thick] of [["#000", 4], ["#fff", 2]]) {
    context.strokeStyle = colour;
    context.lineWidth = thick;
    context.strokeRect(x - 2, y - 2, width + 4, height + 4);
  }
}

export function line(context, points, colour, width = 1) {
  context.strokeStyle = colour;
  context.lineWidth = width;
  context.lineJoin = "round";
  context.beginPath();
  for (const [x, y] of points) context.lineTo(x, y);
  context.stroke();
}
