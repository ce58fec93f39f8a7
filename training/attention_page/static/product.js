// Q, K and V as matrices: the map is their product, row by row; the arithmetic of a cell is spelt out below.
import { allowed, difference, dotProducts, outputs, softmax, spellCell, spellOutput, spellVector } from "./arithmetic.js";
import { SHARES, bitmap, signed, variable } from "./colours.js";
import { begin, clipped, onArrows, onPoint, outline, percent, text, widthFor, within } from "./canvas.js";
import { button, element, find } from "./dom.js";
import { change, isChosen, picture, state } from "./state.js";

const MARGIN = 76, NARROW = 600, TITLE = 20, GAP = 14, FINEST = 0.8, COARSEST = 7, LABEL = 11; // pixels
const ROOM = [340, 260], TICK = 120; // pixels that the arithmetic needs; milliseconds for a row
const ROUNDING = 0.04; // of shares, by the rounding of vectors and maps
const STAGES = { dot: "1 dot products", scaled: "2 scaled and masked", shares: "3 softmax: shares" };
const KEYS = ["frame", "probe", "head"];


// The pixel of each number: white is 0, the strongest colours are the largest number and its negative.
function signedPixel(values) {
  const most = values.reduce((largest, value) => Math.max(largest, Math.abs(value)), 1e-9), colours = signed();
  return (place) => colours[Math.round(127.5 + (127.5 * values[place]) / most)];
}

export function addProduct(record) {
  const canvas = find("#product");
  const size = record.head_dim;
  const tokens = () => record.probes[state.probe].tokens;
  let all = null; // matrices of the shown head; null if the page has none
  let images = null;
  let box = {}; // x, y, columns and rows of each matrix
  let cell, left, timer = null;

  picture(KEYS, () => {
    const head = record.vector_heads.find(isChosen) ?? record.vector_heads[0];
    find("#product_parts").hidden = find("#stages").hidden = !head;
    if (!head) {
      find("#product_note").textContent = "This page has no queries, keys and values.";
      return;
    }
    const vectors = record.vectorsOf(state.frame, state.probe, head);
    const triangle = record.triangle(record.map_steps.indexOf(vectors.step), state.probe, head);
    const products = dotProducts(vectors.q, vectors.k, tokens().length, size);
    const weights = softmax(products, triangle, tokens().length, record.scale);
    const means = outputs(weights.shares, vectors.v, tokens().length, size);
    all = { ...vectors, head, triangle, products, weights, means };
    const off = difference(weights.shares, triangle, tokens().length);
    find("#product_note").textContent = describe(record, head, vectors.step) + (off < ROUNDING ? "" :
      ` The recorded map differs by up to ${percent(off)}: this model changes scores further, as by a soft cap or a sink.`);
  });

  function paint() {
    const count = tokens().length;
    const [q, k, v, o] = [all.q, all.k, all.v, all.means].map(signedPixel);
    const product = signedPixel(all.products);
    const share = (place) => SHARES[Math.round(255 * Math.sqrt(all.weights.shares[place]))];
    const pixel = {
      dot: (row, column, place) => product(place),
      scaled: (row, column, place) => (allowed(all.triangle, row, column) ? product(place) : 0),
      shares: (row, column, place) => (column <= row ? share(place) : 0),
    }[state.stage];
    images = {
      q: bitmap(count, size, (row, column, place) => q(place)),
      k: bitmap(size, count, (row, column) => k(column * size + row)),
      v: bitmap(count, size, (row, column, place) => v(place)),
      map: bitmap(count, count, pixel),
      o: bitmap(count, size, (row, column, place) => o(place)),
    };
  }
  picture([...KEYS, "stage"], () => { if (all) paint(); });

  function layOut() {
    const count = tokens().length;
    const room = widthFor(canvas, 1300);
    left = room < NARROW ? 2 : MARGIN;
    cell = within((room - left - 2 * GAP - 4) / (2 * size + count), FINEST, COARSEST);
    const high = Math.max(size, count) * cell;
    const middle = left + size * cell + GAP, right = middle + count * cell + GAP, low = TITLE + high + GAP + TITLE;
    const product = { dot: "Q · K", scaled: "scores", shares: "map" }[state.stage];
    const matrix = (x, y, rows, columns, ...title) => ({ x, y, rows, columns, title });
    box = {
      k: matrix(middle, TITLE + high - size * cell, size, count, "K", ` transposed: ${size} × ${count}`),
      v: matrix(right, TITLE + high - count * cell, count, size, "V", `: ${count} × ${size}`),
      q: matrix(left, low, count, size, "Q", `: ${count} tokens × ${size} numbers`),
      map: matrix(middle, low, count, count, product, ""),
      o: matrix(right, low, count, size, "output", ": map · V"),
    };
    const above = { width: right - GAP, height: box.k.y - 2 * TITLE };
    placeArithmetic([above, { width: middle - GAP, height: low - 2 * TITLE }]);
    return [right + size * cell + 4, low + count * cell + 4];
  }

  // The arithmetic goes into the first of these free places beside K that is large enough, else below the matrices.
  function placeArithmetic(places) {
    const free = places.find(({ width, height }) => width >= ROOM[0] && height >= ROOM[1]);
    const list = find("#arithmetic");
    list.classList.toggle("inside", Boolean(free));
    list.style.width = free ? `${free.width - 8}px` : "";
    list.style.maxHeight = free ? `${free.height - 8}px` : "";
  }

  // Which parts of the matrices belong to the chosen number, as [matrix, first row, rows, first column, columns].
  function involved() {
    const { query, key, dim } = state, count = tokens().length;
    const ofQuery = ["q", query, 1, 0, size], ofKey = ["k", 0, size, key, 1];
    return {
      map: [ofQuery, ofKey, ["map", query, 1, key, 1], ["v", key, 1, 0, size]],
      o: [["map", query, 1, 0, count], ["v", 0, count, dim, 1], ["o", query, 1, dim, 1]],
      q: [ofQuery, ["q", query, 1, dim, 1]],
      k: [ofKey, ["k", dim, 1, key, 1]],
      v: [["v", key, 1, 0, size], ["v", key, 1, dim, 1]],
    }[state.part];
  }

  picture([...KEYS, "stage", "query", "key", "dim", "part", "rows"], () => {
    if (!all) return;
    const context = begin(canvas, ...layOut());
    const count = tokens().length;
    const rows = Math.min(state.rows, count);
    for (const [name, { x, y, columns, rows: high, title }] of Object.entries(box)) {
      const fits = context.measureText(title.join("")).width <= columns * cell;
      text(context, fits ? title.join("") : title[0], x, y - 9, "left", variable("quiet"));
      const drawn = name === "map" || name === "o" ? rows : high;
      if (drawn) context.drawImage(images[name], 0, 0, columns, drawn, x, y, columns * cell, drawn * cell);
      context.strokeStyle = variable("edge");
      context.lineWidth = 1;
      context.strokeRect(x - 0.5, y - 0.5, columns * cell + 1, high * cell + 1);
    }
    for (const [name, row, high, column, wide] of involved()) {
      outline(context, box[name].x + column * cell, box[name].y + row * cell, wide * cell, high * cell);
    }
    context.font = `${LABEL}px ui-monospace, monospace`;
    if (left === MARGIN && state.part !== "k" && state.part !== "v") {
      const y = box.q.y + (state.query + 0.5) * cell;
      text(context, clipped(tokens()[state.query]), left - 6, y, "right", variable("accent"));
    }
    if (state.part === "map" || state.part === "k") {
      const x = box.k.x + (state.key + 0.5) * cell;
      text(context, clipped(tokens()[state.key]), x, box.k.y + size * cell + 8, "center", variable("accent"));
    }
  });

  picture([...KEYS, "query", "key", "dim", "part"], () => {
    if (!all) return;
    const { part, query, key, dim } = state;
    const lines = part === "map" ? spellCell(all, tokens(), record.scale, size, query, key)
      : part === "o" ? spellOutput(all, tokens(), size, query, dim)
        : spellVector(part, all[part], tokens(), size, part === "q" ? query : key, dim);
    find("#arithmetic").replaceChildren(...lines.map(([title, line]) =>
      element("li", {}, element("strong", {}, title), ` ${line}`)));
    canvas.setAttribute("aria-label", `Matrices Q, K, V, map and output of head ${all.head.join(".")}. ` +
      lines.map((parts) => parts.join(": ")).join(". "));
  });

  onPoint(canvas, (x, y) => {
    if (!all) return;
    for (const [part, { x: start, y: top, columns, rows }] of Object.entries(box)) {
      const [column, row] = [Math.floor((x - start) / cell), Math.floor((y - top) / cell)];
      if (Math.min(column, row) < 0 || column >= columns || row >= rows) continue;
      const chosen = {
        map: { query: row, key: column }, o: { query: row, dim: column },
        q: { query: row, dim: column }, k: { key: column, dim: row }, v: { key: row, dim: column },
      };
      change({ part, ...chosen[part] });
    }
  });
  onArrows(canvas, (across, down) => change({
    part: "map", query: within(state.query + down, 0, tokens().length - 1),
    key: within(state.key + across, 0, tokens().length - 1),
  }));

  function rowByRow() {
    clearInterval(timer);
    change({ rows: 0, part: "map" });
    timer = setInterval(() => {
      if (!all || state.rows >= tokens().length) return clearInterval(timer);
      const query = state.rows;
      const row = all.weights.shares.subarray(query * tokens().length, query * tokens().length + query + 1);
      change({ rows: state.rows + 1, query, key: row.indexOf(Math.max(...row)) });
    }, TICK);
  }

  const buttons = Object.entries(STAGES).map(([stage, label]) => {
    const node = button(label, () => change({ stage }), { class: "small" });
    picture(["stage"], () => node.setAttribute("aria-pressed", String(state.stage === stage)));
    return node;
  });
  find("#stages").append(...buttons, button("Row by row", rowByRow, { class: "small", id: "row_by_row" }));
}

// Of which head and step the matrices are, and for which others the page has none.
function describe(record, head, step) {
  const name = head.join("."), wanted = record.map_steps[state.frame];
  const heads = record.vector_heads.map((one) => one.join(".")).join(", ");
  const steps = step === wanted ? "" : ` Step ${wanted} has none; these are of the nearest step that has.`;
  const others = isChosen(head) ? ""
    : ` The page has Q, K and V of ${heads} only, not of ${state.head.join(".")}.`;
  const numbers = "Q and K include the position of each token; numbers are rounded to 8 bits.";
  return `Head ${name} at step ${step}. ${numbers}${others}${steps}`;
}
