// What a page has under way: timers that end soon, requests, changes of style that run. Whoever acts waits for it, as a
// person does, for a second at most and five seconds a document; a page that has nothing under way is not waited for.
const PATIENCE_MS = 1000;
const DOCUMENT_PATIENCE_MS = 5000;
const later = window.setTimeout.bind(window);
const notLater = window.clearTimeout.bind(window);
const underWay = new Set();
let patienceMs = DOCUMENT_PATIENCE_MS;
let waitedMs = 0;

// A timer counts until it first fires, and one that starts itself again only once.
let firing = null;
function watchTimer(start) {
  return (work, delay, ...given) => {
    if (typeof work !== "function" || delay > PATIENCE_MS || work === firing) return start(work, delay, ...given);
    const timer = start((...values) => {
      underWay.delete(timer);
      firing = work;
      try { return work.apply(window, values); } finally { firing = null; }
    }, delay, ...given);
    underWay.add(timer);
    return timer;
  };
}

window.setTimeout = watchTimer(later);
window.setInterval = watchTimer(window.setInterval.bind(window));
for (const name of ["clearTimeout", "clearInterval"]) {
  const clear = window[name].bind(window);
  window[name] = (timer) => { underWay.delete(timer); clear(timer); };
}

function watched(promise) {
  const done = () => underWay.delete(promise);
  underWay.add(promise);
  promise.then(done, done);
  return promise;
}

// An answer comes before its body, which is read in steps of its own.
const ask = window.fetch.bind(window);
window.fetch = (...given) => watched(ask(...given));
for (const name of ["text", "json", "blob", "arrayBuffer", "formData"]) {
  const read = Response.prototype[name];
  Response.prototype[name] = function () { return watched(read.call(this)); };
}
const send = XMLHttpRequest.prototype.send;
XMLHttpRequest.prototype.send = function (...given) {
  underWay.add(this);
  this.addEventListener("loadend", () => underWay.delete(this), { once: true });
  return send.apply(this, given);
};

// Asking for what moves costs a look at every style, so that a page is asked only once something has begun to.
let hasMoved = false;
for (const type of ["transitionrun", "animationstart"]) window.addEventListener(type, () => { hasMoved = true; }, true);
const isMoving = (animation) => animation.playState === "running" && animation.effect?.getComputedTiming().endTime < Infinity;
const isUnderWay = () => underWay.size > 0 || (hasMoved && document.getAnimations().some(isMoving)) ||
  (window.length > 0 && Array.from(document.querySelectorAll("iframe")).some(isLoadingFrame));

const nextFrame = () => new Promise((done) => {
  const timer = later(done, 100);
  requestAnimationFrame(() => { notLater(timer); done(); });
});

async function twoFrames() {
  await nextFrame();
  await nextFrame();
}

// The first result without a note, else the last. A page gets two frames, and the time that it needs for what is under
// way. isLast: whether nothing may be under way when the result is taken.
async function patiently(attempt, { isLast = false } = {}) {
  const start = performance.now();
  const spent = () => performance.now() - start;
  const limit = Math.min(PATIENCE_MS, patienceMs);
  for (let numQuiet = 0, hasWaited = false; ;) {
    const result = attempt();
    if (!result.note && !isLast) return settle(result, hasWaited, spent());
    const isBusy = isUnderWay() && spent() < limit;
    numQuiet = isBusy ? 0 : numQuiet + 1;
    hasWaited ||= isBusy;
    if ((!result.note && !isBusy) || numQuiet === 2) return settle(result, hasWaited, spent());
    await twoFrames();
  }
}

function settle(result, hasWaited, spent) {
  if (hasWaited) { patienceMs -= spent; waitedMs += spent; }
  return result;
}

const takeWaited = () => { const taken = waitedMs; waitedMs = 0; return taken / 1000; };
