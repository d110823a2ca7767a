// The memory meter: then and now, how well they match, and a trace of the last moves.

const KEPT = 150;
const $ = (id) => document.getElementById(id);

export class Meter {
  constructor() {
    this.trace = [];
    new ResizeObserver(() => this.drawTrace()).observe($("trace"));
  }

  begin(scene, sheet) {
    this.sheet = sheet;
    this.trace = [];
    $("typical").textContent = `${scene.typical_db.toFixed(0)} dB`;
    $("ceiling").textContent = `${scene.ceiling_db.toFixed(0)} dB`;
    $("state-size").textContent = `${(scene.state_bytes / 2 ** 20).toFixed(1)} MB, however long you walk`;
  }

  show(recall) {
    const card = document.querySelector(".memory-card");
    card.classList.toggle("unknown", !recall.revisit);
    const percent = recall.match === null ? null : Math.round(100 * recall.match);
    $("match").textContent = percent === null ? "–" : `${percent} %`;
    $("bar").style.width = `${percent ?? 0}%`;
    $("verdict").textContent = verdict(recall);
    $("recall-words").textContent = words(recall);
    const then = $("then");
    if (recall.then === null) then.getContext("2d").clearRect(0, 0, then.width, then.height);
    else this.sheet.paint(then, recall.then);
    $("then-words").textContent = recall.then === null ? "no view from here before" : "then, real";
    this.trace.push(recall);
    if (this.trace.length > KEPT) this.trace.shift();
    this.drawTrace();
  }

  drawTrace() {
    const canvas = $("trace"), ratio = devicePixelRatio;
    const width = canvas.clientWidth * ratio, height = 34 * ratio;
    if (!width) return;
    Object.assign(canvas, { width, height });
    const pen = canvas.getContext("2d"), style = getComputedStyle(document.body);
    const step = width / KEPT;
    this.trace.forEach((recall, i) => {
      const tall = recall.match === null ? 0 : Math.max(2 * ratio, recall.match * height);
      pen.fillStyle = style.getPropertyValue(recall.revisit ? "--dream" : "--faint");
      pen.globalAlpha = recall.revisit ? 0.9 : 0.35;
      pen.fillRect(i * step, height - tall, Math.max(1, step - ratio * 0.6), tall);
    });
  }
}

function verdict({ revisit, match }) {
  if (match === null) return "inside a wall";
  if (!revisit) return "new ground";
  if (match > 0.75) return "as it was";
  if (match > 0.5) return "much as it was";
  return match > 0.25 ? "hazy" : "lost";
}

function words({ revisit, match, db, age, seen_share }) {
  if (match === null) return "The dream has walked into a wall: nothing real to compare with.";
  const share = Math.round(100 * seen_share);
  if (!revisit) return `Only ${share} % of this view was ever seen: the rest the model can but guess.`;
  const when = age === 0 ? "just now" : age === 1 ? "one frame ago" : `${age} frames ago`;
  return `${share} % of this view was really seen, ${when}. It comes back at ${db.toFixed(1)} dB.`;
}
