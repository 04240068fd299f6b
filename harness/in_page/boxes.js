// One value over a row of boxes of one character each, such as a code that was sent by mail. The page makes it one where
// the boxes are sent under no names of their own: the first then stands for all of them, and the others are no controls.
const MIN_BOXES = 3;
const ONE_LINE = ["text", "search", "password", "tel", "number"];
const isOneBox = (element) => element.localName === "input" && ONE_LINE.includes(element.type) &&
  (element.maxLength === 1 || element.size === 1);
// By its first box, a row of boxes of this document.
const rows = new Map();
const boxesOf = (element) => rows.get(element) ?? null;

function withoutFurtherBoxes(elements) {
  rows.clear();
  if (!elements.some(isOneBox)) return elements;
  const further = new Set();
  let row = [];
  const end = () => {
    if (row.length >= MIN_BOXES) {
      rows.set(row[0], row);
      row.slice(1).forEach((box) => further.add(box));
    }
    row = [];
  };
  for (const element of elements) {
    if (!row.length || !isOneBox(element) || !goesOn(row.at(-1), element)) end();
    if (isOneBox(element)) row.push(element);
  }
  end();
  return elements.filter((element) => !further.has(element));
}

// Whether nothing but separators stands between two boxes of one form, which are sent as one.
function goesOn(box, next) {
  if (box.form !== next.form || box.name !== next.name || box.getRootNode() !== next.getRootNode()) return false;
  const [own, other] = [box, next].map((element) => Array.from(element.labels, (label) => textOf(label, element)).join(" "));
  if (other && isNumberless(own) !== isNumberless(other)) return false;
  const range = document.createRange();
  range.setStartAfter(box);
  range.setEndBefore(next);
  return !/[\p{L}\p{N}]/u.test(range.toString().replace(own, "").replace(other, ""));
}

const isNumberless = (text) => text.replace(/\d+/g, "").trim();

// The legend of the row, its only label, or the text before it.
function nameOfRow(row) {
  const group = row[0].closest("fieldset, [role=group]");
  const others = group ? allElements(group).filter((element) => isNative(element) && !row.includes(element)) : [];
  const isAlone = group && !others.length;
  const label = row.some((box, at) => at && box.labels.length) ? "" : accessibleLabel(row[0]);
  return (isAlone && legendOf(group)) || label || textBeforeAll(row) || accessibleName(row[0]);
}

const accessibleLabel = (box) => squeeze(Array.from(box.labels, (label) => textOf(label, box)).join(" "));
const lettersFor = (row, value) => row.map((_, at) => Array.from(value)[at] ?? "");

// A letter a box, as a person types it; a page may go on to the next box by itself, and may free it only then.
async function fillRow(row, value) {
  for (const [at, letter] of lettersFor(row, value).entries()) {
    if (row[at].value === letter) continue;
    await patiently(() => (row[at].disabled ? { note: "disabled" } : {}));
    if (row[at].disabled) break;
    row[at].focus({ preventScroll: true });
    write(row[at], letter);
    emit(row[at], "change");
  }
  return readBack(row[0], value);
}

// For the real keyboard: the box of the target that is typed into next, and what is written into it.
async function nextBox({ value, at }) {
  const row = boxesOf(watch.target);
  const letter = row && lettersFor(row, value)[at];
  if (!row || row[at].value === letter) return null;
  await patiently(() => (row[at].disabled ? { note: "disabled" } : {}));
  if (row[at].disabled) return null;
  row[at].focus({ preventScroll: true });
  row[at].select();
  return letter;
}
