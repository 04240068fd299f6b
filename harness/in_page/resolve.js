// From a control that the scout saw to the element of the document that stands here now.
function matches(element, key) {
  return kindOf(element) === key.kind && (element.name ?? "") === key.field &&
    ((!KINDS_KNOWN_BY_NAME.has(key.kind) && key.field !== "") || accessibleName(element) === key.name);
}

function resolve(key) {
  const found = controls().filter((element) => matches(element, key));
  return found.find(isVisible) ?? found[0] ?? null;
}

// Number of the scouted page that this document is, 0 where it is none: title, and the share of its controls found.
function pageNumber(pages) {
  const title = heading();
  const present = new Set(controls().map((element) => `${kindOf(element)} ${element.name ?? ""}`));
  let best = { number: 0, score: 0.5 };
  for (const page of pages) {
    const share = page.keys.filter((key) => present.has(key)).length / Math.max(1, page.keys.length);
    const score = share + (page.title === title ? 1 : 0);
    if (score > best.score) best = { number: page.number, score };
  }
  return best.number;
}

const nextFrame = () => new Promise((done) => {
  const timer = setTimeout(done, 100);
  requestAnimationFrame(() => { clearTimeout(timer); done(); });
});

async function twoFrames() {
  await nextFrame();
  await nextFrame();
}

const belongsTo = (hit, element) => element.contains(hit) || hit?.closest("label")?.control === element;

function scrollToView(element) {
  const box = element.getBoundingClientRect();
  if (box.top < 0 || box.left < 0 || box.bottom > innerHeight || box.right > innerWidth) {
    element.scrollIntoView({ block: "center", inline: "center", behavior: "instant" });
  }
}

// Why a user could not act on the element, or the point at which a user would.
function reach(element) {
  if (!isVisible(element)) return { note: "hidden" };
  if (element.matches(":disabled")) return { note: "disabled" };
  if (element.readOnly) return { note: "not_editable" };
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

// The element of a step, or the note that says why there is none. A page gets two frames to reveal it.
async function locate(key) {
  for (let attempt = 0; ; attempt++) {
    const element = resolve(key);
    const found = element ? reach(element) : { note: "not_found" };
    if (found.element || attempt === 1) return found;
    await twoFrames();
  }
}
