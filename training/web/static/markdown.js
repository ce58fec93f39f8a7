// Markdown of answers as nodes: headings, lists, quotes, tables, code, emphasis and links. Everything else, markup
// included, is text. Pictures are not loaded, so that an answer cannot reach another host.
import { element } from "./dom.js";

const INLINE = /(`+)(.+?)\1|\*\*(?=\S)(.+?)\*\*|\*(?=\S)([^*]+?)\*|!?\[([^\]]*)\]\((https?:\/\/[^\s)]+)\)/;

function inline(text) {
  const nodes = [];
  for (let match; (match = INLINE.exec(text)); text = text.slice(match.index + match[0].length)) {
    nodes.push(text.slice(0, match.index));
    const [, , code, strong, emphasis, label, link] = match;
    if (code) nodes.push(element("code", {}, code));
    else if (strong) nodes.push(element("strong", {}, ...inline(strong)));
    else if (emphasis) nodes.push(element("em", {}, ...inline(emphasis)));
    else nodes.push(element("a", { href: link, rel: "noopener noreferrer nofollow", target: "_blank" }, label || link));
  }
  return [...nodes, text];
}

const cells = (line) => line.trim().replace(/^\||\|$/g, "").split("|").map((cell) => inline(cell.trim()));

// Each kind of block: the pattern of its first line, and a function that takes its lines off the front of `lines`.
const BLOCKS = [
  [/^ {0,3}(`{3,}|~{3,})/, (lines, [, fence]) => {
    lines.shift();
    const code = [];
    while (lines.length && !lines[0].trimStart().startsWith(fence)) code.push(lines.shift());
    lines.shift();
    return element("pre", { tabindex: 0 }, element("code", {}, code.join("\n")));
  }],
  [/^(#{1,6})\s+(.*)/, (lines, [, marks, title]) => {
    lines.shift();
    return element(`h${Math.min(6, marks.length + 2)}`, {}, ...inline(title));
  }],
  [/^>\s?/, (lines) => {
    const quoted = [];
    while (lines.length && lines[0].startsWith(">")) quoted.push(lines.shift().replace(/^>\s?/, ""));
    return element("blockquote", {}, ...blocks(quoted));
  }],
  [/^\s*(?:[-*+]|(\d{1,9})[.)])\s+/, (lines, [, number]) => {
    const list = element(number ? "ol" : "ul", number ? { start: number } : {});
    const item = number ? /^\s*\d{1,9}[.)]\s+/ : /^\s*[-*+]\s+/;
    while (lines.length && item.test(lines[0])) {
      const own = [lines.shift().replace(item, "")];
      while (lines.length && /^\s{2,}\S/.test(lines[0]) && !item.test(lines[0])) own.push(lines.shift().trim());
      list.append(element("li", {}, ...inline(own.join("\n"))));
    }
    return list;
  }],
];

function table(lines) {
  const head = cells(lines.shift());
  lines.shift();
  const rows = [];
  while (lines.length && lines[0].includes("|")) rows.push(cells(lines.shift()));
  const line = (kind, row) => element("tr", {}, ...row.map((cell) => element(kind, {}, ...cell)));
  const body = element("tbody", {}, ...rows.map((row) => line("td", row)));
  return element("div", { class: "scroll" }, element("table", {}, element("thead", {}, line("th", head)), body));
}

const isTable = (lines) => lines[0].includes("|") && /^\s*\|?(\s*:?-+:?\s*\|)+\s*:?-*:?\s*$/.test(lines[1] ?? "");
const begin = (line) => BLOCKS.find(([pattern]) => pattern.test(line));

function blocks(lines) {
  const nodes = [];
  while (lines.length) {
    const block = begin(lines[0]);
    if (!lines[0].trim()) lines.shift();
    else if (block) nodes.push(block[1](lines, block[0].exec(lines[0])));
    else if (isTable(lines)) nodes.push(table(lines));
    else {
      const paragraph = [lines.shift()];
      while (lines.length && lines[0].trim() && !begin(lines[0])) paragraph.push(lines.shift());
      nodes.push(element("p", {}, ...inline(paragraph.join("\n"))));
    }
  }
  return nodes;
}

export const markdown = (text) => blocks(text.split("\n"));
