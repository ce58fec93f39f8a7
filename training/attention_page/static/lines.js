// Lines over the steps of training: a measure of every head above, a figure of the model below; a click chooses a step.
import { layerColour, variable } from "./colours.js";
import { begin, count, line, named, onArrows, onPoint, scale, short, text, ticks, widthFor, within } from "./canvas.js";
import { nearest } from "./data.js";
import { find } from "./dom.js";
import { menu } from "./controls.js";
import { change, isChosen, picture, state } from "./state.js";

const LEFT = 52, RIGHT = 44, TOP = 22, UPPER = 240, GAP = 40, LOWER = 150, BOTTOM = 44, NAMED = 16;
const TICKS = [1, 3, 10, 30, 100, 300, 1e3, 3e3, 1e4, 3e4, 1e5, 3e5, 1e6], APART = 44;
const FIGURES = {
  loss: "Loss is the mean surprise at each next token of held-out text, in nats: lower is better.",
  in_context_learning: "In-context learning is the loss late in a text minus the loss early in it: below 0, the model " +
    "uses what it has read.",
  copying: "Copying is the share of the second half of a repeated random block that the model predicts: near 1, it has " +
    "learned to copy.",
  repeat_loss: "Repeat loss is the loss in the second half of a repeated random block: it falls when induction forms.",
};

export function addLines(record) {
  const canvas = find("#lines");
  const time = record.steps.map((step) => Math.log10(step + 1));
  let x = null;
  menu("measure", "measure", record.names.map((name) => [name, named(name)]));
  menu("figure", "figure", Object.keys(FIGURES).map((name) => [name, named(name)]));

  picture(["frame", "head", "measure", "figure", "kind"], () => {
    const width = widthFor(canvas, 1100);
    const context = begin(canvas, width, TOP + UPPER + GAP + LOWER + BOTTOM);
    const now = record.placeOf(state.frame);
    x = scale([time[0], time.at(-1)], LEFT, width - RIGHT);
    const y = drawPanel(context, width, TOP, UPPER, record.ranges[state.measure], named(state.measure));
    const ordered = [...record.everyHead().filter((head) => !isChosen(head)), state.head]; // the chosen one on top
    const values = (head) => record.steps.map((_, step) => record.score(state.measure, state.kind, step, head));
    const ends = [];
    for (const head of ordered) {
      const chosen = isChosen(head), colour = layerColour(head[0], record.layers);
      context.globalAlpha = chosen ? 1 : ordered.length > 64 ? 0.15 : 0.6;
      const points = values(head).map((value, step) => [value, step]).filter(([value]) => value !== null);
      line(context, points.map(([value, step]) => [x(time[step]), y(value)]), colour, chosen ? 4 : 1.5);
      if (!points.length || (!chosen && ordered.length > NAMED)) continue;
      ends.push({ y: y(points.at(-1)[0]), label: head.join("."), colour: chosen ? variable("text") : colour });
    }
    context.globalAlpha = 1;
    let free = -Infinity; // names at the ends of lines, from the top, at least a line apart
    for (const end of ends.sort((one, other) => one.y - other.y)) {
      free = Math.max(free + 13, end.y);
      text(context, end.label, width - RIGHT + 6, free, "left", end.colour);
    }
    const figures = record.model[state.figure];
    const known = figures.filter((value) => value !== null);
    const range = known.length ? [Math.min(...known), Math.max(...known)] : [0, 1];
    const below = drawPanel(context, width, TOP + UPPER + GAP, LOWER, range, named(state.figure));
    const points = figures.map((value, step) => [x(time[step]), value]).filter(([, value]) => value !== null);
    line(context, points.map(([left, value]) => [left, below(value)]), variable("text"), 2);
    drawTime(context, now);
    const words = `Step ${record.steps[now]}: ${named(state.measure)} of head ${state.head.join(".")} ` +
      `${short(values(state.head)[now])}, ${named(state.figure)} ${short(figures[now])}.`;
    find("#lines_values").textContent = words;
    canvas.setAttribute("aria-label", `Lines over training steps. ${words}`);
  });

  function drawPanel(context, width, top, height, range, title) {
    const y = scale(range, top + height, top + 8);
    for (const tick of ticks(range, 4)) {
      line(context, [[LEFT, y(tick)], [width - RIGHT, y(tick)]], variable("edge"));
      text(context, short(tick), LEFT - 6, y(tick), "right", variable("quiet"));
    }
    text(context, title, LEFT, top - 10);
    return y;
  }

  function drawTime(context, now) {
    const bottom = TOP + UPPER + GAP + LOWER;
    const [first, last] = [record.steps[0], record.steps.at(-1)];
    const used = [];
    for (const step of [first, last, ...TICKS.filter((tick) => tick > first && tick < last)]) {
      const left = x(Math.log10(step + 1));
      if (used.some((other) => Math.abs(other - left) < APART)) continue;
      used.push(left);
      text(context, count(step), left, bottom + 14, "center", variable("quiet"));
    }
    text(context, "training step (logarithmic) →", canvas.clientWidth - RIGHT, bottom + 34, "right", variable("quiet"));
    const left = x(time[now]);
    line(context, [[left, TOP], [left, bottom]], variable("accent"), 2);
  }

  picture(["measure", "figure"], () => {
    find("#lines_help").textContent = `${named(state.measure)}: ${record.measures[state.measure]} ${FIGURES[state.figure]} ` +
      "The vertical line is the current step; click to move it. Look for a step at which both pictures bend.";
  });

  const frameTimes = record.map_steps.map((step) => Math.log10(step + 1));
  onPoint(canvas, (left, _, event) => {
    if (event.type === "pointermove" && !event.buttons) return;
    const at = frameTimes.map((moment) => x(moment));
    change({ frame: nearest(at, left) });
  });
  onArrows(canvas, (across) => change({ frame: within(state.frame + across, 0, record.map_steps.length - 1) }));
}
