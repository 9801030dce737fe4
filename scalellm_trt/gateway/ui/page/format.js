// Numbers in, short texts out.

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const short = new Intl.NumberFormat("en", { maximumSignificantDigits: 3 });
const compact = new Intl.NumberFormat("en", { notation: "compact", maximumSignificantDigits: 3 });

export const NONE = "–";

export function count(number) {
  return number < 1e6 ? whole.format(number) : compact.format(number);
}

export function rate(number) {
  if (number === 0) return "0";
  return number < 100 ? short.format(number) : count(number);
}

export function milliseconds(number) {
  if (number === null || number === undefined) return [NONE, ""];
  if (number < 999.5) return [short.format(number), "ms"];
  return [short.format(number / 1000), "s"];
}

export function share(number) {
  return number === null ? [NONE, ""] : [short.format(number * 100), "%"];
}

export function duration(seconds) {
  if (seconds < 60) return `${Math.floor(seconds)} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 86400) return `${Math.floor(seconds / 3600)} h ${Math.floor((seconds % 3600) / 60)} min`;
  return `${Math.floor(seconds / 86400)} d ${Math.floor((seconds % 86400) / 3600)} h`;
}

export function words(name) {
  const text = name.replaceAll("_", " ");
  return text.charAt(0).toUpperCase() + text.slice(1);
}
