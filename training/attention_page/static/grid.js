// The grid of all heads: a small map each, by layer and head; a click or an arrow key chooses one.
import { mapBitmap, variable } from "./colours.js";
import { begin, onArrows, onPoint, text, widthFor, within } from "./canvas.js";
import { find } from "./dom.js";
import { change, isChosen, picture, state } from "./state.js";

const LARGEST = 220, SMALLEST = 18, GAP = 6, TITLE = 18;

export function addGrid(record) {
  const canvas = find("#grid");
  const heads = record.map_heads;
  const whole = heads.length === record.layers * record.heads;
  let columns, cell, title;

  // Where a head stands. A grid that is not whole has its heads in lines.
  function position([layer, head], place) {
    if (!whole) return [place % columns, Math.floor(place / columns)];
    return record.layers > record.heads ? [layer, head] : [head, layer];
  }
  const corner = (head, place) =>
    position(head, place).map((at, axis) => at * (cell + GAP) + (axis ? (at + 1) * title : 2));

  function layOut() {
    const width = widthFor(canvas, 1200) - 4;
    columns = whole ? Math.max(record.layers, record.heads) : Math.max(1, Math.floor(width / 100));
    cell = within(Math.floor(width / columns) - GAP, SMALLEST, LARGEST);
    title = cell >= 34 ? TITLE : 0;
  }

  picture(["frame", "probe", "head"], () => {
    layOut();
    const places = heads.map(position);
    const [across, down] = [0, 1].map((axis) => Math.max(...places.map((place) => place[axis])) + 1);
    const context = begin(canvas, across * (cell + GAP) + 4, down * (cell + GAP + title) + 4);
    const tokens = record.probes[state.probe].tokens.length;
    heads.forEach((head, place) => {
      const [x, y] = corner(head, place);
      const finest = cell * (window.devicePixelRatio || 1);
      const map = mapBitmap(record.triangle(state.frame, state.probe, head), tokens, finest);
      context.drawImage(map, x, y, cell, cell);
      const chosen = isChosen(head);
      if (title) {
        const words = cell > 100 ? `layer ${head[0]}, head ${head[1]}` : head.join(".");
        text(context, words, x, y - 8, "left", variable(chosen ? "accent" : "quiet"));
      }
      context.strokeStyle = variable(chosen ? "accent" : "edge");
      context.lineWidth = chosen ? 3 : 1;
      context.strokeRect(x - 0.5, y - 0.5, cell + 1, cell + 1);
    });
    canvas.setAttribute("aria-label", `Attention maps of ${heads.length} heads; head ${state.head.join(".")} is chosen`);
  });

  onPoint(canvas, (x, y) => {
    const place = heads.findIndex((head, place) => {
      const [left, top] = corner(head, place);
      return x >= left && x < left + cell + GAP && y >= top - title && y < top + cell + GAP;
    });
    if (place >= 0) change({ head: heads[place] });
  }, ["click"]);

  onArrows(canvas, (across, down) => {
    const places = heads.map(position);
    const [x, y] = places[heads.findIndex(isChosen)] ?? [0, 0];
    const next = places.findIndex(([left, top]) => left === x + across && top === y + down);
    if (next >= 0) change({ head: heads[next] });
  });
}
