// The map of one head with its tokens, the tokens that a token reads most, and the probe coloured by its shares.
import { SHARES, bitmap, mapBitmap, variable } from "./colours.js";
import { begin, clipped, onArrows, onPoint, outline, percent, quoted, text, widthFor, within } from "./canvas.js";
import { probability } from "./data.js";
import { element, find } from "./dom.js";
import { change, picture, state } from "./state.js";

const LEFT = 82, TOP = 70, LARGEST = 620, LABEL = 11, STRONGEST = 6;

export function rowOf(triangle, query) {
  const start = (query * (query + 1)) / 2;
  return triangle.subarray(start, start + query + 1);
}
export const strongestOf = (row) => row.reduce((best, value, place) => (value > row[best] ? place : best), 0);

const HELP = {
  repeated: ({ period }) => `This probe is a random block of ${period} tokens, repeated. Random tokens cannot be guessed, ` +
    "but a copy can: there, an induction head reads the token that followed the current one in the first block. " +
    `Look for a line ${period - 1} places left of the diagonal.`,
  held_out: () => "This probe is text from the validation split: the model was not trained on it. A head may behave " +
    "differently here than on repeated random tokens, so compare both.",
  text: () => "This probe is a text that the recipe names.",
};

export function addHeatMap(record) {
  const canvas = find("#map");
  let side, map = null;
  const tokens = () => record.probes[state.probe].tokens;
  const triangle = () => record.triangle(state.frame, state.probe, state.head);

  find("#legend").replaceWith(Object.assign(bitmap(1, 256, (_, column) => SHARES[column]), { id: "legend" }));
  find("#legend").setAttribute("aria-hidden", "true");

  function drawLabels(context, cell) {
    const every = Math.ceil(LABEL / cell);
    const shown = (place, chosen) => place === chosen || (place % every === 0 && Math.abs(place - chosen) * cell > LABEL);
    context.font = `${within(cell + 1, 10, 12)}px ui-monospace, monospace`;
    tokens().forEach((token, place) => {
      const middle = (place + 0.5) * cell;
      const colour = (chosen) => variable(place === chosen ? "accent" : "quiet");
      if (shown(place, state.query)) text(context, clipped(token), LEFT - 6, TOP + middle, "right", colour(state.query));
      if (!shown(place, state.key)) return;
      context.save();
      context.translate(LEFT + middle, TOP - 6);
      context.rotate(-Math.PI / 2);
      text(context, clipped(token), 0, 0, "left", colour(state.key));
      context.restore();
    });
    text(context, "query ↓", 2, TOP - 8, "left", variable("text"));
    text(context, "key →", 2, TOP - 24, "left", variable("text"));
  }

  picture(["frame", "probe", "head"], () => {
    find("#map_title").textContent = `Head ${state.head.join(".")}: layer ${state.head[0]}, head ${state.head[1]}, ` +
      `step ${record.map_steps[state.frame]}`;
    map = triangle() && mapBitmap(triangle(), tokens().length);
  });

  picture(["frame", "probe", "head", "query", "key"], () => {
    side = Math.min(LARGEST, widthFor(canvas, LARGEST + LEFT + 2) - LEFT - 2);
    const context = begin(canvas, LEFT + side + 2, TOP + side + 2);
    const cell = side / tokens().length;
    drawLabels(context, cell);
    context.strokeStyle = variable("edge");
    context.strokeRect(LEFT - 0.5, TOP - 0.5, side + 1, side + 1);
    if (!map) {
      text(context, "This head's map is not in the page.", LEFT + side / 2, TOP + side / 2, "center");
      return;
    }
    context.imageSmoothingEnabled = cell < 1;
    context.drawImage(map, LEFT, TOP, side, side);
    const [x, y] = [LEFT + state.key * cell, TOP + state.query * cell];
    context.globalAlpha = 0.6;
    context.strokeStyle = variable("accent");
    context.strokeRect(LEFT, y, side, cell);
    context.strokeRect(x, TOP, cell, side);
    context.globalAlpha = 1;
    outline(context, x, y, cell, cell);
  });

  picture(["frame", "probe", "head", "query", "key"], () => {
    const known = triangle();
    const name = (place) => `${quoted(tokens()[place])} (token ${place})`;
    const share = known && state.key <= state.query ? percent(probability(rowOf(known, state.query)[state.key])) : null;
    const words = share ? `${name(state.query)} reads ${share} from ${name(state.key)}.`
      : known ? `${name(state.query)} cannot read from ${name(state.key)}, which comes later.`
        : "Choose another head in the grid to see its map.";
    find("#map_cell").textContent = words;
    canvas.setAttribute("aria-label", `Attention map of head ${state.head.join(".")}. ${words}`);
  });

  addStrongest(triangle, tokens);
  addText(triangle, tokens);
  picture(["probe"], () => {
    const probe = record.probes[state.probe];
    find("#probe_help").textContent = HELP[probe.kind](probe);
  });

  const cellAt = (at, start) => Math.floor(((at - start) / side) * tokens().length);
  onPoint(canvas, (x, y) => {
    const [key, query] = [cellAt(x, LEFT), cellAt(y, TOP)];
    if (Math.min(key, query) >= 0 && Math.max(key, query) < tokens().length) change({ query, key, part: "map" });
  });
  onArrows(canvas, (across, down) => change({
    query: within(state.query + down, 0, tokens().length - 1), key: within(state.key + across, 0, tokens().length - 1),
    part: "map",
  }));
}

function addStrongest(triangle, tokens) {
  picture(["frame", "probe", "head", "query"], () => {
    const row = triangle() ? rowOf(triangle(), state.query) : [];
    const order = [...row.keys()].sort((one, other) => row[other] - row[one]).slice(0, STRONGEST);
    find("#strongest").replaceChildren(...order.filter((key) => row[key]).map((key) => {
      const bar = element("i", { "aria-hidden": "true" });
      bar.style.width = `${100 * probability(row[key])}%`;
      const words = `${percent(probability(row[key]))} ${quoted(tokens()[key])}, token ${key}`;
      return element("li", {}, bar, element("span", {}, words));
    }));
  });
}

// The probe as text. A node for each token, none for a cell.
function addText(triangle, tokens) {
  const place = find("#text");
  const readable = (token) => token.replace(/\n/g, "⏎\n").replace(/\t/g, "⇥") || "∅";
  picture(["probe"], () => {
    place.replaceChildren(...tokens().map((token, number) => {
      const node = element("span", {}, readable(token));
      node.token = number;
      return node;
    }));
  });
  picture(["frame", "probe", "head", "query"], () => {
    const row = triangle() ? rowOf(triangle(), state.query) : [];
    [...place.children].forEach((node, number) => {
      const strength = Math.round(((row[number] ?? 0) / 255) * 75); // by the square root of the share, as in the map
      node.style.background = strength ? `color-mix(in srgb, var(--low) ${strength}%, transparent)` : "";
      node.classList.toggle("chosen", number === state.query);
    });
    if (!place.matches(":hover")) place.scrollTop = place.children[state.query].offsetTop - place.clientHeight / 2;
  });
  const choose = (event) => {
    const query = event.target.closest("span")?.token;
    if (query === undefined) return;
    change({ query, key: triangle() ? strongestOf(rowOf(triangle(), query)) : query, part: "map" });
  };
  place.addEventListener("pointerover", choose);
  place.addEventListener("click", choose);
}
