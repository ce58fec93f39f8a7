// All heads as points by any two measures; they move through training and leave trails.
import { layerColour, variable } from "./colours.js";
import { begin, line, named, onArrows, onPoint, scale, short, text, ticks, widthFor } from "./canvas.js";
import { find } from "./dom.js";
import { menu } from "./controls.js";
import { change, isChosen, picture, state } from "./state.js";

const LEFT = 52, RIGHT = 16, TOP = 26, BOTTOM = 40, HEIGHT = 420, LABELLED = 64, NEAR = 24;

export function addScatter(record) {
  const canvas = find("#scatter");
  const heads = record.everyHead();
  const measures = record.names.map((name) => [name, named(name)]);
  let points = [];
  menu("x", "x", measures);
  menu("y", "y", measures);
  menu("kind", "kind", record.kinds.map((kind, place) => [place, named(kind)]), Number);

  picture(["frame", "head", "x", "y", "kind"], () => {
    const width = widthFor(canvas, 900);
    const context = begin(canvas, width, HEIGHT);
    const [across, up] = [record.ranges[state.x], record.ranges[state.y]];
    const x = scale(across, LEFT, width - RIGHT - 8), y = scale(up, HEIGHT - BOTTOM, TOP + 8);
    drawAxes(context, width, across, up, x, y);
    const at = (head, step) => [[state.x, x], [state.y, y]].map(([name, place]) => {
      const value = record.score(name, state.kind, step, head);
      return value === null ? null : place(value);
    });
    const known = (point) => !point.includes(null);
    const now = record.placeOf(state.frame);
    points = heads.map((head) => ({ head, point: at(head, now) })).filter(({ point }) => known(point));
    for (const { head } of points) {
      const chosen = isChosen(head);
      context.globalAlpha = chosen ? 0.9 : heads.length > LABELLED ? 0.12 : 0.4;
      const trail = Array.from({ length: now + 1 }, (_, step) => at(head, step)).filter(known);
      line(context, trail, layerColour(head[0], record.layers), chosen ? 2 : 1);
    }
    context.globalAlpha = 1;
    for (const { head, point } of points) drawPoint(context, head, point);
    find("#scatter_head").textContent = describe(now);
    canvas.setAttribute("aria-label", `All heads by ${named(state.x)} and ${named(state.y)}. ${describe(now)}`);
  });

  function drawPoint(context, head, [left, top]) {
    const chosen = isChosen(head);
    context.beginPath();
    context.arc(left, top, chosen ? 8 : heads.length > LABELLED ? 3.5 : 6, 0, 2 * Math.PI);
    context.fillStyle = layerColour(head[0], record.layers);
    context.fill();
    context.strokeStyle = variable(chosen ? "text" : "panel");
    context.lineWidth = chosen ? 2 : 1;
    context.stroke();
    if (!chosen && heads.length > LABELLED) return;
    const room = left < canvas.clientWidth - 50;
    text(context, head.join("."), left + (room ? 10 : -10), top - 7, room ? "left" : "right", variable("text"));
  }

  const describe = (now) => `Head ${state.head.join(".")} (layer.head): ` + [state.x, state.y].map((name) =>
    `${named(name)} ${short(record.score(name, state.kind, now, state.head))}`).join(", ") +
    `; step ${record.steps[now]}. One colour for each layer.`;

  picture(["x", "y"], () => {
    find("#scatter_help").textContent = [...new Set([state.x, state.y])].map((name) =>
      `${named(name)}: ${record.measures[name]}`).join(" ") +
      " A line behind a point is its way through training. Look for points that leave the others: these heads specialise.";
  });

  onPoint(canvas, (x, y) => {
    const distance = ({ point }) => Math.hypot(point[0] - x, point[1] - y);
    const best = points.reduce((one, other) => (distance(other) < distance(one) ? other : one), points[0]);
    if (best && distance(best) < NEAR) change({ head: best.head });
  }, ["click"]);
  onArrows(canvas, (across, down) => {
    const place = heads.findIndex(isChosen);
    change({ head: heads[(place + (across || down) + heads.length) % heads.length] });
  });
}

function drawAxes(context, width, across, up, x, y) {
  for (const tick of ticks(across)) {
    line(context, [[x(tick), TOP], [x(tick), HEIGHT - BOTTOM]], variable("edge"));
    text(context, short(tick), x(tick), HEIGHT - BOTTOM + 12, "center", variable("quiet"));
  }
  for (const tick of ticks(up)) {
    line(context, [[LEFT, y(tick)], [width - RIGHT, y(tick)]], variable("edge"));
    text(context, short(tick), LEFT - 6, y(tick), "right", variable("quiet"));
  }
  text(context, `${named(state.x)} →`, width - RIGHT, HEIGHT - 10, "right");
  text(context, `↑ ${named(state.y)}`, 2, 10);
}
