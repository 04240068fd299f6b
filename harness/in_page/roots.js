// The parts of a page that a plain search does not enter: open shadow roots, and frames of the same origin.
let hasShadowRoots = false;
const attachShadow = Element.prototype.attachShadow;
Element.prototype.attachShadow = function (options) {
  hasShadowRoots ||= options.mode === "open";
  return attachShadow.call(this, options);
};

const isNested = () => hasShadowRoots || window.length > 0;

function documentIn(frame) {
  try {
    return frame.contentDocument;
  } catch {
    return null;
  }
}

// Elements that may be controls, in reading order.
function allElements(root) {
  if (!isNested()) return Array.from(root.querySelectorAll(CONTROLS));
  return Array.from(root.querySelectorAll("*")).flatMap((element) => {
    const inner = element.shadowRoot ?? (element.localName === "iframe" && isVisible(element) ? documentIn(element) : null);
    return [...(element.matches(CONTROLS) ? [element] : []), ...(inner ? allElements(inner) : [])];
  });
}

// The element at a point of the document that holds it, through shadow roots.
function elementAt(page, x, y) {
  let hit = page.elementFromPoint(x, y);
  while (hit?.shadowRoot) {
    const inner = hit.shadowRoot.elementFromPoint(x, y);
    if (!inner || inner === hit) break;
    hit = inner;
  }
  return hit;
}

// The frame of this page in which an element stands, or null.
const frameOf = (element) => (element.ownerDocument === document ? null : element.ownerDocument.defaultView.frameElement);
const isLoadingFrame = (frame) => documentIn(frame)?.readyState !== undefined && documentIn(frame).readyState !== "complete";
