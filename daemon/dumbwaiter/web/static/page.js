// The page: what the daemon tells, drawn anew at most once a frame. It asks for nothing by a clock.

import { follow, get, picture, post, remember } from "./api.js";
import { choose, clock, count, current, duration, sentence, size, word } from "./words.js";

const LISTED = 100; // files on their way that are drawn
const SPAN = 15_000; // milliseconds over which a rate is taken
const PAGE = 50;
const RATES = [0.125, 0.25, 0.5, 1, 2, 4, 8, 16, 32, 64, 128].map((mebibytes) => mebibytes * 1048576);

const $ = (selector, from = document) => from.querySelector(selector);
const state = { jobs: new Map(), providers: new Map(), watches: new Map(), errands: [], cut: false, seen: false, online: true, at: 0, begun: null };
const samples = new Map(); // by job, and of "all": [time, bytes acknowledged] of late
const entries = new Map(); // by id, as they were loaded
let before = null; // where the next page of the history begins

// Elements

function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (value === true) made.setAttribute(key, "");
    else if (value !== false && value != null) made.setAttribute(key, value);
  }
  made.append(...children.filter((child) => child != null && child !== ""));
  return made;
}

const button = (label, does, more = {}) => element("button", { type: "button", ...more, onclick: (event) => act(event.currentTarget, does) }, label);

async function act(pressed, does) {
  if (pressed.ariaBusy === "true") return;
  pressed.ariaBusy = "true";
  try {
    await does();
  } catch (error) {
    toast(`${word("failed")} ${sentence(error.message)}`);
  } finally {
    pressed.ariaBusy = null;
  }
}

let fading;
function toast(text) {
  clearTimeout(fading);
  $("#toast").textContent = text;
  $("#toast").dataset.shown = "";
  fading = setTimeout(() => delete $("#toast").dataset.shown, 3000);
}

function say(target, text) {
  if (target.textContent !== text) target.textContent = text;
}

// Says a sentence of the daemon's; one that there is in English only is marked as such.
function tell(target, text, about = "") {
  const said = sentence(text);
  say(target, about + said);
  target.lang = said === text ? "en" : document.documentElement.lang;
}

// Keeps one child for each item, in their order. An element that is there is changed and not replaced: focus stays.
function list(parent, items, key, make, change) {
  const known = new Map([...parent.children].map((child) => [child.dataset.key, child]));
  const names = items.map((item) => String(key(item)));
  const wanted = new Set(names);
  const focused = document.activeElement;
  for (const [name, child] of known) if (!wanted.has(name)) child.remove(); // first, or all behind it would move
  items.forEach((item, index) => {
    const child = known.get(names[index]) ?? make(item);
    child.dataset.key = names[index];
    if (parent.children[index] !== child) parent.insertBefore(child, parent.children[index] ?? null);
    change?.(child, item);
  });
  if (parent.contains(focused)) focused.focus({ preventScroll: true }); // what moves loses it
}

const name = (path) => path.slice(path.lastIndexOf("/") + 1);
const place = ({ watch, path }) => [watch, ...path.split("/").slice(0, -1)].filter(Boolean).join(" / ");
const file = (item) => element("div", { class: "what" }, element("span", { class: "name", title: item.path }, name(item.path)), element("span", { class: "where" }, place(item)));

// What came

const HEARD = {
  snapshot(facts) {
    state.jobs = new Map(facts.trouble && !facts.jobs.length ? state.jobs : facts.jobs.map((job) => [job.id, job]));
    state.providers = new Map(facts.providers.map((one) => [one.name, dated(one)]));
    state.watches = new Map(facts.watches.map((one) => [one.name, one]));
    state.errands = facts.errands;
    HEARD.state(facts);
    state.cut = state.totals.in_need > needy().size;
    renew();
  },
  job(job) {
    if (job.state === "done") renew();
    if (job.state === "done" || job.state === "superseded") {
      state.jobs.delete(job.id);
      samples.delete(job.id);
    } else state.jobs.set(job.id, job);
  },
  bytes({ id, ...amounts }) {
    const job = state.jobs.get(id);
    if (job) state.jobs.set(id, { ...job, ...amounts });
  },
  provider: (one) => state.providers.set(one.name, dated(one)),
  watch: (one) => state.watches.set(one.name, one),
  errands: (all) => (state.errands = all),
  state: ({ totals, settling, trouble, paused, bytes_per_second: rate }) => Object.assign(state, { totals, settling, trouble, paused, rate }),
};

const dated = (provider) => ({ ...provider, ends: provider.expires_in == null ? null : Date.now() / 1000 + provider.expires_in });

function heard(kind, facts) {
  HEARD[kind]?.(facts);
  Object.assign(state, { seen: true, online: true, at: Date.now() / 1000 });
  sample();
  draw();
}

function sample() {
  const jobs = open();
  const note = (id, active, sent) => {
    if (!active) return samples.delete(id);
    const of = samples.get(id) ?? samples.set(id, []).get(id);
    if (of.at(-1)?.[1] !== sent) of.push([Date.now(), sent]);
    while (of.length > 2 && Date.now() - of[0][0] > SPAN) of.shift();
  };
  for (const job of state.jobs.values()) note(job.id, job.active, job.sent);
  const { pending, stored, bytes_sent: sent } = state.totals;
  note("all", jobs.some((job) => job.active), sent);
  // What came before all that is left, of what was ever sent.
  if (!(pending + stored)) state.begun = null;
  else state.begun ??= sent - jobs.reduce((sum, job) => sum + job.sent, 0);
}

// Bytes a second of one job, or of all; 0 until two acknowledgements came.
function rate(id) {
  const of = samples.get(id);
  if (!of || of.length < 2) return 0;
  return Math.max(0, (of.at(-1)[1] - of[0][1]) / ((Math.max(of.at(-1)[0], Date.now() - 3000) - of[0][0]) / 1000));
}

// Drawing

let asked = false;
function draw() {
  if (asked) return;
  asked = true;
  requestAnimationFrame(() => {
    asked = false;
    if (!state.seen) return drawHead();
    for (const part of [drawHead, drawResting, drawAttention, drawOutbox, drawSpeed, drawProviders, drawWatches]) part();
  });
}

const open = () => [...state.jobs.values()].filter((job) => job.state !== "rejected");
const rejected = () => [...state.jobs.values()].filter((job) => job.state === "rejected");
const givenUp = () => state.errands.filter((one) => one.due_at == null);
const needy = () => new Set([...rejected().map((job) => job.id), ...givenUp().map((one) => one.job).filter(Boolean)]);
// How many files that need a person the daemon counts and did not name.
const unnamed = () => (state.cut ? Math.max(0, state.totals.in_need - needy().size) : 0);

function troubles() {
  const found = [];
  if (state.trouble) found.push({ key: "trouble", title: "", text: state.trouble });
  for (const one of state.providers.values()) {
    if (one.state === "blocked") found.push({ key: `p-${one.name}`, title: one.name, text: one.error, resume: one.name });
    else if (one.listing_error) found.push({ key: `l-${one.name}`, title: one.name, text: one.listing_error });
  }
  for (const one of state.watches.values()) {
    if (one.state === "away") found.push({ key: `w-${one.name}`, title: one.name, text: one.message, look: one.name });
  }
  for (const job of rejected()) found.push({ key: `j-${job.id}`, file: job, text: job.error, again: [job.id], forget: job });
  for (const one of givenUp()) {
    found.push({ key: `e-${one.id}`, file: one.path ? one : null, title: one.watch, about: `${one.what}: `, text: one.error, again: one.job ? [one.job] : null, forget: one.job ? { ...one, id: one.job } : null });
  }
  return found;
}

let announced = "";
function drawHead() {
  const jobs = open();
  const active = jobs.filter((job) => job.active);
  const left = state.totals ? state.totals.pending + state.totals.stored : 0;
  const need = state.seen ? troubles().length + unnamed() : 0;
  let head, detail = "";
  if (!state.online) [head, detail] = [word("offlineHead"), ""];
  else if (!state.seen) head = word("connecting");
  else if (active.length) {
    const bytes = state.totals.bytes_left, fast = rate("all"); // not every file is named
    head = word("working", count(left));
    detail = [bytes && word("toGo", size(bytes)), fast && `${size(fast)}/s`, fast && bytes && word("left", duration(bytes / fast))].filter(Boolean).join(" · ");
  } else if (left) head = state.paused.some((one) => !one.name) ? word("restingHead") : word("waiting", count(left));
  else if (state.settling) head = word("settling");
  else if (need) head = word("needsYou", count(need));
  else {
    const files = [...state.watches.values()].reduce((sum, one) => sum + one.files, 0);
    const away = state.totals.after; // to be put away
    if (away) [head, detail] = [word("idle"), word("toPutAway", count(away))];
    else if (files) [head, detail] = [word("idle"), word("idleDetail", count(files), count(state.watches.size))];
    else [head, detail] = [word("fresh"), word("freshDetail", count(state.watches.size))];
  }
  say($("#headline"), head);
  say($("#detail"), detail || (need && left ? word("needsYou", count(need)) : ""));
  document.title = left ? `(${count(left)}) dumbwaiter` : "dumbwaiter";
  const overall = $("#overall");
  overall.hidden = !active.length;
  const sent = state.begun == null ? 0 : Math.max(0, state.totals.bytes_sent - state.begun);
  if (active.length) overall.value = sent / Math.max(1, sent + state.totals.bytes_left);
  // Told aloud when it is something else, not at every file.
  const told = !state.online ? "offline" : active.length ? "working" : left ? "waiting" : need ? `need ${need}` : "idle";
  if (told !== announced) say($("#announcement"), head);
  announced = told;
  $("#offline").hidden = state.online;
  say($("#offline p"), state.online ? "" : state.seen ? word("offline", clock(state.at)) : word("offlineFirst"));
}

function drawResting() {
  const all = state.paused.find((one) => !one.name);
  $("#resting").hidden = !all;
  if (all) say($("#resting p"), all.until ? word("restsUntil", clock(all.until)) : word("rests"));
}

function drawAttention() {
  const found = troubles(), more = unnamed();
  $("#attention").hidden = !found.length && !more;
  $("#retry-all").hidden = found.filter((one) => one.again?.length).length + more < 2;
  $("#attention .more").hidden = !more;
  say($("#attention .more"), word("more", count(more)));
  list($("#attention .rows"), found, (one) => one.key + current(), makeTrouble, (row, one) => tell($(".sentence", row), one.text ?? "", one.about));
}

function makeTrouble(one) {
  const what = one.file ? file(one.file) : one.title ? element("div", { class: "what" }, element("span", { class: "name" }, one.title)) : "";
  const choices = element("div", { class: "actions" });
  const of = (verb) => ({ "aria-label": `${word(verb)}: ${one.file ? name(one.file.path) : one.title}` }); // one of many such buttons
  if (one.again) choices.append(button(word("retry"), () => post("retry", { ids: one.again }), { class: "main", ...of("retry") }));
  if (one.resume) choices.append(button(word("tryAgain"), () => post("resume", { name: one.resume }), { class: "main", ...of("tryAgain") }));
  if (one.look) choices.append(button(word("rescan"), () => post("rescan", { watch: one.look }), of("rescan")));
  if (one.forget) choices.append(button(word("forget"), async () => confirm(word("askForget", name(one.forget.path))) && post("forget", { ids: [one.forget.id] }), of("forget")));
  return element("li", {}, element("div", { class: "body" }, what, element("p", { class: "sentence" })), choices);
}

function drawOutbox() {
  const jobs = open().sort((a, b) => b.active - a.active || a.due_at - b.due_at || a.id - b.id);
  const left = Math.max(jobs.length, state.totals.pending + state.totals.stored);
  const shown = jobs.slice(0, LISTED);
  say($("#outbox .count"), left ? count(left) : "");
  list($("#outbox .rows"), shown, (job) => `${job.id}${current()}`, makeJob, changeJob);
  $("#outbox .more").hidden = left <= shown.length;
  say($("#outbox .more"), word("more", count(left - shown.length)));
  const empty = $("#outbox .empty");
  empty.hidden = left > 0;
  const key = current() + [...state.watches.keys()].join("/");
  if (empty.dataset.key !== key) {
    empty.dataset.key = key;
    const folders = [...state.watches.values()].map((one) => element("li", {}, element("code", {}, one.path), element("span", { class: "where" }, `→ ${one.provider}`)));
    empty.replaceChildren(element("strong", {}, word("emptyTitle")), element("p", {}, word("emptyText")), element("ul", { class: "folders" }, ...folders));
  }
}

function makeJob(job) {
  return element("li", { class: "job" }, file(job), element("span", { class: "amount" }), element("progress", { max: 1, "aria-label": name(job.path) }),
    element("span", { class: "note" }), button(word("now"), () => post("retry", { ids: [job.id] }), { class: "quiet", "aria-label": `${word("now")}: ${name(job.path)}` }));
}

function changeJob(row, job) {
  const fast = rate(job.id);
  const bar = $("progress", row);
  bar.value = job.size ? job.sent / job.size : Number(job.state === "stored");
  row.classList.toggle("active", job.active);
  row.classList.toggle("waiting", !job.active && !job.sent && !job.error);
  row.classList.toggle("trouble", Boolean(job.error));
  say($(".amount", row), job.sent ? word("acknowledged", size(job.sent), size(job.size)) : size(job.size));
  const due = job.due_at > Date.now() / 1000 + 1 ? word("nextTry", clock(job.due_at)) : "";
  const rests = state.paused.some((one) => ["", job.provider, job.watch].includes(one.name));
  const opens = state.watches.get(job.watch)?.opens_at;
  let note = job.error ? [sentence(job.error), due].filter(Boolean).join(" · ") : "";
  if (!note && job.state === "stored") note = word("stored");
  if (!note && job.active) note = fast ? `${size(fast)}/s · ${word("left", duration((job.size - job.sent) / fast))}` : word("begun");
  if (!note && !job.active) note = rests ? word("paused") : opens ? word("hours", clock(opens)) : due || word("queued");
  say($(".note", row), note);
  $("button", row).hidden = job.active || !(job.error || opens);
}

// Steering

const slider = $("#bandwidth");
slider.max = RATES.length;
let held = false; // a hand is on the slider

const label = (index) => (index >= RATES.length ? word("unlimited") : `${size(RATES[index])}/s`);
const nearest = (bytes) => (bytes == null ? RATES.length : RATES.reduce((best, one, index) => (Math.abs(Math.log(one / bytes)) < Math.abs(Math.log(RATES[best] / bytes)) ? index : best), 0));

function drawSpeed() {
  if (!held) slider.value = nearest(state.rate);
  const text = held ? label(Number(slider.value)) : state.rate == null ? word("unlimited") : `${size(state.rate)}/s`;
  say($("#rate"), text);
  slider.setAttribute("aria-valuetext", text);
}

const order = (rate) => post("bandwidth", { rate }).then((facts) => ((state.rate = facts.bytes_per_second), draw()));

slider.addEventListener("input", () => ((held = true), drawSpeed()));
slider.addEventListener("change", () => {
  const index = Number(slider.value);
  act(slider, () => order(index >= RATES.length ? "off" : String(RATES[index]))).finally(() => ((held = false), draw()));
});
$("#configured").addEventListener("click", (event) => act(event.currentTarget, () => order("auto")));
for (const one of $("#pauses").children) {
  one.addEventListener("click", () => act(one, () => post("pause", { name: "", seconds: Number(one.dataset.seconds) || null })));
}
$("#resting button").addEventListener("click", (event) => act(event.currentTarget, () => post("resume", { name: "" })));
$("#retry-all").addEventListener("click", (event) => act(event.currentTarget, () => post("retry", { ids: null, waiting: false })));

const paused = (of) => state.paused.find((one) => one.name === of);
// A provider can rest by itself, after it refused too much.
const resting = (of) => !paused(of) && !paused("") && ["paused", "blocked"].includes(state.providers.get(of)?.state);

function pauseButton(of) {
  return button("", () => post(paused(of) || resting(of) ? "resume" : "pause", { name: of }), { class: "quiet toggle" });
}

function changePause(row, of, rests = false) {
  const toggle = $(".toggle", row);
  say(toggle, word(rests ? "tryAgain" : paused(of) ? "resume" : "pause"));
  toggle.setAttribute("aria-label", rests ? `${word("tryAgain")}: ${of}` : word(paused(of) ? "resumeLabel" : "pauseLabel", of));
}

const makeSteered = ({ name: of }) => element("li", { class: "steered" }, element("span", { class: "dot" }), element("div", { class: "what" }, element("span", { class: "name" }, of), element("span", { class: "where" }), element("span", { class: "where" })), pauseButton(of));

function drawProviders() {
  list($("#providers .rows"), [...state.providers.values()], (one) => one.name, makeSteered, (row, one) => {
    row.dataset.state = one.state;
    const [where, more] = row.querySelectorAll(".where");
    const what = one.state === "paused" ? (one.paused_until ? word("restingUntil", clock(one.paused_until)) : word("resting")) : one.next_at ? word("nextTry", clock(one.next_at)) : word(one.state);
    say(where, [what, one.pending && word("pending", count(one.pending))].filter(Boolean).join(" · "));
    const left = one.ends == null ? 0 : one.ends - Date.now() / 1000;
    say(more, one.error ? sentence(one.error) : left > 0 ? word("grant", duration(left)) : word("noGrant"));
    changePause(row, one.name, resting(one.name));
  });
}

function drawWatches() {
  list($("#watches .rows"), [...state.watches.values()], (one) => one.name, makeSteered, (row, one) => {
    row.dataset.state = paused(one.name) ? "paused" : one.state;
    const [where, more] = row.querySelectorAll(".where");
    const what = paused(one.name) ? word("resting") : one.opens_at ? word("hours", clock(one.opens_at)) : word(one.state);
    say(where, [what, word("files", count(one.files)), one.pending && word("pending", count(one.pending))].filter(Boolean).join(" · "));
    say(more, one.message ? sentence(one.message) : one.path);
    more.title = more.textContent;
    changePause(row, one.name);
  });
}

// History

let renewing = null;
let again = false;
// Loads what is new: at once, and once more when something came meanwhile, or it could not be had.
function renew() {
  if (renewing) return void (again = true);
  renewing = load().catch(() => state.online && setTimeout(renew, 2000)).finally(() => {
    renewing = null;
    if (again) setTimeout(renew, 500);
    again = false;
  });
}

async function load() {
  const page = await get(`history?limit=${PAGE}`);
  if (!page.entries.some((one) => entries.has(one.id))) {
    entries.clear(); // more than a page is new
    before = page.before;
  }
  // What is not on it any more was replaced, or is no longer known.
  for (const one of entries.values()) if (page.before == null || latest(one, page.entries.at(-1)) <= 0) entries.delete(one.id);
  for (const one of page.entries) entries.set(one.id, one);
  drawHistory();
}

async function loadOlder() {
  if (before == null) return;
  const from = before;
  const page = await get(`history?limit=${PAGE}&before=${encodeURIComponent(from)}`);
  if (from !== before) return;
  before = page.before;
  for (const one of page.entries) entries.set(one.id, one);
  drawHistory();
}

const latest = (a, b) => b.stored_at - a.stored_at || b.id - a.id;

function drawHistory() {
  const all = [...entries.values()].sort(latest);
  list($("#history .rows"), all, (one) => [one.id, one.stored_at, one.url, one.verified, one.unlisted_at, current()].join(" "), makeEntry);
  $("#history .empty").hidden = all.length > 0;
  $("#older").hidden = before == null;
}

function makeEntry(one) {
  const kind = name(one.path).split(".").slice(1).pop()?.slice(0, 4) ?? "";
  const frame = element("div", { class: "frame", "aria-hidden": "true" }, element("span", {}, kind));
  if (one.picture) {
    frame.dataset.picture = `${one.id}?${one.stored_at}`; // a number may come to stand for another file, and pictures are kept for a day
    seen.observe(frame);
  }
  const facts = [size(one.size), clock(one.stored_at), one.provider];
  const marks = [one.verified && element("span", { class: "mark", title: `${word("verified")} (${one.verified})` }, "✓"), one.unlisted_at && element("span", { class: "mark warn", title: word("unlisted") }, "!")].filter(Boolean);
  const path = element("span", { class: "name", title: one.path }, /^https?:/.test(one.url ?? "") ? element("a", { href: one.url, target: "_blank", rel: "noopener noreferrer" }, name(one.path)) : name(one.path), ...marks);
  const copies = [["url", "copyUrl"], ["markdown", "copyMarkdown"], ["html", "copyHtml"]].map(([form, title]) =>
    button(word(title), () => copy(one.id, form), { class: "quiet", "aria-label": word("copyLabel", word(title), name(one.path)) }));
  return element("li", { class: "entry" }, frame, element("div", { class: "what" }, path, element("span", { class: "where" }, place(one)), element("span", { class: "where" }, facts.join(" · "))), element("div", { class: "copies" }, ...copies));
}

async function copy(id, form) {
  const { text } = await post("link", { id, form });
  if (navigator.clipboard) await navigator.clipboard.writeText(text);
  else {
    // Over plain HTTP from another machine there is no clipboard but this one.
    const focused = document.activeElement;
    const area = element("textarea", { class: "visually-hidden" });
    area.value = text;
    document.body.append(area);
    area.select();
    const copied = document.execCommand("copy"); // false when the button was pressed seconds ago
    area.remove();
    focused.focus({ preventScroll: true });
    if (!copied) throw new Error(word("uncopied"));
  }
  toast(word("copied"));
}

async function show(frame) {
  const address = await picture(frame.dataset.picture);
  if (!address) return;
  const image = element("img", { src: address, alt: "" });
  try {
    await image.decode();
  } finally {
    URL.revokeObjectURL(address);
  }
  frame.replaceChildren(image);
}

const seen = new IntersectionObserver((items) => {
  for (const { isIntersecting, target } of items) {
    if (!isIntersecting) continue;
    seen.unobserve(target);
    show(target).catch(() => {}); // what cannot be shown keeps its kind
  }
}, { rootMargin: "200px" });

$("#older").addEventListener("click", (event) => act(event.currentTarget, loadOlder));
new IntersectionObserver((items) => items.some((one) => one.isIntersecting) && !$("#older").hidden && act($("#older"), loadOlder), { rootMargin: "400px" }).observe($("#older"));

// Language, token, start

function speak() {
  document.documentElement.lang = current() === "zh" ? "zh-CN" : "en";
  for (const one of document.querySelectorAll("[data-word]")) if (word(one.dataset.word)) one.textContent = word(one.dataset.word);
  for (const one of document.querySelectorAll("[data-label]")) one.setAttribute("aria-label", word(one.dataset.label));
  for (const one of document.querySelectorAll(".languages button")) one.setAttribute("aria-pressed", one.id === current());
  announced = "";
  drawHistory();
  draw();
}

for (const one of document.querySelectorAll(".languages button")) one.addEventListener("click", () => (choose(one.id), speak()));

function askToken() {
  const door = $("#door");
  if (!door.open) door.showModal();
  return new Promise((resolve) => {
    $("#door form").onsubmit = (event) => {
      event.preventDefault();
      if (!$("#token").value) return;
      remember($("#token").value.trim());
      $("#token").value = "";
      door.close();
      resolve();
    };
    door.oncancel = (event) => event.preventDefault();
  });
}

speak();
$("#history .empty").hidden = true;
setInterval(draw, 1000); // times that pass; nothing is asked
follow(heard, () => ((state.online = false), draw()), askToken);
