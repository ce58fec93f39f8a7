// The attention page: opens the record, chooses what is shown first, and adds each picture.
import { whenDarknessChanges } from "./colours.js";
import { count, within } from "./canvas.js";
import { addControls, listMeasures } from "./controls.js";
import { addCube } from "./cube.js";
import { openRecord } from "./data.js";
import { find, tell } from "./dom.js";
import { addGrid } from "./grid.js";
import { addHeatMap, rowOf, strongestOf } from "./heatmap.js";
import { addLines } from "./lines.js";
import { addProduct } from "./product.js";
import { addScatter } from "./scatter.js";
import { drawAll, picture, state } from "./state.js";

// The head that is shown first: the one with most induction at the last step.
function firstHead(record) {
  const induction = (head) => record.score("induction", 0, record.steps.length - 1, head) ?? -1;
  return record.map_heads.reduce((best, head) => (induction(head) > induction(best) ? head : best));
}

function firstState(record) {
  const frame = record.map_steps.length - 1, head = firstHead(record), probe = 0;
  const query = Math.floor(0.75 * record.probes[probe].tokens.length);
  const key = strongestOf(rowOf(record.triangle(frame, probe, head), query));
  return {
    frame, head, probe, query, key, kind: 0, part: "map", dim: 0, rows: Infinity, stage: "shares",
    x: "previous_token", y: "induction", measure: "induction", figure: "loss",
    depth: frame ? "step" : "layer", turn: 0.6, tilt: 0.4,
  };
}

// After another probe is chosen, the chosen tokens may not exist in it.
function keepWithin(record) {
  picture(["probe"], () => {
    const last = record.probes[state.probe].tokens.length - 1;
    state.query = within(state.query, 0, last);
    state.key = within(state.key, 0, last);
  });
}

function describe(record) {
  const [first, last] = [record.steps[0], record.steps.at(-1)].map(count);
  find("#model").textContent = `${record.layers} layers × ${record.heads} heads of ${record.head_dim} numbers · ` +
    (record.steps.length > 1 ? `${record.steps.length} steps, from ${first} to ${last}` : `step ${last}`);
  find("#lines").closest("section").hidden = record.steps.length < 2;
  find("#left_out").hidden = !record.left_out.length;
  find("#left_out").textContent = `To keep this file small: ${record.left_out.join(" ")}`;
}

async function start() {
  const record = await openRecord();
  describe(record);
  Object.assign(state, firstState(record));
  keepWithin(record);
  for (const add of [addControls, addGrid, addHeatMap, listMeasures, addProduct, addScatter, addLines, addCube]) add(record);
  drawAll();
  let width = document.body.clientWidth;
  new ResizeObserver(() => {
    if (width !== document.body.clientWidth) { width = document.body.clientWidth; drawAll(); }
  }).observe(document.body);
  whenDarknessChanges(drawAll);
}

start().catch((error) => tell(`This page cannot be shown: ${error.message}. It needs a browser of 2023 or newer.`));
