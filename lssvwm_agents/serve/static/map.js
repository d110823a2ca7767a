// The map: walls from above, paths, the dreamer, the real twin, a goal, and a planner's candidates.

export const BRANCH_COLORS = ["#14a3b2", "#e0731d", "#8a63d2", "#2f7de1", "#2f9e5b", "#d6457f"];
export const branchColor = (number) => BRANCH_COLORS[number % BRANCH_COLORS.length];

export class MazeMap {
  constructor(canvas, onPick) {
    this.canvas = canvas;
    this.clear();
    canvas.addEventListener("click", (event) => {
      const box = canvas.getBoundingClientRect();
      const x = ((event.clientX - box.left) / box.width) * this.grid;
      const y = this.grid - ((event.clientY - box.top) / box.height) * this.grid;
      onPick(x, y);
    });
    new ResizeObserver(() => this.draw()).observe(canvas);
  }

  clear() {
    this.grid = 9;
    this.picture = null;
    this.looked = [];
    this.lookedShown = Infinity;
    this.branches = new Map();
    this.pose = this.twin = this.goal = null;
    this.candidates = [];
    this.forks = new Map();
  }

  async load(scene) {
    this.clear();
    this.grid = scene.grid;
    this.looked = scene.looked;
    for (const branch of scene.branches) this.branches.set(branch.number, branch.path);
    for (const fork of scene.forks) this.forks.set(fork.number, fork);
    const picture = new Image();
    picture.src = scene.map;
    await picture.decode();
    this.picture = picture;
  }

  draw() {
    const { canvas } = this;
    const size = Math.round(canvas.clientWidth * devicePixelRatio);
    if (!size) return;
    if (canvas.width !== size) canvas.width = canvas.height = size;
    const pen = canvas.getContext("2d");
    const cell = size / this.grid;
    const at = ([x, y]) => [x * cell, (this.grid - y) * cell];
    pen.clearRect(0, 0, size, size);
    if (this.picture) pen.drawImage(this.picture, 0, 0, size, size);
    pen.lineJoin = pen.lineCap = "round";

    const line = (points, color, width, alpha = 1) => {
      if (points.length < 2) return;
      pen.globalAlpha = alpha;
      pen.strokeStyle = color;
      pen.lineWidth = width;
      pen.beginPath();
      points.forEach((point, i) => pen[i ? "lineTo" : "moveTo"](...at(point)));
      pen.stroke();
      pen.globalAlpha = 1;
    };
    const dot = (point, radius, color) => {
      pen.fillStyle = color;
      pen.beginPath();
      pen.arc(...at(point), radius, 0, 2 * Math.PI);
      pen.fill();
    };

    line(this.looked.slice(0, this.lookedShown), "#d3ad4a", cell * 0.3, 0.42);
    for (const [number, path] of this.branches) line(path, branchColor(number), Math.max(2, cell * 0.085), 0.95);
    for (const path of this.candidates.slice(1).reverse()) line(path, "#b42fc0", Math.max(1, cell * 0.035), 0.35);
    if (this.candidates.length) line(this.candidates[0], "#b42fc0", Math.max(2, cell * 0.1), 0.95);
    for (const fork of this.forks.values()) {
      dot(fork.pose, cell * 0.19, "#fff");
      dot(fork.pose, cell * 0.14, branchColor(fork.branch));
      pen.fillStyle = "#fff";
      pen.font = `600 ${cell * 0.2}px system-ui, sans-serif`;
      pen.textAlign = "center";
      pen.textBaseline = "middle";
      pen.fillText(fork.number, ...at(fork.pose));
    }
    if (this.goal) {
      dot(this.goal, cell * 0.22, "#fff");
      dot(this.goal, cell * 0.17, "#b42fc0");
      dot(this.goal, cell * 0.07, "#fff");
    }
    if (this.twin) this.arrow(pen, at, cell, this.twin, "#7a7f88", 0.85);
    if (this.pose) this.arrow(pen, at, cell, this.pose, "#0b6c77", 1);
  }

  arrow(pen, at, cell, [x, y, heading], color, scale) {
    pen.save();
    pen.translate(...at([x, y]));
    pen.rotate(-heading);
    pen.scale(cell * 0.42 * scale, cell * 0.42 * scale);
    pen.beginPath();
    pen.moveTo(1, 0);
    pen.lineTo(-0.75, 0.68);
    pen.lineTo(-0.38, 0);
    pen.lineTo(-0.75, -0.68);
    pen.closePath();
    pen.restore();
    pen.strokeStyle = "#fff";
    pen.lineWidth = cell * 0.1;
    pen.stroke();
    pen.fillStyle = color;
    pen.fill();
  }
}
