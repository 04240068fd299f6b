// From a control that the scout saw to the element of the document that stands here now.
const sharesField = (element, key) => kindOf(element) === key.kind && fieldOf(element) === key.field;
const matches = (element, key) => sharesField(element, key) && (!KINDS_KNOWN_BY_NAME.has(key.kind) || accessibleName(element) === key.name);

// A ref means one element. What would be told by its place or by a label, both of which a page may change, is kept as
// soon as its page is there; an element that a script has replaced is looked for again.
const kept = new Map();
const nameOfKey = (key, place = key.place) => JSON.stringify([key.kind, key.field, key.name, place]);

function keep(pages, here) {
  for (const key of pages.find((page) => page.number === here)?.kept ?? []) resolve(key);
}

function resolve(key) {
  const own = nameOfKey(key);
  const known = kept.get(own);
  if (known?.isConnected && sharesField(known, key)) return known;
  const found = controls().filter((element) => matches(element, key))[key.place] ?? null;
  // One that came before it is gone, and what now has its place belongs to the next ref.
  if (found && kept.get(nameOfKey(key, key.place + 1)) === found) return null;
  kept.set(own, found);
  return found;
}

// Number of the scouted page that this document is, 0 where it is none: title, and the share of its controls found.
function pageNumber(pages) {
  const title = heading();
  const present = new Set(controls().map((element) => `${kindOf(element)} ${fieldOf(element)}`));
  let best = { number: 0, score: 0.5 };
  for (const page of pages) {
    const share = page.keys.filter((key) => present.has(key)).length / Math.max(1, page.keys.length);
    const score = share + (page.title === title ? 1 : 0);
    if (score > best.score) best = { number: page.number, score };
  }
  return best.number;
}

const belongsTo = (hit, element) => element.contains(hit) || hit?.closest("label")?.control === element;

function scrollToView(element) {
  const box = element.getBoundingClientRect();
  const view = element.ownerDocument.defaultView;
  if (frameOf(element) || box.top < 0 || box.left < 0 || box.bottom > view.innerHeight || box.right > view.innerWidth) {
    element.scrollIntoView({ block: "center", inline: "center", behavior: "instant" });
  }
}

const WRITES = new Set(["fill", "clear"]);
// What hands over what stands there: a person would first let the page finish.
const HANDS_OVER = new Set(["click", "next", "submit", "press"]);

// Why a user could not act on the element, or the point at which a user would.
function reach(element, verb) {
  if (!isVisible(element)) return { note: "hidden" };
  if (isDisabled(element)) return { note: "disabled" };
  if (element.readOnly && WRITES.has(verb)) return { note: "not_editable" };
  let by = null;
  for (const target of [element, labelInFront(element)].filter((item) => item && hasBox(item))) {
    scrollToView(target);
    const { point, hit } = freePoint(target, element);
    if (point) return { element, point: onPage(point, target) };
    by ??= hit;
  }
  return { note: "covered", by: by ? coverName(by) : "the edge of the page" };
}

// The middle, or another point where the middle belongs to another control.
function freePoint(target, element) {
  const box = target.getBoundingClientRect();
  let middle = null;
  for (const [right, down] of POINTS) {
    const point = { x: box.left + box.width * right, y: box.top + box.height * down };
    const hit = elementAt(target.ownerDocument, point.x, point.y);
    if (belongsTo(hit, element) && !isOtherControl(hit, element)) return { point, hit };
    middle ??= hit;
    if (!isOtherControl(middle, element)) break;
  }
  return { hit: middle };
}

const POINTS = [[0.5, 0.5], [0.1, 0.5], [0.9, 0.5], [0.5, 0.15], [0.5, 0.85], [0.1, 0.15], [0.9, 0.15], [0.1, 0.85], [0.9, 0.85]];
function isOtherControl(hit, element) {
  const control = hit?.closest(CONTROLS);
  return Boolean(control && kindOf(control)) && !control.contains(element) && !element.contains(control);
}

// A point of a frame, as a point of the page.
function onPage(point, element) {
  const frame = frameOf(element);
  if (!frame) return point;
  const box = frame.getBoundingClientRect();
  return onPage({ x: point.x + box.left + frame.clientLeft, y: point.y + box.top + frame.clientTop }, frame);
}

function coverName(hit) {
  const cover = hit.closest("dialog, [role=dialog], [aria-label]") ?? hit;
  return squeeze(cover.getAttribute("aria-label") ?? "") || textOf(cover).slice(0, 40) || cover.localName;
}

// Number of the page, once it is the one that is meant, or nothing is under way that could make it so.
async function pageInTime(pages, wanted) {
  const here = pageNumber(pages);
  if (here === wanted || !isUnderWay()) return here;
  return (await patiently(() => ({ here: pageNumber(pages), note: pageNumber(pages) === wanted ? undefined : "wrong_page" }))).here;
}

// The element of a step, or the note that says why there is none.
function locate({ key, verb }) {
  const attempt = () => {
    const element = resolve(key);
    return element ? reach(element, verb) : { note: "not_found" };
  };
  return patiently(attempt, { isLast: HANDS_OVER.has(verb) });
}
