// The leaderboard page: ratings with intervals, head-to-head scores and ratings over time, of the votes that are chosen.
import { element, find, tell } from "./dom.js";
import { ask } from "./stream.js";

// Okabe and Ito's colours, which the colour-blind can tell apart; each line has its name at its end as well.
const COLOURS = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"];

function drawing(name, attributes, ...children) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.append(...children);
  return node;
}

const range = (values) => [Math.min(...values), Math.max(...values)];
const scale = ([low, high], from, to) => (value) => from + ((value - low) / (high - low || 1)) * (to - from);

const row = (kind, cells) => element("tr", {}, ...cells.map((cell) =>
  (cell instanceof Node ? cell : element(kind, {}, String(cell)))));
const table = (head, rows) => element("table", {}, element("thead", {}, row("th", head)),
  element("tbody", {}, ...rows.map((cells) => row("td", cells))));

function interval(model, x) {
  const middle = 10;
  const line = drawing("line", { class: "interval", x1: x(model.lower), x2: x(model.upper), y1: middle, y2: middle });
  const point = drawing("circle", { class: "rating", cx: x(model.rating), cy: middle, r: 5 });
  const picture = drawing("svg", { viewBox: "0 0 220 20", width: 220, "aria-hidden": "true" }, line, point);
  return element("td", { class: "interval" }, picture);
}

function next(model) {
  if (model.tells_from_next === null) return "";
  if (model.tells_from_next) return "below";
  return model.votes_to_tell ? `cannot tell yet: about ${model.votes_to_tell} votes more` : "cannot tell yet";
}

function ratings(rows) {
  const x = scale(range(rows.flatMap((model) => [model.lower, model.upper])), 8, 212);
  const head = ["model", "rank", "rating", "95 % interval", "", "Elo", "votes", "wins", "ties", "losses", "next model"];
  return table(head, rows.map((model) => [
    model.name, model.rank, model.rating.toFixed(0), `${model.lower.toFixed(0)} to ${model.upper.toFixed(0)}`,
    interval(model, x), model.elo.toFixed(0), model.battles, model.wins, model.ties, model.losses, next(model),
  ]));
}

// Orange above one half, blue below; the stronger the colour, the further away.
function scoreCell(score, count) {
  if (score === null) return element("td", { class: "score" });
  const cell = element("td", { class: "score" }, `${(100 * score).toFixed(0)} % (${count})`);
  const strength = Math.round(Math.abs(score - 0.5) * 140);
  cell.style.background = `color-mix(in srgb, var(${score > 0.5 ? "--high" : "--low"}) ${strength}%, transparent)`;
  return cell;
}

function scores({ rows, battles, win_rates: rates }) {
  const names = rows.map((model) => model.name);
  return table(["", ...names], names.map((name, place) =>
    [name, ...names.map((_, other) => scoreCell(rates[place][other], battles[place][other]))]));
}

function timeline({ rows, history: moments }) {
  const width = 720, height = 300, right = 180, left = 48, bottom = 24;
  const known = moments.flatMap((moment) => moment.ratings.filter((value) => value !== null));
  const x = scale([0, moments.at(-1).votes], left, width - right);
  const y = scale(range(known), height - bottom, 12);
  const picture = drawing("svg", { viewBox: `0 0 ${width} ${height}`, width, role: "img", "aria-label": "Ratings over time" });
  for (const value of range(known)) {
    picture.append(drawing("text", { x: 4, y: y(value) + 4 }, value.toFixed(0)));
    picture.append(drawing("line", { class: "axis", x1: left, x2: width - right, y1: y(value), y2: y(value) }));
  }
  picture.append(drawing("text", { x: left, y: height - 4 }, "0"));
  picture.append(drawing("text", { x: width - right - 40, y: height - 4 }, `${moments.at(-1).votes} votes`));
  let lowest = -Infinity; // names at the ends, from the highest rating down, at least a line apart
  rows.forEach((model, place) => {
    const points = moments.filter((moment) => moment.ratings[place] !== null)
      .map((moment) => `${x(moment.votes)},${y(moment.ratings[place])}`);
    const colour = COLOURS[place % COLOURS.length];
    const line = drawing("polyline", { class: "line", points: points.join(" ") });
    line.style.stroke = colour;
    lowest = Math.max(lowest + 14, y(model.rating) + 4);
    const label = model.name.length > 24 ? `…${model.name.slice(-23)}` : model.name;
    const name = drawing("text", { x: width - right + 6, y: lowest }, label);
    name.style.fill = colour;
    picture.append(line, name);
  });
  return picture;
}

function chosen() {
  const fields = [...new FormData(find("#filters"))].filter(([, value]) => value !== "");
  return new URLSearchParams(fields);
}

async function show() {
  tell("");
  const filters = chosen();
  window.history.replaceState(null, "", `?${filters}`);
  find("#csv").href = `api/leaderboard.csv?${filters}`;
  find("#json").href = `api/leaderboard?${filters}`;
  try {
    const board = await ask(`api/leaderboard?${filters}`);
    find("#remarks").replaceChildren(...board.remarks.map((remark) => element("li", {}, remark)));
    find("#ratings").replaceChildren(ratings(board.rows));
    find("#scores").replaceChildren(scores(board));
    find("#history").replaceChildren(timeline(board));
    find("#board").hidden = false;
  } catch (error) {
    find("#board").hidden = true;
    tell(error.message);
  }
}

async function begin() {
  const form = find("#filters");
  const { kinds, topics } = await ask("api/filters");
  for (const kind of kinds) form.elements.kind.append(element("option", { value: kind }, `${kind}s`));
  for (const topic of topics) form.elements.topic.append(element("option", { value: topic }, topic));
  for (const [name, value] of new URLSearchParams(location.search)) {
    const field = form.elements[name];
    if (field?.type === "checkbox") field.checked = value === "on";
    else if (field) field.value = value;
  }
  form.addEventListener("change", show);
  form.addEventListener("submit", (event) => { event.preventDefault(); show(); });
  await show();
}

begin().catch((error) => tell(error.message));
