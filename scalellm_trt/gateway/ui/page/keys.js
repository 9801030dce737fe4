// Keys live in this page's memory. Only a ticked box writes one down, and unticking it removes what was written.

const NAME = "scalellm.api-key";

export class RememberedKey {
  constructor(input, box) {
    this.input = input;
    this.box = box;
    const known = localStorage.getItem(NAME);
    box.checked = known !== null;
    input.value = known ?? "";
    input.addEventListener("input", () => this.store());
    box.addEventListener("change", () => this.store());
  }

  get value() {
    return this.input.value.trim();
  }

  store() {
    if (this.box.checked && this.value) localStorage.setItem(NAME, this.value);
    else localStorage.removeItem(NAME);
  }
}

export function bearer(key) {
  return key ? { authorization: `Bearer ${key}` } : {};
}
