// The page of `engram inspect text --html` (frozen: its data is in the page) and of `engram serve` (live: the same content is
// fetched as JSON from the path that the address shows). Data reaches the page as text, never as markup.
"use strict";

const frozen = document.getElementById("data");
const DATA = frozen ? JSON.parse(frozen.textContent) : null;
const view = document.getElementById("view");
const status = document.getElementById("status");
const chosen = { token: 0, layer: null, stream: 0 };
let page = null; // the text that is shown
let asked = 0; // requests, so that a late answer does not replace a newer one

// ---- making elements -------------------------------------------------------------------------------------------------------

function make(name, attributes, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes || {})) {
    if (key === "style") for (const [name, set] of Object.entries(value)) element.style.setProperty(name, set);
    else if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else if (value !== null && value !== undefined && value !== false) element.setAttribute(key, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return element;
}

function drawn(name, attributes, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

function number(value, digits = 3) {
  if (value === null || value === undefined) return "–";
  if (Number.isInteger(value)) return value.toLocaleString("en");
  return value.toFixed(digits);
}

const signed = (value, digits = 3) => (value > 0 ? "+" : value < 0 ? "−" : "") + Math.abs(value).toFixed(digits);

// White space as a person can see it: · for a space, → for a tab, ⏎ for a line's end, and the new line too where a text is shown.
function seen(text, isRunning = true) {
  const parts = [];
  for (const part of text.split(/([ \t\n\r])/)) {
    if (part === "") continue;
    const mark = { " ": "·", "\t": "→\t", "\n": isRunning ? "⏎\n" : "⏎", "\r": "␍" }[part];
    parts.push(mark ? make("span", { class: "space" }, mark) : part);
  }
  return parts.length ? parts : [make("span", { class: "space" }, "∅")];
}

const piece = (text) => make("span", { class: "piece" }, seen(text, false));
const pieces = (texts) => texts.flatMap((text, i) => (i ? [" ", piece(text)] : [piece(text)]));

function facts(pairs) {
  return make("dl", { class: "facts" }, pairs.filter((pair) => pair[1] !== undefined).map(([name, value]) =>
    make("div", {}, make("dt", {}, name), make("dd", {}, value))));
}

function table(columns, rows) {
  const kind = (i) => (columns[i].startsWith("#") ? "number" : null);
  return make("div", { class: "scroll" }, make("table", {},
    make("thead", {}, make("tr", {}, columns.map((c, i) => make("th", { scope: "col", class: kind(i) }, c.replace("#", ""))))),
    make("tbody", {}, rows.map((row) => make("tr", {}, row.map((cell, i) => make("td", { class: kind(i) }, cell)))))));
}

// ---- where things are ------------------------------------------------------------------------------------------------------

const textPath = (text) => `/text?text=${encodeURIComponent(text)}`;
const rowPath = (layer, row) => `/row/${layer}/${row}`;
const address = (path) => (DATA ? `#${path}` : path);

function here() {
  if (DATA) return location.hash.slice(1) || "/";
  return location.pathname + location.search;
}

function go(path) {
  if (DATA) location.hash = path;
  else {
    history.pushState(null, "", path);
    show();
  }
}

const textAddress = () => (page && !DATA ? textPath(page.text) : "/");

function link(path, ...children) {
  return make("a", { href: address(path), onclick: (event) => {
    if (event.metaKey || event.ctrlKey || event.shiftKey) return;
    event.preventDefault();
    go(path);
  } }, ...children);
}

let kept = null; // the rows of a frozen page, unpacked when the first of them is asked for

async function keptRows() {
  if (!kept) {
    const packed = Uint8Array.from(atob(document.getElementById("rows").textContent), (letter) => letter.charCodeAt(0));
    const unpacked = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
    kept = JSON.parse(await new Response(unpacked).text());
  }
  return kept;
}

async function content(path) {
  if (DATA) {
    const row = path.match(/^\/row\/(\d+)\/(\d+)$/);
    if (!row) return DATA;
    const found = (await keptRows())[`${row[1]}/${row[2]}`];
    if (!found) throw new Error(`Row ${row[2]} of layer ${row[1]} is not kept in this file; engram serve shows any row.`);
    return found;
  }
  const answer = await fetch(path, { headers: { Accept: "application/json" } });
  const found = await answer.json();
  if (!answer.ok) throw new Error(found.error ? found.error.message : `The server answered ${answer.status}.`);
  return found;
}

function say(message, isError = false) {
  status.textContent = message;
  status.classList.toggle("error", isError);
}

async function show() {
  const turn = ++asked;
  const path = here();
  say(DATA ? "" : "Reading …");
  try {
    const found = await content(path);
    if (turn !== asked) return;
    say("");
    if (path.startsWith("/row/")) showRow(found);
    else {
      const returning = view.querySelector("#row") !== null;
      page = found;
      showText();
      if (returning) view.querySelector(`[data-token="${chosen.token}"]`).focus();
    }
  } catch (error) {
    if (turn === asked) say(error.message, true);
  }
}

// ---- a text ----------------------------------------------------------------------------------------------------------------

function tokenAttributes(gate, effect, place) {
  const size = effect === null || effect === undefined ? 0 : Math.min(1, Math.abs(effect) / 2);
  const kind = size < 0.01 ? "" : effect > 0 ? " helps" : " harms";
  return { class: `token${kind}${place || ""}`, style: { "--open": gate.toFixed(3), "--effect": size.toFixed(3) } };
}

const effectAt = (i) => (page.loss_nats[i] === null ? null : page.suppressed_nats[i] - page.loss_nats[i]);
const gateAt = (i) => page.gates[chosen.layer][i][chosen.stream];

function spoken(i) {
  const effect = effectAt(i);
  const loss = effect === null ? "" : `, loss ${number(page.loss_nats[i])} nats, ${number(page.suppressed_nats[i])} without memory`;
  return `${JSON.stringify(page.tokens[i])}, gate ${number(gateAt(i), 2)}${loss}`;
}

function strip() {
  const tokens = page.tokens.map((text, i) => make("span", {
    role: "button", ...tokenAttributes(gateAt(i), effectAt(i)), "data-token": i, "aria-label": spoken(i),
    tabindex: i === chosen.token ? 0 : -1, "aria-current": i === chosen.token ? "true" : null,
    onmouseenter: () => choose(i), onfocus: () => choose(i), onclick: (event) => event.currentTarget.focus(),
  }, seen(text)));
  return make("div", { class: "strip", role: "group", "aria-label": "Tokens: arrow keys move, Enter opens the first row",
    onkeydown: stripKey }, tokens);
}

function stripKey(event) {
  const last = page.tokens.length - 1;
  const to = { ArrowRight: chosen.token + 1, ArrowLeft: chosen.token - 1, Home: 0, End: last }[event.key];
  if (to !== undefined) {
    event.preventDefault();
    view.querySelector(`[data-token="${Math.min(last, Math.max(0, to))}"]`).focus();
  } else if (event.key === "Enter" || event.key === " ") {
    const first = view.querySelector("#token a");
    if (first) {
      event.preventDefault();
      first.click();
    }
  }
}

function choose(i) {
  if (i === chosen.token && view.querySelector("#token").childElementCount) return;
  const before = view.querySelector('[aria-current="true"]');
  if (before) {
    before.removeAttribute("aria-current");
    before.tabIndex = -1;
  }
  chosen.token = i;
  const now = view.querySelector(`[data-token="${i}"]`);
  now.setAttribute("aria-current", "true");
  now.tabIndex = 0;
  view.querySelector("#token").replaceChildren(...tokenDetail(i));
}

function switches(name, values, current, set) {
  return make("fieldset", { class: "switch" }, make("legend", {}, name), values.map((value) =>
    make("button", { type: "button", "aria-pressed": String(value) === String(current) ? "true" : "false", onclick: () => {
      set(value);
      showText();
      view.querySelector(`fieldset[data-name="${name}"] [aria-pressed="true"]`)?.focus();
    } }, String(value))));
}

function legend() {
  return make("div", { class: "legend" },
    make("span", {}, "gate 0", make("span", { class: "ramp" }), "1"),
    make("span", { class: "token helps", style: { "--effect": "0.6" } }, "memory lowers the loss"),
    make("span", { class: "token harms", style: { "--effect": "0.6" } }, "memory raises it"));
}

function showText() {
  const layers = Object.keys(page.gates);
  if (!layers.includes(String(chosen.layer))) chosen.layer = layers[0];
  chosen.token = Math.min(chosen.token, page.tokens.length - 1);
  const streams = page.gates[chosen.layer][0].length;
  chosen.stream = Math.min(chosen.stream, streams - 1);
  document.title = "Engram: what the memory reads";
  const field = document.getElementById("text");
  if (document.activeElement !== field) field.value = page.text;
  view.replaceChildren(
    make("div", { class: "toolbar" },
      layers.length > 1 ? switches("layer", layers, chosen.layer, (value) => { chosen.layer = value; }) : null,
      streams > 1 ? switches("stream", [...Array(streams).keys()], chosen.stream, (value) => { chosen.stream = value; }) : null,
      legend()),
    strip(),
    facts([
      ["tokens", number(page.tokens.length)],
      [page.difference_nats < 0 ? "the memory raises their loss by" : "the memory lowers their loss by",
        `${number(Math.abs(page.difference_nats))} nats in all`],
    ]),
    ...(page.notes || []).map((note) => make("p", { class: "quiet" }, note)),
    make("section", { id: "token", "aria-live": "polite", "aria-label": "The token" }),
  );
  view.querySelector("#token").append(...tokenDetail(chosen.token));
}

function tokenDetail(i) {
  const effect = effectAt(i);
  const found = page.positions[i].layers[chosen.layer];
  return [
    make("h2", {}, piece(page.tokens[i]), ` token ${number(i)}`),
    facts([
      ["gate", page.gates[chosen.layer][i].map((gate) => number(gate)).join(", ")],
      ["loss", effect === null ? "none: nothing comes before it" : `${number(page.loss_nats[i])} nats`],
      ["without memory", effect === null ? undefined : `${number(page.suppressed_nats[i])} nats (${signed(effect)})`],
      ["token id", number(page.token_ids[i])],
    ]),
    ...Object.entries(found.orders).reverse().map(([order, ngram]) => orderCard(order, ngram)),
    found.lens ? make("div", { class: "card" }, make("h3", {}, `What the whole memory of layer ${chosen.layer} says here`),
      lensColumns(found.lens)) : null,
  ].filter((element) => element !== null);
}

function orderCard(order, ngram) {
  const quartiles = ngram.gate_quartiles;
  return make("div", { class: "card" },
    make("h3", {}, `${order}-gram `, pieces(ngram.ngram)),
    facts([
      ["in the corpus", ngram.corpus_count === null ? "not counted" : `${number(ngram.corpus_count)} times`],
      ["trained on", ngram.training_count === null || ngram.training_count === undefined ? undefined : `${number(ngram.training_count)} times`],
      ["its rows' heaviest reader in", ngram.agreement ? `${ngram.agreement.heaviest_in} of ${ngram.agreement.heads}` : undefined],
      ["quartiles of its gate", quartiles ? `${quartiles.quartiles.map((gate) => number(gate, 2)).join(" · ")} (${number(quartiles.sampled)} read)` : undefined],
    ]),
    table(["head", "#row", "#norm", "#reads in training", "#others", "heaviest other readers"],
      ngram.rows.map((row, head) => [
        String(head), link(rowPath(chosen.layer, row), number(row)), number(ngram.row_norms[head]),
        number(ngram.row_reads ? ngram.row_reads[head] : null), number(ngram.sharer_counts ? ngram.sharer_counts[head] : null),
        ngram.sharers ? sharerList(ngram.sharers[head].slice(0, 3)) : "–",
      ])),
    ngram.lens ? lensColumns(ngram.lens) : null);
}

function sharerList(sharers) {
  if (!sharers.length) return make("span", { class: "quiet" }, "none");
  return make("span", {}, sharers.flatMap((one, i) => [i ? ", " : "", ...pieces(one.ngram), ` ${number(one.count)}×`]));
}

function lensColumns(lens) {
  const largest = Math.max(...[...lens.up, ...lens.down].map((push) => Math.abs(push.logit)), 1e-9);
  const column = (name, pushes) => make("div", {}, make("h3", {}, name), make("ol", { class: "lens" }, pushes.map((push) =>
    make("li", { style: { "--size": (Math.abs(push.logit) / largest).toFixed(3) } },
      make("span", {}, piece(push.token)), make("span", { class: "number" }, signed(push.logit, 2))))));
  return make("div", { class: "columns" }, column("pushed up", lens.up), column("pushed down", lens.down));
}

// ---- a row -----------------------------------------------------------------------------------------------------------------

function histogram(caption, bins) {
  const width = 400, height = 120, foot = 16;
  const most = Math.max(...bins.counts, 1);
  const wide = width / bins.counts.length;
  const bars = bins.counts.map((count, i) => {
    const tall = (height - foot) * (count ? Math.max(0.012, count / most) : 0);
    const bar = drawn("rect", { x: i * wide + 0.5, y: height - foot - tall, width: wide - 1, height: tall });
    bar.append(drawn("title", {}, `${number(bins.edges[i])} to ${number(bins.edges[i + 1])}: ${number(count)}`));
    return bar;
  });
  const total = bins.counts.reduce((sum, count) => sum + count, 0);
  const ends = [bins.edges[0], bins.edges[bins.edges.length - 1]];
  const picture = drawn("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label":
    `${caption}: ${number(total)} values from ${number(ends[0])} to ${number(ends[1])}` }, ...bars,
  drawn("line", { x1: 0, x2: width, y1: height - foot, y2: height - foot }),
  drawn("text", { x: 0, y: height - 3 }, number(ends[0])),
  drawn("text", { x: width, y: height - 3, "text-anchor": "end" }, number(ends[1])));
  return make("figure", {}, picture, make("figcaption", {}, `${caption} (${number(total)})`));
}

function contextStrip(context) {
  return make("p", { class: "strip small" }, context.tokens.map((text, i) => make("span", {
    ...tokenAttributes(context.gates[i], context.effect_nats[i], i === context.position ? " here" : ""),
    title: `gate ${number(context.gates[i], 2)}`,
  }, seen(text))));
}

function showRow(row) {
  const contexts = row.contexts;
  document.title = `Engram: row ${row.row} of layer ${row.layer}`;
  view.replaceChildren(...[
    make("p", {}, link(textAddress(), "← back to the text")),
    make("h2", { id: "row" }, `Row ${number(row.row)} of layer ${row.layer}`),
    facts([
      ["order", number(row.order)], ["head", number(row.head)], ["norm", number(row.norm)],
      ["norm is above", row.norm_percentile === null ? undefined : `${number(row.norm_percentile, 1)} % of its head's rows`],
      ["reads in training", row.training_reads === null ? "unknown" : `${number(row.training_reads)} steps`],
    ]),
    row.lens ? make("section", { class: "card" }, make("h3", {}, "What its value says"), lensColumns(row.lens)) : null,
    make("section", { class: "columns" },
      contexts ? histogram("gate when it is read", contexts.gate) : null,
      row.lens && row.lens.histogram ? histogram("effect on the logits, over the vocabulary", row.lens.histogram) : null),
    readers(row),
    row.neighbours ? neighbours(row) : null,
    contexts ? contextSections(contexts) : null,
  ].flat().filter((element) => element !== null));
  view.focus();
  window.scrollTo(0, 0);
}

function readers(row) {
  if (!row.ngrams) return null;
  const shown = row.ngrams.slice(0, 50);
  const more = row.ngrams.length - shown.length;
  return make("section", { class: "card" }, make("h3", {}, `Known n-grams that read it (${number(row.ngrams.length)})`),
    row.ngrams.length ? table(["n-gram", "#in the corpus"], shown.map((one) => [make("span", {}, pieces(one.ngram)), number(one.count)]))
      : make("p", { class: "quiet" }, "none that was counted"),
    more > 0 ? make("p", { class: "quiet" }, `and ${number(more)} more`) : null);
}

function neighbours(row) {
  return make("section", { class: "card" }, make("h3", {}, "Nearest rows of its head"),
    table(["#row", "#cosine", "heaviest reader"], row.neighbours.map((one) => [
      link(rowPath(row.layer, one.row), number(one.row)), number(one.cosine),
      one.ngram ? make("span", {}, pieces(one.ngram)) : make("span", { class: "quiet" }, "none known")])));
}

function contextSections(contexts) {
  return [
    make("h2", {}, "Strongest contexts"),
    make("p", { class: "quiet" }, `The widest open gates of ${number(contexts.sampled)} occurrences, of ${number(contexts.occurrences)}`
      + " in the training side. The token with a frame reads the row."),
    ...contexts.strongest.map(contextStrip),
    make("h2", {}, "By how far the gate opens"),
    ...contexts.bands.map((band, i) => make("details", { open: i === contexts.bands.length - 1 },
      make("summary", {}, `gate ${number(band.low)} to ${number(band.high)}`),
      ...(band.contexts.length ? band.contexts.map(contextStrip) : [make("p", { class: "quiet" }, "no context")]))),
  ];
}

// ---- beginning -------------------------------------------------------------------------------------------------------------

function begin() {
  document.getElementById("run").textContent = (DATA || {}).run || document.body.dataset.run || "";
  const home = document.getElementById("home");
  home.href = address("/");
  const form = document.getElementById("ask");
  form.hidden = DATA !== null;
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    chosen.token = 0;
    go(textPath(document.getElementById("text").value));
  });
  window.addEventListener(DATA ? "hashchange" : "popstate", show);
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && here().startsWith("/row/")) go(textAddress());
  });
  show();
}

begin();
