// Elements by id and new ones from text. Text only: nothing that a server says is ever read as HTML.

export const byId = (id) => document.getElementById(id);

export function element(name, { text, ...attributes } = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  made.append(...children);
  return made;
}

// A number and its unit set apart: ["12", "ms"] in, text and <i> out.
export function withUnit([number, unit]) {
  return unit ? [number, element("i", { text: `\u00a0${unit}` })] : [number];
}
