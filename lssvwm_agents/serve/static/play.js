// The page: keys and touch go out as moves, moments come in as pictures.

import { Futures } from "./futures.js";
import { MazeMap } from "./map.js";
import { Meter } from "./memory.js";
import { Sheet, paint, toImage } from "./pixels.js";
import { Wire } from "./wire.js";

const FILM_FRAMES_PER_SECOND = 48;
const PATIENCE = 4000; // ms without an answer after which a move counts as lost
const $ = (id) => document.getElementById(id);
const body = document.body;

const held = new Set(); // of "up", "left", "right", "wait"
let padMove = null, tapped = null, awaiting = 0, lastMove = 0, size = 64, film = null, sheet = null;
let showReal = false, arrivals = [];

const map = new MazeMap($("map"), (x, y) => wire.send({ type: "plan", x, y }));
const meter = new Meter();
const futures = new Futures(
  (number) => wire.send({ type: "restore", number }),
  (number) => wire.send({ type: "forget", number }),
);
const wire = new Wire((message) => answers[message.type]?.(message), showLink);

// --- what comes in ---------------------------------------------------------------------------------

let order = Promise.resolve(); // pictures decode in their own time; what follows a scene waits for it

const answers = {
  looking: ({ frames }) => {
    phase("looking");
    banner(`The model looks around in a real maze: ${frames} frames`);
  },
  scene: (scene) => { order = order.then(() => showScene(scene)); },
  moment: (moment) => { order = order.then(() => showMoment(moment)); },
  fork: ({ fork }) => {
    fork.image = toImage(fork.frame, size);
    futures.add(fork);
    map.forks.set(fork.number, fork);
    map.draw();
    flash(`Moment ${fork.number} is kept. Walk on; then go back and walk elsewhere.`);
  },
  forgotten: ({ number }) => {
    futures.drop(number);
    map.forks.delete(number);
    map.draw();
  },
  branch: ({ branch }) => {
    map.branches.set(branch.number, branch.path);
    futures.branch(branch);
  },
  journey: ({ goal }) => {
    map.goal = goal;
    map.candidates = [];
    journey("Imagining ways to get there …");
    map.draw();
  },
  candidates: ({ paths, round, iteration }) => {
    map.candidates = paths;
    journey(`Plan ${round}: ${paths.length} candidate futures, refined ${iteration} ×`);
    map.draw();
  },
  journey_end: ({ outcome, distance }) => {
    map.candidates = [];
    const said = { arrived: "Arrived, in the dream.", stopped: "Stopped.", gave_up: `Gave up ${distance} cells away.` };
    journey(said[outcome], true);
    map.draw();
  },
  error: ({ message }) => { awaiting = 0; toast(message); },
};

async function showScene(scene) {
  size = scene.frame_size;
  awaiting = 0;
  for (const fork of scene.forks) fork.image = toImage(fork.frame, size);
  [sheet] = await Promise.all([Sheet.load(scene.sheet, size), map.load(scene)]);
  meter.begin(scene, sheet);
  futures.begin(scene);
  journey("", true);
  body.dataset.seed = scene.seed;
  const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
  if (!scene.resumed && !calm) startFilm();
  else endFilm();
}

function showMoment(moment) {
  if (moment.by === "you") {
    awaiting = 0;
    count();
  }
  const image = toImage(moment.frame, size);
  map.pose = moment.pose;
  const path = map.branches.get(moment.branch);
  const last = path.at(-1);
  if (last[0] !== moment.pose[0] || last[1] !== moment.pose[1] || last[2] !== moment.pose[2]) path.push(moment.pose);
  map.twin = moment.real?.pose ?? null;
  $("real-figure").hidden = $("real-legend").hidden = !moment.real;
  if (moment.real) paint($("real"), toImage(moment.real.frame, size));
  paint($("now"), image);
  meter.show(moment.recall);
  futures.walked(moment, image);
  if (moment.reward > 0.5) flash("You touched the target, says the dream");
  latest = { moment, image };
  if (!film) showLatest();
}

let latest = null;

function showLatest() {
  if (!latest) return;
  const { moment, image } = latest;
  paint($("dream"), image);
  $("count").textContent = `frame ${moment.index} · ${moment.imagined} imagined`;
  Object.assign(body.dataset, { index: moment.index, branch: moment.branch, by: moment.by });
  map.draw();
}

// --- the film of real frames ------------------------------------------------------------------------

function startFilm() {
  phase("film");
  banner("Real frames: what the model will remember");
  film = { began: performance.now(), shown: -1 };
}

function endFilm() {
  film = null;
  map.lookedShown = Infinity;
  phase("dream");
  banner("From here on it is a dream: walk", 3500);
  showLatest();
}

function playFilm(now) {
  const index = Math.floor(((now - film.began) / 1000) * FILM_FRAMES_PER_SECOND);
  if (index >= sheet.count) return endFilm();
  if (index === film.shown) return;
  film.shown = index;
  sheet.paint($("dream"), index);
  $("count").textContent = `frame ${index}`;
  map.lookedShown = index + 1;
  const pose = map.pose;
  map.pose = map.looked[index];
  map.draw();
  map.pose = pose;
}

// --- what goes out -----------------------------------------------------------------------------------

function wanted() {
  if (padMove !== null) return padMove;
  const turn = held.has("left") - held.has("right");
  if (held.has("up")) return turn > 0 ? 4 : turn < 0 ? 5 : 1;
  if (turn) return turn > 0 ? 2 : 3;
  if (held.has("wait")) return 0;
  return tapped;
}

function tick(now) {
  if (film) playFilm(now);
  const move = film || body.dataset.phase !== "dream" ? null : wanted();
  const pace = Number($("pace").value);
  if (awaiting && now - awaiting > PATIENCE) awaiting = 0;
  if (move !== null && !awaiting && (!pace || now - lastMove >= 1000 / pace - 3)) {
    if (wire.send({ type: "move", move })) awaiting = lastMove = now;
    tapped = null;
  }
  requestAnimationFrame(tick);
}
requestAnimationFrame(tick);

const KEYS = {
  ArrowUp: "up", ArrowLeft: "left", ArrowRight: "right", ArrowDown: "wait", " ": "wait",
  w: "up", a: "left", d: "right", s: "wait",
};
const MOVE_OF = { up: 1, left: 2, right: 3, wait: 0 };

addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("select, input")) return;
  const name = KEYS[event.key] ?? KEYS[event.key.toLowerCase()];
  if (name && !(event.key === " " && event.target.matches("button"))) {
    event.preventDefault();
    if (film) return endFilm();
    held.add(name);
    if (!event.repeat) tapped = MOVE_OF[name]; // a tap shorter than a frame still counts
    return;
  }
  if (event.repeat) return;
  const key = event.key.toLowerCase();
  if (key === "f") fork();
  else if (key === "r") toggleReal();
  else if (key === "n") newMaze();
  else if (key === "escape") film ? endFilm() : wire.send({ type: "stop" });
  else if (/^[1-9]$/.test(key) && futures.forks.has(Number(key))) wire.send({ type: "restore", number: Number(key) });
});
addEventListener("keyup", (event) => held.delete(KEYS[event.key] ?? KEYS[event.key.toLowerCase()]));
addEventListener("blur", () => { held.clear(); padMove = null; });

for (const button of document.querySelectorAll(".pad button")) {
  const press = (event) => {
    event.preventDefault();
    if (film) endFilm();
    padMove = tapped = Number(button.dataset.move);
    button.classList.add("held");
    button.setPointerCapture(event.pointerId);
  };
  const release = () => { padMove = null; button.classList.remove("held"); };
  button.addEventListener("pointerdown", press);
  for (const name of ["pointerup", "pointercancel", "lostpointercapture"]) button.addEventListener(name, release);
  button.addEventListener("click", (event) => { if (!event.detail) tapped = Number(button.dataset.move); }); // by keyboard
  button.addEventListener("contextmenu", (event) => event.preventDefault());
}
$("dream").addEventListener("click", () => film && endFilm());

function fork() { wire.send({ type: "fork" }); }
function newMaze() { if (wire.send({ type: "maze" })) phase("looking"); }
function toggleReal() {
  showReal = !showReal;
  $("show-real").setAttribute("aria-pressed", showReal);
  wire.send({ type: "real", show: showReal });
}
$("fork").onclick = fork;
$("new-maze").onclick = newMaze;
$("show-real").onclick = toggleReal;
$("stop").onclick = () => wire.send({ type: "stop" });

// --- words -------------------------------------------------------------------------------------------

function phase(name) { body.dataset.phase = name; $("kind").textContent = name === "dream" ? "imagined" : "real"; }

function showLink(link) {
  body.dataset.link = link;
  const said = { open: "connected", lost: "connection lost, trying again …", taken: "open in another tab", refused: "refused: open the address that was printed" };
  $("link").querySelector("span").textContent = said[link];
  if (link === "open" && showReal) setTimeout(() => wire.send({ type: "real", show: true }), 0);
  if (link !== "open") awaiting = 0;
}

let bannerTimer = 0, toastTimer = 0;
function banner(text, milliseconds = 0) {
  clearTimeout(bannerTimer);
  $("banner").textContent = text;
  if (milliseconds) bannerTimer = setTimeout(() => { $("banner").textContent = ""; }, milliseconds);
}
function flash(text) { banner(text, 3500); }
function toast(text) {
  clearTimeout(toastTimer);
  Object.assign($("toast"), { textContent: text, hidden: false });
  toastTimer = setTimeout(() => { $("toast").hidden = true; }, 4500);
}
function journey(text, over = false) {
  $("journey").hidden = !text;
  $("journey").querySelector("span").textContent = text;
  $("stop").hidden = over;
}

function count() {
  const now = performance.now();
  arrivals = [...arrivals.filter((time) => now - time < 2000), now];
  const span = now - arrivals[0];
  if (arrivals.length > 5) $("rate").textContent = `${(((arrivals.length - 1) * 1000) / span).toFixed(1)} frames/s`;
}
