// The page as it is now: what stands in the window, in reading order, and how much lies above and below it.
const PASSAGES = "p, li, dt, dd, tr, h2, h3, caption, figcaption, [role=status]";

const isControl = (node) => node.matches(CONTROLS) && kindOf(node) !== null;

// Text of a block that belongs neither to a control or its label, nor to a block inside it.
function ownText(block) {
  const read = (node) => {
    if (node.nodeType === Node.TEXT_NODE) return node.nodeValue;
    if (node.nodeType !== Node.ELEMENT_NODE || !isRendered(node)) return "";
    if (node !== block && (isControl(node) || node.matches(`${PASSAGES}, label, legend, fieldset, script, style, [aria-hidden=true]`))) return "";
    return ` ${Array.from(node.childNodes, read).join("")} `;
  };
  return squeeze(read(block)).replace(/ (?=[.,:;!?])/g, "");
}

// What the page announces, an entry of a list on its own.
function announcements() {
  const nodes = Array.from(document.querySelectorAll("[role=alert]")).filter(isRendered);
  return nodes.flatMap((node) => {
    const entries = Array.from(node.querySelectorAll("li"));
    return entries.length ? entries.map((entry) => textOf(entry)) : [textOf(node)];
  });
}

const isAnnounced = (node) => node.closest("[role=alert]") !== null;
// Where an element stands: -1 above the window, 0 in it, 1 below.
function sideOfWindow(element) {
  const box = element.getBoundingClientRect();
  const middle = (box.top + box.bottom) / 2;
  return middle < 0 ? -1 : middle > innerHeight ? 1 : 0;
}

// What the page has under way belongs to what is seen.
async function view() {
  await patiently(() => ({}), { isLast: true });
  const elements = visibleControls();
  const records = described(elements);
  const places = elements.map(sideOfWindow);
  const shown = places.flatMap((place, at) => (place === 0 ? [{ number: at + 1, ...records[at] }] : []));
  const passages = [];
  for (const block of document.body.querySelectorAll(PASSAGES)) {
    if (!hasBox(block) || isAnnounced(block) || sideOfWindow(block) !== 0) continue;
    const text = ownText(block);
    if (!text) continue;
    const next = elements.findIndex((element) => block.compareDocumentPosition(element) === Node.DOCUMENT_POSITION_FOLLOWING);
    passages.push({ text, before: next < 0 ? 0 : next + 1 });
  }
  return {
    address: location.pathname,
    title: heading(),
    controls: shown,
    passages,
    errors: announcements(),
    above: places.filter((place) => place < 0).length,
    below: places.filter((place) => place > 0).length,
    canGoBack: Boolean(window.navigation?.canGoBack),
  };
}

// Moves the window by most of its height; false where the page ends.
function scrollPage(direction) {
  const before = scrollY;
  scrollBy({ top: (direction === "down" ? 0.8 : -0.8) * innerHeight, behavior: "instant" });
  return scrollY !== before;
}

// In an episode time stands still between turns, however long a policy takes: what a page has put off by a second or
// more is held back until `passTime`.
const HELD_FROM = 1000;
const held = [];
function holdTime() {
  const start = window.setTimeout;
  window.setTimeout = function (work, delay = 0, ...rest) {
    if (delay < HELD_FROM) return start.call(window, work, delay, ...rest);
    held.push(() => work(...rest));
    return 0;
  };
}

// Lets everything happen that was put off until now, and says whether the page is being left.
async function passTime() {
  const before = appearance();
  for (const work of held.splice(0)) work();
  if (!isLeaving()) await twoFrames();
  return { isLeaving: isLeaving(), isChanged: appearance() !== before };
}
