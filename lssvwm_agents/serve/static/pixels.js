// Pixels: base64 RGB bytes to canvases, and pictures cut from the sheet of real frames.

export function toImage(base64, size) {
  const bytes = atob(base64);
  const image = new ImageData(size, size);
  for (let i = 0, j = 0; i < bytes.length; j += 4) {
    image.data[j] = bytes.charCodeAt(i++);
    image.data[j + 1] = bytes.charCodeAt(i++);
    image.data[j + 2] = bytes.charCodeAt(i++);
    image.data[j + 3] = 255;
  }
  return image;
}

export function paint(canvas, image) {
  if (canvas.width !== image.width) canvas.width = canvas.height = image.width;
  canvas.getContext("2d").putImageData(image, 0, 0);
}

export function thumbnail(image) {
  const canvas = document.createElement("canvas");
  paint(canvas, image);
  return canvas;
}

export class Sheet {
  static async load({ image, columns, count }, size) {
    const sheet = new Sheet();
    sheet.picture = new Image();
    sheet.picture.src = image;
    await sheet.picture.decode();
    Object.assign(sheet, { columns, count, size });
    return sheet;
  }

  paint(canvas, index) {
    const { size, columns } = this;
    if (canvas.width !== size) canvas.width = canvas.height = size;
    const x = (index % columns) * size, y = Math.floor(index / columns) * size;
    canvas.getContext("2d").drawImage(this.picture, x, y, size, size, 0, 0, size, size);
  }
}
