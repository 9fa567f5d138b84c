// The page of `engram inspect text --html` (frozen: its data is in the page) and of `engram serve` (live: the same content is
// fetched as JSON from the path that the address shows). Data reaches the page as text, never as markup.
"use strict";

const frozen = document.getElementById("data");
const DATA = frozen ? JSON.parse(frozen.textContent) : null;
const view = document.getElementById("view");
const status = document.getElementById("status");
const chosen = { token: 0, layer: null, stream: 0, held: false }; // a held token stays while the pointer goes over others
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
  return (Number.isInteger(value) ? value.toLocaleString("en") : value.toFixed(digits)).replace("-", "−");
}

const signed = (value, digits = 3) => (value > 0 ? "+" : value < 0 ? "−" : "") + Math.abs(value).toFixed(digits);

// White space as a person can see it, · a space, → a tab, ⏎ a line's end; and by its number what no font has a picture of.
function seen(text, lines) {
  const marks = { " ": "·", "\t": lines ? "→\t" : "→", "\n": lines ? "⏎\n" : "⏎", "\r": "␍" };
  const unseen = (part) => marks[part] || (part.startsWith("  ") ? `·×${part.length}` : `‹${part.codePointAt(0).toString(16).toUpperCase()}›`);
  const parts = text.split(lines ? /([\s\p{C}])/u : /( {5,}|[\s\p{C}])/u).map((part, i) => (i % 2 ? make("span", { class: "space" }, unseen(part)) : part));
  return text ? parts.filter((part) => part !== "") : [make("span", { class: "space" }, "∅")];
}

const piece = (text, title) => make("span", { class: "piece", title }, seen(text));
const pieces = (texts) => texts.flatMap((text, i) => (i ? [" ", piece(text)] : [piece(text)]));

function facts(pairs) {
  return make("dl", { class: "facts" }, pairs.filter((pair) => pair[1] !== undefined).map(([name, value]) =>
    make("div", {}, make("dt", {}, name), make("dd", {}, value))));
}

function table(columns, rows, named) {
  const kind = (i) => (columns[i].startsWith("#") ? "number" : null);
  return make("div", { class: "scroll" }, make("table", { class: named },
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

const back = () => link(textAddress(), "← back to the text");
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
  const lost = () => { throw new Error("The server does not answer; is engram serve still running?"); };
  const answer = await fetch(path, { headers: { Accept: "application/json" } }).catch(lost);
  const found = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Error(found.error ? found.error.message : `The server answered ${answer.status} ${answer.statusText}.`);
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
    else if (path.startsWith("/ngram")) showNgram(found);
    else {
      const returning = view.querySelector("#row") !== null;
      page = found;
      showText();
      if (returning) view.querySelector(`[data-token="${chosen.token}"]`).focus();
    }
  } catch (error) {
    if (turn !== asked) return;
    say(error.message, true);
    if (!view.childElementCount || path.startsWith("/row/")) view.replaceChildren(make("p", {}, back()));
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
    onpointermove: () => { if (!chosen.held) choose(i); }, onfocus: () => choose(i), onclick: () => hold(i),
  }, seen(text, true)));
  return make("div", { class: "strip", role: "group", "aria-label": "Tokens: arrow keys move, Enter opens the first row",
    onkeydown: stripKey }, tokens);
}

function stripKey(event) {
  const last = page.tokens.length - 1;
  const to = { ArrowRight: chosen.token + 1, ArrowLeft: chosen.token - 1, Home: 0, End: last,
    ArrowDown: beside(1), ArrowUp: beside(-1) }[event.key];
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

// The token of the next line, down or up, that stands nearest to the chosen one; undefined where there is no such line.
function beside(down) {
  const place = (i) => view.querySelector(`[data-token="${i}"]`).getClientRects()[0];
  const from = place(chosen.token);
  let nearest, least, line;
  for (let i = chosen.token + down; i >= 0 && i < page.tokens.length; i += down) {
    const { top, left } = place(i);
    if (Math.abs(top - from.top) < from.height / 2) continue;
    if (line !== undefined && Math.abs(top - line) > from.height / 2) break;
    line = top;
    if (least === undefined || Math.abs(left - from.left) < least) [nearest, least] = [i, Math.abs(left - from.left)];
  }
  return nearest;
}

function hold(i) {
  chosen.held = !(chosen.held && chosen.token === i);
  view.querySelector(`[data-token="${i}"]`).focus();
  choose(i, true);
}

function choose(i, again) {
  if (i === chosen.token && !again) return;
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

function switches(name, values, current, set, shown) {
  return make("fieldset", { class: "switch", "data-name": name }, make("legend", {}, name), values.map((value) =>
    make("button", { type: "button", "aria-pressed": String(value) === String(current) ? "true" : "false", onclick: () => {
      set(value);
      shown();
      view.querySelector(`fieldset[data-name="${name}"] [aria-pressed="true"]`).focus();
    } }, String(value))));
}

function legend() {
  return make("div", { class: "legend" },
    make("span", {}, "gate 0", make("span", { class: "ramp" }), "1"),
    make("span", { class: "token helps", style: { "--effect": "0.6" } }, "memory lowers the loss"),
    make("span", { class: "token harms", style: { "--effect": "0.6" } }, "memory raises it"));
}

function layerSwitch(layers, shown) {
  if (!layers.includes(chosen.layer)) chosen.layer = layers[0];
  return layers.length > 1 ? switches("layer", layers, chosen.layer, (value) => { chosen.layer = value; }, shown) : null;
}

function showText() {
  const layers = Object.keys(page.gates);
  if (!layers.includes(chosen.layer)) chosen.layer = layers[0];
  chosen.token = Math.min(chosen.token, page.tokens.length - 1);
  const streams = page.gates[chosen.layer][0].length;
  chosen.stream = Math.min(chosen.stream, streams - 1);
  document.title = "Engram: what the memory reads";
  const field = document.getElementById("text");
  if (document.activeElement !== field) field.value = page.text;
  view.replaceChildren(
    make("div", { class: "toolbar" },
      layerSwitch(layers, showText),
      streams > 1 ? switches("stream", [...Array(streams).keys()], chosen.stream, (n) => { chosen.stream = n; }, showText) : null,
      legend()),
    strip(),
    make("p", {}, `${number(page.tokens.length)} token${page.tokens.length > 1 ? "s" : ""}. With the memory the loss is `,
      make("strong", {}, `${number(Math.abs(page.difference_nats), 2)} nats ${page.difference_nats < 0 ? "higher" : "lower"}`),
      " in all than with it suppressed."),
    ...keptNotes(), ...page.notes.map((note) => make("p", { class: "quiet" }, note)),
    make("section", { id: "token", "aria-label": "The token" }),
  );
  view.querySelector("#token").append(...tokenDetail(chosen.token));
}

function keptNotes() {
  if (!page.left_out_rows) return [];
  return [make("p", { class: "quiet" }, `This file keeps the views of the ${number(page.kept_rows)} rows that the text reads first, in `
    + `${number(page.rows_bytes / 1e6, 1)} MB; ${number(page.left_out_rows)} are left out.`)];
}

function tokenDetail(i) {
  const effect = effectAt(i);
  const found = page.positions[i].layers[chosen.layer];
  return [
    make("h2", {}, piece(page.tokens[i]), ` token ${number(i)}`,
      make("span", { class: "hint" }, chosen.held ? "held: click it again to let it go" : "click to hold it")),
    facts([
      ["gate", page.gates[chosen.layer][i].map((gate) => number(gate)).join(", ")],
      ["loss", effect === null ? "none: nothing comes before it" : `${number(page.loss_nats[i])} nats`],
      ["without memory", effect === null ? undefined : `${number(page.suppressed_nats[i])} nats (${signed(effect)})`],
      ["token id", number(page.token_ids[i])],
    ]),
    ...layerCards(found),
  ];
}

function layerCards(found) {
  return [
    ...Object.entries(found.orders).reverse().map(([order, ngram]) => orderCard(order, ngram)),
    ...(found.lens ? [make("div", { class: "card" }, make("h3", {}, `What the whole memory of layer ${chosen.layer} says here`),
      lensColumns(found.lens))] : []),
  ];
}

function showNgram(phrase) {
  document.title = "Engram: what a phrase reads";
  view.replaceChildren(
    make("p", {}, back()),
    make("h2", { id: "ngram" }, "What is read after ", pieces(phrase.tokens)),
    make("div", { class: "toolbar" }, layerSwitch(Object.keys(phrase.layers), () => showNgram(phrase)) || ""),
    ...layerCards(phrase.layers[chosen.layer]));
}

function orderCard(order, ngram) {
  const quartiles = ngram.gate_quartiles;
  return make("div", { class: "card" },
    make("h3", {}, `${order}-gram `, pieces(ngram.ngram)),
    facts([
      ["in the corpus", ngram.corpus_count === null ? "not counted" : `${number(ngram.corpus_count)} times`],
      ["trained on", ngram.training_count === null || ngram.training_count === undefined ? undefined : `${number(ngram.training_count)} times`],
      ["heaviest reader of its row in", ngram.agreement ? `${ngram.agreement.heaviest_in} of ${ngram.agreement.heads} heads` : undefined],
      ["gate, quartiles", quartiles ? `${quartiles.quartiles.map((gate) => number(gate, 2)).join(" · ")} (${number(quartiles.sampled)} read)` : undefined],
    ]),
    table(["head", "#row", "#norm", "#reads in training", "#others", "heaviest other readers"],
      ngram.rows.map((row, head) => [
        String(head), link(rowPath(chosen.layer, row), number(row)), number(ngram.row_norms[head]),
        number(ngram.row_reads ? ngram.row_reads[head] : null), number(ngram.sharer_counts ? ngram.sharer_counts[head] : null),
        ngram.sharers ? sharerList(ngram.sharers[head].slice(0, 3)) : "–",
      ]), "heads"),
    ngram.lens ? lensColumns(ngram.lens) : null);
}

function sharerList(sharers) {
  if (!sharers.length) return make("span", { class: "quiet" }, "none");
  return make("span", {}, sharers.flatMap((one, i) => [i ? ", " : "", ...pieces(one.ngram), ` ${number(one.count)}×`]));
}

function lensColumns(lens) {
  const largest = Math.max(...[...lens.up, ...lens.down].map((push) => Math.abs(push.logit)), 1e-9);
  const column = (name, pushes) => make("div", {}, make("h4", {}, name), make("ol", { class: "lens" }, pushes.map((push) =>
    make("li", {}, piece(push.token, `token id ${push.token_id}`),
      make("span", { class: "bar", "aria-hidden": "true", style: { "--size": (Math.abs(push.logit) / largest).toFixed(3) } }),
      make("span", { class: "number" }, signed(push.logit, 2))))));
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
  const heading = make("h3", {}, caption, make("span", { class: "hint" }, `${number(total)} values`));
  const picture = drawn("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label":
    `${caption}: ${number(total)} values from ${number(ends[0])} to ${number(ends[1])}` }, ...bars,
  drawn("line", { x1: 0, x2: width, y1: height - foot, y2: height - foot }),
  drawn("text", { x: 0, y: height - 3 }, number(ends[0])),
  drawn("text", { x: width, y: height - 3, "text-anchor": "end" }, number(ends[1])));
  return make("figure", { class: "card" }, heading, picture);
}

function contextStrip(context) {
  return make("p", { class: "strip small" }, context.tokens.map((text, i) => make("span", {
    ...tokenAttributes(context.gates[i], context.effect_nats[i], i === context.position ? " here" : ""),
    title: `gate ${number(context.gates[i], 2)}, effect ${number(context.effect_nats[i], 2)} nats`,
  }, seen(text, true))));
}

function showRow(row) {
  const contexts = row.contexts;
  document.title = `Engram: row ${row.row} of layer ${row.layer}`;
  view.replaceChildren(...[
    make("p", {}, back()),
    make("h2", { id: "row" }, `Row ${number(row.row)} of layer ${row.layer}`),
    facts([
      ["order", number(row.order)], ["head", number(row.head)], ["norm", number(row.norm)],
      ["norm is above", row.norm_percentile === null ? undefined : `${number(row.norm_percentile, 1)} % of its head's rows`],
      ["reads in training", row.training_reads === null ? "unknown" : `${number(row.training_reads)} steps`],
    ]),
    row.lens ? make("section", { class: "card" }, make("h3", {}, "What its value says"), lensColumns(row.lens)) : null,
    make("section", { class: "columns histograms" },
      contexts ? histogram("Gate when it is read", contexts.gate) : null,
      row.lens && row.lens.histogram ? histogram("Effect on the logits of the vocabulary", row.lens.histogram) : null),
    readers(row),
    row.neighbours ? neighbours(row) : null,
    contexts ? contextSections(contexts) : null,
  ].flat().filter((element) => element !== null));
  view.focus();
  window.scrollTo(0, 0);
}

function readers(row) {
  if (!row.ngrams) return null;
  const counted = (ngrams) => table(["n-gram", "#in the corpus"], ngrams.map((one) => [make("span", {}, pieces(one.ngram)), number(one.count)]));
  const [first, more] = [row.ngrams.slice(0, 12), row.ngrams.slice(12, 500)];
  return make("section", { class: "card" }, make("h3", {}, `Known n-grams that read it (${number(row.ngrams.length)})`),
    first.length ? counted(first) : make("p", { class: "quiet" }, "none that was counted"),
    more.length ? make("details", {}, make("summary", {}, `the next ${number(more.length)}`), counted(more)) : null);
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
      + " in the training side. The framed token reads the row."),
    legend(),
    ...contexts.strongest.map(contextStrip),
    make("h2", {}, "By how far the gate opens"),
    ...contexts.bands.map((band, i) => make("details", { open: i === contexts.bands.length - 1 },
      make("summary", {}, `${i + 1}. gate ${number(band.low)}`, band.low === band.high ? "" : ` to ${number(band.high)}`),
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
    [chosen.token, chosen.held] = [0, false];
    go(textPath(document.getElementById("text").value));
  });
  form.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit();
  });
  window.addEventListener(DATA ? "hashchange" : "popstate", show);
  document.addEventListener("keydown", (event) => {
    if (event.key !== "Escape") return;
    if (here().startsWith("/row/") || here().startsWith("/ngram")) go(textAddress());
    else chosen.held = false;
  });
  show();
}

begin();
