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
  if (box.top < 0 || box.left < 0 || box.bottom > innerHeight || box.right > innerWidth) {
    element.scrollIntoView({ block: "center", inline: "center", behavior: "instant" });
  }
}

const WRITES = new Set(["fill", "clear"]);
// What hands over what stands there: a person would first let the page finish.
const HANDS_OVER = new Set(["click", "next", "submit", "press"]);

// Why a user could not act on the element, or the point at which a user would.
function reach(element, verb) {
  if (!isVisible(element)) return { note: "hidden" };
  if (element.matches(":disabled")) return { note: "disabled" };
  if (element.readOnly && WRITES.has(verb)) return { note: "not_editable" };
  scrollToView(element);
  const box = element.getBoundingClientRect();
  const point = { x: box.left + box.width / 2, y: box.top + box.height / 2 };
  const hit = document.elementFromPoint(point.x, point.y);
  if (!belongsTo(hit, element)) return { note: "covered", by: hit ? coverName(hit) : "the edge of the page" };
  return { element, point };
}

function coverName(hit) {
  const cover = hit.closest("dialog, [role=dialog], [aria-label]") ?? hit;
  return squeeze(cover.getAttribute("aria-label") ?? "") || textOf(cover).slice(0, 40) || cover.localName;
}

// The element of a step, or the note that says why there is none.
function locate({ key, verb }) {
  const attempt = () => {
    const element = resolve(key);
    return element ? reach(element, verb) : { note: "not_found" };
  };
  return patiently(attempt, { isLast: HANDS_OVER.has(verb) });
}
