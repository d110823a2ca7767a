// Kept moments, and film strips of the futures that begin at them.

import { branchColor } from "./map.js";
import { thumbnail } from "./pixels.js";

const SHOWN = 6, KEPT_EVERY = 3;
const $ = (id) => document.getElementById(id);

export class Futures {
  constructor(onRestore, onForget) {
    Object.assign(this, { onRestore, onForget });
    this.begin({ forks: [], branches: [] });
  }

  begin(scene) {
    this.forks = new Map(scene.forks.map((fork) => [fork.number, fork]));
    this.branches = new Map(scene.branches.map((branch) => [branch.number, branch]));
    this.frames = new Map(); // branch number -> [{index, canvas}]
    this.draw();
  }

  add(fork) {
    this.forks.set(fork.number, fork);
    this.draw();
  }

  drop(number) {
    this.forks.delete(number);
    this.draw();
  }

  branch(branch) {
    this.branches.set(branch.number, branch);
    this.draw();
  }

  walked(moment, image) {
    const start = this.forks.get(this.branches.get(moment.branch)?.fork);
    if (!this.forks.size || moment.index <= start?.index) return;
    const frames = this.frames.get(moment.branch) ?? [];
    if (frames.length && moment.index - frames.at(-1).index < KEPT_EVERY) return;
    frames.push({ index: moment.index, canvas: thumbnail(image) });
    this.frames.set(moment.branch, frames);
    this.draw();
  }

  strips(fork) {
    const strips = [];
    for (const [number, frames] of this.frames) {
      const here = number === fork.branch || this.branches.get(number)?.fork === fork.number;
      const later = here ? frames.filter((frame) => frame.index > fork.index) : [];
      if (later.length) strips.push({ number, frames: later });
    }
    return strips;
  }

  draw() {
    $("no-forks").hidden = this.forks.size > 0;
    $("forks").replaceChildren(
      ...[...this.forks.values()].map((fork) => {
        const item = document.createElement("li");
        item.dataset.fork = fork.number;
        const head = document.createElement("div");
        head.className = "fork-head";
        const words = document.createElement("span");
        words.innerHTML = `<b>Moment ${fork.number}</b><br><small>frame ${fork.index}</small>`;
        const back = document.createElement("button");
        back.textContent = "Go back";
        back.className = "back";
        back.title = `Go back to this moment (${fork.number})`;
        back.onclick = () => this.onRestore(fork.number);
        const drop = document.createElement("button");
        drop.textContent = "✕";
        drop.className = "drop";
        drop.setAttribute("aria-label", `Let moment ${fork.number} go`);
        drop.onclick = () => this.onForget(fork.number);
        fork.canvas ??= thumbnail(fork.image);
        head.append(fork.canvas, words, back, drop);
        item.append(head, ...this.strips(fork).map(drawStrip));
        return item;
      }),
    );
  }
}

function drawStrip({ number, frames }) {
  const strip = document.createElement("div");
  strip.className = "strip";
  const color = document.createElement("i");
  color.style.background = branchColor(number);
  const count = Math.min(SHOWN, frames.length);
  const chosen = Array.from({ length: count }, (_, k) => frames[Math.round(((k + 1) * frames.length) / count) - 1]);
  strip.append(color, ...chosen.map(({ canvas }) => {
    const copy = document.createElement("canvas");
    copy.width = copy.height = canvas.width;
    copy.getContext("2d").drawImage(canvas, 0, 0);
    return copy;
  }));
  return strip;
}
