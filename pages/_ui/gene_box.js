// A field to choose genes by any of their names. The list is fetched once from the address that the page gives; only
// what was chosen goes to the server. Streamlit calls the default function again on every rerun: what somebody is
// typing is kept on the element, not in that call.

const STEP = 60; // options drawn at first, and again each time the end of the list is reached
const lists = new Map(); // address -> promise of its genes, for all fields of the page

export default function (component) {
  const root = component.parentElement.querySelector(".genes");
  root.box ??= new Box(root);
  root.box.report = (chosen) => component.setTriggerValue("chosen", chosen);
  root.box.update(component.data);
  return () => root.box.close();
}

class Box {
  constructor(root) {
    this.part = (selector) => root.querySelector(selector);
    this.field = this.part("input");
    this.options = this.part("ul");
    this.drop = this.part(".drop");
    this.found = [];
    this.active = -1;
    this.field.oninput = () => this.open();
    this.field.onfocus = () => this.field.select();
    this.field.onclick = () => {
      if (!this.opened()) this.field.select(); // the click has just put a cursor there
      this.open();
    };
    this.field.onblur = () => this.leave();
    this.field.onkeydown = (event) => this.key(event);
    this.drop.onpointerdown = (event) => event.preventDefault(); // or the field would lose the focus before the click
    this.options.onclick = (event) => {
      const option = event.target.closest("li");
      if (option) this.take(option.dataset.symbol);
    };
    this.options.onscroll = () => {
      if (this.options.scrollTop + this.options.clientHeight > this.options.scrollHeight - 40) this.more();
    };
    const tip = this.part(".tip");
    const help = this.part(".help");
    help.onpointerenter = help.onfocus = () => show(tip, help);
    help.onpointerleave = help.onblur = () => tip.togglePopover(false);
    this.moved = () => place(this.drop, this.part(".control"));
  }

  update(data) {
    this.data = data;
    this.part("label").textContent = data.label;
    this.part(".help").setAttribute("aria-label", `Help for ${data.label}`);
    this.part(".tip").textContent = data.help;
    this.field.placeholder = data.chosen.length && data.most > 1 ? "" : data.placeholder;
    this.chosen = data.chosen;
    this.chips();
    if (!this.opened()) this.rest();
  }

  // What the field holds while nobody types.
  resting() {
    return this.data.most > 1 ? "" : (this.chosen[0] ?? "");
  }

  rest() {
    this.field.value = this.resting();
  }

  chips() {
    const names = this.data.most > 1 ? this.chosen : [];
    this.part(".chosen").replaceChildren(
      ...names.map((name) => {
        const chip = element("span", "chip", name);
        const remove = element("button", "", "✕");
        remove.type = "button";
        remove.setAttribute("aria-label", `Remove ${name}`);
        remove.onclick = () => this.send(this.chosen.filter((other) => other !== name));
        chip.append(remove);
        return chip;
      }),
    );
  }

  opened() {
    return this.drop.matches(":popover-open");
  }

  async open() {
    if (!this.opened()) {
      this.drop.showPopover();
      this.field.setAttribute("aria-expanded", "true");
      window.addEventListener("scroll", this.moved, true);
      window.addEventListener("resize", this.moved);
    }
    const { address } = this.data;
    if (!lists.has(address)) lists.set(address, load(address));
    this.say("Loading the genes …");
    this.moved();
    try {
      this.genes = await lists.get(address);
    } catch {
      lists.delete(address); // the next try asks again
      return this.say("The list of genes cannot be loaded. Reload the page.");
    }
    if (!this.opened()) return;
    this.search();
    this.moved();
  }

  close() {
    window.removeEventListener("scroll", this.moved, true);
    window.removeEventListener("resize", this.moved);
    if (this.opened()) this.drop.hidePopover();
    this.field.setAttribute("aria-expanded", "false");
    this.field.removeAttribute("aria-activedescendant");
  }

  leave() {
    this.close();
    this.rest();
  }

  // Before anything is typed the field holds the gene that is chosen, and all are listed.
  search() {
    const text = this.field.value === this.resting() ? "" : this.field.value;
    const taken = new Set(this.data.most > 1 ? this.chosen : []);
    this.found = matches(this.genes, text).filter((gene) => !taken.has(gene.symbol));
    this.options.replaceChildren();
    this.options.scrollTop = 0;
    this.more();
    this.choose(text && this.found.length ? 0 : -1); // Enter takes the first of what was asked for, and nothing unasked
    const full = this.data.most > 1 && this.chosen.length >= this.data.most;
    if (full) this.say(`${this.data.most} genes at most: remove one first.`);
    else if (this.found.length) this.say("");
    else if (this.data.free) this.say(`Enter takes what you typed, ${this.data.most} genes at most.`);
    else this.say("No gene of the file has this name.");
  }

  more() {
    const from = this.options.childElementCount;
    const added = this.found.slice(from, from + STEP).map((gene, place) => {
      const option = element("li", "", gene.symbol);
      option.id = `option-${from + place}`;
      option.dataset.symbol = gene.symbol;
      option.setAttribute("role", "option");
      option.setAttribute("aria-selected", String(this.chosen.includes(gene.symbol)));
      if (gene.alias) {
        option.setAttribute("aria-label", gene.symbol); // the other name is what was typed
        option.append(element("span", "alias", gene.alias));
      }
      return option;
    });
    this.options.append(...added);
  }

  choose(place) {
    this.options.children[this.active]?.classList.remove("active");
    this.active = place;
    const option = this.options.children[place];
    if (!option) return this.field.removeAttribute("aria-activedescendant");
    option.classList.add("active");
    option.scrollIntoView({ block: "nearest" });
    this.field.setAttribute("aria-activedescendant", option.id);
  }

  key(event) {
    const last = this.field.value === "" && this.data.most > 1 && this.chosen.length;
    if (event.key === "ArrowDown" || event.key === "ArrowUp") {
      event.preventDefault();
      if (!this.opened()) return this.open();
      const next = this.active + (event.key === "ArrowDown" ? 1 : -1);
      if (next >= this.options.childElementCount) this.more();
      this.choose(Math.max(0, Math.min(next, this.options.childElementCount - 1)));
    } else if (event.key === "Enter" && this.opened()) {
      event.preventDefault();
      const gene = this.found[this.active];
      const typed = this.data.free ? this.field.value.split(/[\s,;]+/).filter(Boolean) : [];
      if (gene || typed.length) this.take(...(gene ? [gene.symbol] : typed));
      else this.leave();
    } else if (event.key === "Escape" && this.opened()) {
      event.preventDefault();
      this.leave();
      this.field.select();
    } else if (event.key === "Backspace" && last) this.send(this.chosen.slice(0, -1));
  }

  take(...names) {
    const chosen = this.data.most > 1 ? [...new Set([...this.chosen, ...names])] : names;
    if (chosen.length > this.data.most) return; // the note says so
    this.close();
    this.send(chosen);
  }

  send(chosen) {
    this.chosen = chosen;
    this.chips();
    this.rest();
    this.report(chosen);
  }

  say(text) {
    this.part(".note").textContent = text;
  }
}

async function load(address) {
  const reply = await fetch(address);
  if (!reply.ok) throw new Error(`status ${reply.status}`);
  const lines = (await reply.text()).split("\n");
  return lines.map((line) => {
    const [symbol, ...others] = line.split("\t");
    return { symbol, upper: symbol.toUpperCase(), others, uppers: others.map((name) => name.toUpperCase()) };
  });
}

// First the gene called exactly so, then one with exactly such another name, then symbols that begin so, symbols with
// it inside, and last other names that begin so; among equals the shorter symbol first.
function matches(genes, text) {
  const wanted = text.trim().toUpperCase();
  if (!wanted) return genes;
  const found = [];
  for (const gene of genes) {
    const { symbol, upper } = gene;
    const exact = gene.uppers.indexOf(wanted);
    const begins = exact < 0 ? gene.uppers.findIndex((name) => name.startsWith(wanted)) : exact;
    if (upper === wanted) found.push({ symbol, rank: 0 });
    else if (exact >= 0) found.push({ symbol, rank: 1, alias: gene.others[exact] });
    else if (upper.startsWith(wanted)) found.push({ symbol, rank: 2 });
    else if (upper.includes(wanted)) found.push({ symbol, rank: 3 });
    else if (begins >= 0) found.push({ symbol, rank: 4, alias: gene.others[begins] });
  }
  return found.sort((one, other) => one.rank - other.rank || one.symbol.length - other.symbol.length);
}

function element(tag, name, text) {
  const made = document.createElement(tag);
  made.className = name;
  made.textContent = text;
  return made;
}

function show(floating, anchor) {
  floating.togglePopover(true);
  place(floating, anchor);
}

// Below the anchor, or above it where there is more room; inside the window.
function place(floating, anchor) {
  const at = anchor.getBoundingClientRect();
  floating.style.minWidth = `${Math.min(at.width, window.innerWidth - 16)}px`;
  const size = floating.getBoundingClientRect();
  const below = at.bottom + size.height + 8 < window.innerHeight || at.top < size.height + 8;
  floating.style.top = `${below ? at.bottom + 4 : at.top - size.height - 4}px`;
  floating.style.left = `${Math.max(8, Math.min(at.left, window.innerWidth - size.width - 8))}px`;
}
