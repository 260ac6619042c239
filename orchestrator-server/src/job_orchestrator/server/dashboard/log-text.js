// Output as a terminal displays it: after a carriage return the line is overwritten (progress bars).
// Escape sequences (colours) are omitted. Memory is bounded: the oldest text is dropped.

import { h } from "./dom.js";

/** Maximum number of characters that are kept, about 256 KiB. */
export const KEPT_CHARS = 262_144;
const PIECE_CHARS = 16_384;

/* eslint-disable-next-line no-control-regex */
const ESCAPES = /\u001b(?:\[[0-?]*[ -/]*[@-~]|\][^\u0007\u001b]*(?:\u0007|\u001b\\)|[@-Z\\-_])/g;
/** An incomplete escape sequence at the end of a chunk. */
const CUT_ESCAPE = /\u001b(?:\[[0-?]*[ -/]*|\][^\u0007\u001b]{0,200})?$/;

/** A `pre` element to which text is appended. */
export class LogText {
  constructor(label) {
    this.element = h("pre", { class: "log wrapped", tabindex: 0, role: "region", "aria-label": label });
    this.clear();
  }

  clear() {
    this.element.replaceChildren();
    this.pieces = [];
    this.chars = 0;
    this.droppedChars = 0;
    this.lines = 0;
    this.rest = "";
    this.open = document.createTextNode("");
    this.element.append(this.open);
  }

  /** True if nothing was written. */
  get empty() {
    return this.chars === 0 && this.open.data === "" && this.droppedChars === 0;
  }

  append(chunk) {
    let text = this.rest + chunk;
    // A carriage return at the end of a chunk may be the first half of a line break.
    const cut = CUT_ESCAPE.exec(text)?.index ?? (text.endsWith("\r") ? text.length - 1 : text.length);
    this.rest = text.slice(cut);
    text = (this.open.data + text.slice(0, cut)).replace(ESCAPES, "").replaceAll("\r\n", "\n");
    const end = text.lastIndexOf("\n") + 1;
    if (end > 0) this.add(text.slice(0, end).split("\n").map(overwrite).join("\n"));
    // A very long line is split.
    const line = overwrite(text.slice(end));
    if (line.length > PIECE_CHARS) {
      this.add(line);
      this.open.data = "";
    } else this.open.data = line;
  }

  /** Add complete lines before the last, incomplete one. */
  add(text) {
    for (let index = 0; index < text.length; index += 1) if (text[index] === "\n") this.lines += 1;
    for (let start = 0; start < text.length; start += PIECE_CHARS) this.addPiece(text.slice(start, start + PIECE_CHARS));
    while (this.chars > KEPT_CHARS) {
      const oldest = this.pieces.shift();
      this.chars -= oldest.data.length;
      this.droppedChars += oldest.data.length;
      oldest.remove();
    }
  }

  addPiece(text) {
    this.chars += text.length;
    const last = this.pieces[this.pieces.length - 1];
    if (last && last.data.length + text.length <= PIECE_CHARS) {
      last.appendData(text);
      return;
    }
    const piece = document.createTextNode(text);
    this.pieces.push(piece);
    this.element.insertBefore(piece, this.open);
  }
}

function overwrite(line) {
  const start = line.lastIndexOf("\r");
  return start < 0 ? line : line.slice(start + 1);
}
