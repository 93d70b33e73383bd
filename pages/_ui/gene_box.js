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
    this.tip = this.part(".tip");
    this.forget();
    this.field.oninput = () => this.open();
    this.field.onfocus = () => this.field.select();
    this.field.onclick = () => {
      if (!this.opened()) this.field.select(); // the click has just put a cursor there
      this.open();
    };
    this.field.onblur = () => this.blurred();
    this.field.onkeydown = (event) => this.key(event);
    this.drop.onpointerdown = (event) => event.preventDefault(); // or the field would lose the focus before the click
    this.options.onclick = (event) => {
      const option = event.target.closest("li");
      if (option) this.take(option.dataset.symbol);
    };
    this.options.onscroll = () => {
      if (this.options.scrollTop + this.options.clientHeight > this.options.scrollHeight - 40) this.more();
    };
    this.moved = () => place(this.drop, this.part(".control"));
    this.explain(this.part(".help"));
  }

  // The tooltip: by mouse, by touch and by keyboard.
  explain(help) {
    const show = () => {
      this.tip.togglePopover(true);
      place(this.tip, help);
    };
    const hide = () => putAway(this.tip);
    help.onpointerenter = (event) => event.pointerType === "mouse" && show();
    help.onpointerleave = (event) => event.pointerType === "mouse" && hide();
    help.onclick = () => {
      help.focus(); // Safari does not
      show();
    };
    help.onfocus = show;
    help.onblur = hide;
    help.onkeydown = (event) => event.key === "Escape" && hide();
  }

  update(data) {
    if (data.address !== this.data?.address) this.forget();
    this.data = data;
    this.part("label").textContent = data.label;
    this.part(".help").setAttribute("aria-label", `Help for ${data.label}`);
    this.tip.textContent = data.help;
    this.show(data.chosen);
    if (!this.opened()) this.rest();
  }

  forget() {
    this.genes = null;
    this.found = [];
    this.active = -1;
    this.options.replaceChildren();
  }

  several() {
    return this.data.most > 1;
  }

  // What the field holds while nobody types.
  resting() {
    return this.several() ? "" : (this.chosen[0] ?? "");
  }

  rest() {
    this.field.value = this.resting();
    if (this.focused()) this.field.select();
  }

  focused() {
    return this.field.matches(":focus");
  }

  show(chosen) {
    const same = this.chosen?.join("\n") === chosen.join("\n");
    this.chosen = chosen;
    this.field.placeholder = this.several() && chosen.length ? "" : this.data.placeholder;
    if (!this.several() || same) return; // somebody may be on the button of one
    this.part(".chosen").replaceChildren(
      ...chosen.map((name) => {
        const chip = element("span", "chip", name);
        const remove = element("button", "", "✕");
        remove.type = "button";
        remove.setAttribute("aria-label", `Remove ${name}`);
        remove.onclick = () => {
          this.send(this.chosen.filter((other) => other !== name));
          this.field.focus();
        };
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
    if (!this.genes) this.say("Loading the genes …");
    this.moved();
    try {
      const genes = await lists.get(address);
      if (address === this.data.address) this.genes = genes;
    } catch {
      lists.delete(address); // the next try asks again
      return this.say("The list of genes cannot be loaded. Reload the page.");
    }
    if (!this.opened() || !this.genes) return;
    this.search();
    this.moved();
  }

  close() {
    window.removeEventListener("scroll", this.moved, true);
    window.removeEventListener("resize", this.moved);
    putAway(this.drop);
    putAway(this.tip);
    this.field.setAttribute("aria-expanded", "false");
    this.field.removeAttribute("aria-activedescendant");
  }

  leave() {
    this.close();
    this.rest();
  }

  // Whoever typed a symbol to its end and goes on elsewhere has chosen it.
  blurred() {
    const text = this.field.value;
    const best = text === this.resting() ? null : this.named(text);
    if (best?.rank === 0) this.take(best.symbol);
    if (this.opened()) this.leave();
    else this.rest();
  }

  // The gene with exactly this name, if it is one.
  named(text) {
    const exact = text.trim() ? matches(this.genes ?? [], text).filter((gene) => gene.rank < 2) : [];
    return exact.length === 1 || exact[0]?.rank === 0 ? exact[0] : null;
  }

  // What was typed, name by name; symbols where a name is one gene's, and otherwise for the server to explain.
  typed() {
    const names = this.data.free ? this.field.value.split(/[\s,;]+/).filter(Boolean) : [];
    return names.map((name) => this.named(name)?.symbol ?? name);
  }

  together(names) {
    return this.several() ? [...new Set([...this.chosen, ...names])] : names;
  }

  search() {
    const text = this.field.value === this.resting() ? "" : this.field.value;
    const taken = new Set(this.several() ? this.chosen : []);
    const all = text.trim() ? matches(this.genes, text) : startingAt(this.genes, this.resting());
    this.found = all.filter((gene) => !taken.has(gene.symbol));
    this.options.replaceChildren();
    this.options.scrollTop = 0;
    this.more();
    // Enter takes the first of what was asked for, and nothing that only has the text somewhere inside.
    const sure = text.trim() && (this.found.length === 1 || this.found[0]?.rank <= 2);
    this.choose(sure ? 0 : -1);
    this.say(this.note());
  }

  note() {
    const { most, free } = this.data;
    if (this.several() && this.chosen.length >= most) return `${most} genes at most: remove one first.`;
    if (this.found.length) return "";
    if (!free) return "No gene of the file has this name.";
    const names = this.typed();
    const count = this.together(names).length;
    if (count > most) return `${count} genes, but ${most} at most.`;
    return names.length > 1 ? `Enter takes these ${names.length} genes.` : "No gene has this name. Enter says why.";
  }

  more() {
    const from = this.options.childElementCount;
    const added = this.found.slice(from, from + STEP).map((gene, place) => {
      const option = element("li", "", gene.symbol);
      option.id = `option-${from + place}`;
      option.dataset.symbol = gene.symbol;
      option.setAttribute("role", "option");
      option.setAttribute("aria-selected", String(this.chosen.includes(gene.symbol)));
      option.setAttribute("aria-setsize", this.found.length);
      option.setAttribute("aria-posinset", from + place + 1);
      if (gene.alias) {
        option.setAttribute("aria-label", `${gene.symbol}, also ${gene.alias}`);
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
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (step) {
      event.preventDefault();
      this.walk(step);
    } else if (event.key === "Enter" && this.opened() && !event.isComposing) {
      event.preventDefault();
      this.enter();
    } else if (event.key === "Escape" && this.opened()) {
      event.preventDefault();
      this.leave();
    } else if (event.key === "Backspace" && this.several() && !this.field.value && this.chosen.length) {
      this.send(this.chosen.slice(0, -1));
    }
  }

  walk(step) {
    if (!this.opened()) return this.open();
    const next = this.active + step;
    if (next >= this.options.childElementCount) this.more();
    this.choose(Math.max(0, Math.min(next, this.options.childElementCount - 1)));
  }

  enter() {
    const gene = this.found[this.active];
    const names = gene ? [gene.symbol] : this.typed();
    if (names.length) this.take(...names);
    else if (!this.field.value.trim() || this.field.value === this.resting()) this.leave();
  }

  take(...names) {
    const chosen = this.together(names);
    if (chosen.length > this.data.most) return; // the note says so
    this.close();
    this.send(chosen);
  }

  send(chosen) {
    this.show(chosen);
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

// All genes in their order, those before the chosen one at the end.
function startingAt(genes, symbol) {
  const place = Math.max(
    0,
    genes.findIndex((gene) => gene.symbol === symbol),
  );
  return [...genes.slice(place), ...genes.slice(0, place)];
}

// First the gene called exactly so, then one with exactly such another name, then symbols that begin so, symbols with
// it inside, and last other names that begin so; among equals the shorter symbol first.
function matches(genes, text) {
  const wanted = text.trim().toUpperCase();
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

// What is not shown, or not on the page any more, cannot be hidden.
function putAway(floating) {
  if (floating.matches(":popover-open")) floating.hidePopover();
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
