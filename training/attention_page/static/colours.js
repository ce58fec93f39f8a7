// Colours that the colour-blind can read: viridis for shares, blue to orange for signed numbers, Okabe and Ito's for lines.

const VIRIDIS = ["440154", "482878", "3e4989", "31688e", "26828e", "1f9e89", "35b779", "6ece58", "b5de2b", "fde725"];
export const CATEGORIES = ["#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#8a8a8a"];

const rgb = (hex) => [0, 2, 4].map((place) => parseInt(hex.slice(place, place + 2), 16));

// 256 colours as pixels (alpha, blue, green, red) from equidistant stops.
function pixels(stops) {
  return Uint32Array.from({ length: 256 }, (_, place) => {
    const at = (place / 255) * (stops.length - 1);
    const [low, high] = [stops[Math.floor(at)], stops[Math.ceil(at)]];
    const [red, green, blue] = low.map((value, channel) => Math.round(value + (high[channel] - value) * (at % 1)));
    return ((255 << 24) | (blue << 16) | (green << 8) | red) >>> 0;
  });
}

export const SHARES = pixels(VIRIDIS.map(rgb));
const SIGNED = { false: pixels(["00456b", "0072b2", "a6cde4", "f7f7f5", "f3c49b", "d55e00", "803700"].map(rgb)),
  true: pixels(["c3e6fa", "56b4e9", "1f5a7d", "202226", "7d4a12", "e69f00", "ffe3a6"].map(rgb)) };

const darkness = matchMedia("(prefers-color-scheme: dark)");
export const whenDarknessChanges = (draw) => darkness.addEventListener("change", draw);
export const signed = () => SIGNED[darkness.matches];

const css = (pixel) => `rgb(${pixel & 255}, ${(pixel >> 8) & 255}, ${(pixel >> 16) & 255})`;
export const variable = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

// The colour of a layer: a category each, or viridis where there are more layers than categories.
export const layerColour = (layer, layers) =>
  (layers <= CATEGORIES.length ? CATEGORIES[layer] : css(SHARES[Math.round((layer / (layers - 1)) * 235)]));

// A canvas with a pixel for each cell; `pixel(row, column)` is 0 where it is transparent.
export function bitmap(rows, columns, pixel) {
  const canvas = document.createElement("canvas");
  canvas.width = columns;
  canvas.height = rows;
  const context = canvas.getContext("2d");
  const image = context.createImageData(columns, rows);
  const data = new Uint32Array(image.data.buffer);
  for (let row = 0, place = 0; row < rows; row++) {
    for (let column = 0; column < columns; column++, place++) data[place] = pixel(row, column, place);
  }
  context.putImageData(image, 0, 0);
  return canvas;
}

// The map of a head from its lower triangle, of at most `finest` cells a side: each then is the largest of those that it
// covers, so that thin lines stay bright. `colour(stored)` is the pixel of a stored share.
export function mapBitmap(triangle, tokens, finest = tokens, colour = (stored) => SHARES[stored]) {
  const pooled = Math.ceil(tokens / finest), side = Math.ceil(tokens / pooled);
  const largest = new Uint8Array(side * side);
  for (let row = 0, place = 0; row < tokens; row++) {
    for (let column = 0; column <= row; column++, place++) {
      const cell = Math.floor(row / pooled) * side + Math.floor(column / pooled);
      if (triangle[place] > largest[cell]) largest[cell] = triangle[place];
    }
  }
  return bitmap(side, side, (row, column, place) => (column <= row ? colour(largest[place]) : 0));
}
