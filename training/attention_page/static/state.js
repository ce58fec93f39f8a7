// What is shown: a single object; each picture names the keys that it depends on and is drawn again when one changes.

// frame: place in record.map_steps. head: [layer, head]. query, key: tokens. rows: rows of the product that are drawn.
export const state = {};
const pictures = [];
let changed = new Set();

// Add a picture, which is drawn when one of these keys changes. Those that were added first are drawn first.
export const picture = (keys, draw) => pictures.push({ keys, draw });

export const isChosen = ([layer, head]) => layer === state.head[0] && head === state.head[1];

export function change(values) {
  for (const [key, value] of Object.entries(values)) {
    if (String(state[key]) === String(value)) continue;
    state[key] = value;
    if (!changed.size) requestAnimationFrame(drawChanged);
    changed.add(key);
  }
}

function drawChanged() {
  const now = changed;
  changed = new Set();
  for (const { keys, draw } of pictures) if (keys.some((key) => now.has(key))) draw();
}

export function drawAll() {
  for (const { draw } of pictures) draw();
}
