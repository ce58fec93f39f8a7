// Elements of the page, built as nodes: text from models and people is never read as markup.

export const find = (selector) => document.querySelector(selector);

// An element with attributes and children. A child that is text becomes a text node.
export function element(name, attributes = {}, ...children) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else if (value === true) node.setAttribute(key, "");
    else if (value !== false && value != null) node.setAttribute(key, value);
  }
  node.append(...children.filter((child) => child != null));
  return node;
}

// A button with its label.
export const button = (label, onclick, attributes = {}) =>
  element("button", { type: "button", onclick, ...attributes }, label);

// Show a line about what went wrong, which a screen reader reads out; an empty one takes it away.
export function tell(line) {
  const place = find("#error");
  place.textContent = line;
  place.hidden = !line;
}

// Keep the end of the page in view while it grows, unless the reader has scrolled up.
export function follow(change) {
  const page = document.scrollingElement;
  const atEnd = page.scrollHeight - page.scrollTop - page.clientHeight < 80;
  change();
  if (atEnd) page.scrollTop = page.scrollHeight;
}
